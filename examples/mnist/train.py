"""What runs at every site: train the model received on this site's images, send it back, wait for the average."""

import copy

import data
import net
import torch

import fedjob

alpha = 0.3  # how alike the sites are: 100 the same digits everywhere, 0.1 a few digits each
local_epochs = 2  # passes over the site's images in each round
lr = 0.1

torch.set_num_threads(1)  # sums in one order, so that a round can be repeated bit by bit

# The same weights at every site; the job begins with those of one site.
torch.manual_seed(0)
model = net.Net()
own = copy.deepcopy(model)  # for the comparison at the end
fedjob.init(model.state_dict())

# Every site computes the same split and takes its own part.
config = fedjob.get_config()
seed = config["workflow"]["seed"]
sites = sorted(config["sites"])
site = sites.index(config["site"])
images, digits = data.load()
test, parts = data.split(digits, len(sites), seed, alpha)
images, digits = torch.from_numpy(images), torch.from_numpy(digits)
test_images, test_digits = images[test], digits[test]
images, digits = images[parts[site]], digits[parts[site]]
print(f"{len(digits)} images; of each digit, 0 to 9: {torch.bincount(digits, minlength=10).tolist()}", flush=True)

while fedjob.is_running():
    received = fedjob.receive()
    model.load_state_dict(received.params)
    accuracy = net.accuracy(model, test_images, test_digits)  # of the model received, before any training here

    if fedjob.is_evaluate():  # once, with the final model: is it better than what this site gets alone?
        for t in range(received.current_round):  # the same rounds, without the averaging
            net.train(own, images, digits, epochs=local_epochs, lr=lr, seed=(seed, site, t))
        own_accuracy = net.accuracy(own, test_images, test_digits)
        print(f"final model: accuracy {accuracy:.3f}; trained here alone: {own_accuracy:.3f}", flush=True)
        metrics = {"accuracy": accuracy, "own_accuracy": own_accuracy}
        fedjob.send(fedjob.FLModel(metrics=metrics, meta={"num_examples": len(digits)}))
        continue

    t = received.current_round
    loss = net.train(model, images, digits, epochs=local_epochs, lr=lr, seed=(seed, site, t))
    print(f"round {t}: received accuracy {accuracy:.3f}, trained to loss {loss:.3f}", flush=True)
    fedjob.log("loss", loss, global_step=t)
    fedjob.send(
        fedjob.FLModel(
            params=model.state_dict(),
            metrics={"accuracy": accuracy},
            meta={"num_examples": len(digits)},  # the weight in the average
        )
    )
