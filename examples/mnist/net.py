"""A small convolutional network, one round of training, and its accuracy."""

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    """Two convolutions and two linear layers: 20,522 parameters."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2)
        self.conv2 = nn.Conv2d(8, 16, 5, stride=2)
        self.fc1 = nn.Linear(16 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        """Images [n, 1, 28, 28] to scores [n, 10]."""
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def train(model, images, digits, *, epochs, lr, seed):
    """Train `model` in place with a fresh optimizer; return the mean loss of the last epoch.

    seed: whole numbers, such as (seed, site, round). The same seed and the same weights give the same result, bit by bit,
    so a script that was killed and started again sends what it would have sent.
    """
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        total = 0.0
        for rows in torch.from_numpy(rng.permutation(len(digits))).split(32):
            loss = nn.functional.cross_entropy(model(images[rows]), digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
    return total / len(digits)


@torch.no_grad()
def accuracy(model, images, digits):
    """The share of images whose digit the model finds, 0 to 1."""
    model.eval()
    return (model(images).argmax(1) == digits).double().mean().item()
