"""What runs at every hospital: no torch, a dict of numpy arrays goes out and comes back averaged."""

import data
import model

import fedjob

local_epochs = 5  # passes over the hospital's patients in each round

fedjob.init(model.initial())

config = fedjob.get_config()
seed = config["workflow"]["seed"]
measurements, malignant = data.load()
test, parts = data.split(malignant, seed)
mine = parts[config["site"]]
test_measurements, test_malignant = measurements[test], malignant[test]
measurements, malignant = measurements[mine], malignant[mine]
print(f"{len(mine)} patients, {malignant.sum()} of them with a malignant tumour", flush=True)

while fedjob.is_running():
    received = fedjob.receive()
    params = received.params
    accuracy = model.accuracy(params, test_measurements, test_malignant)  # of the model received

    if fedjob.is_evaluate():  # once, with the final model: is it better than what this hospital gets alone?
        own = model.measure(model.initial(), measurements)
        for t in range(1, received.current_round):
            own = model.train(own, measurements, malignant, epochs=local_epochs, seed=t)
        own_accuracy = model.accuracy(own, test_measurements, test_malignant)
        print(f"final model: accuracy {accuracy:.3f}; trained here alone: {own_accuracy:.3f}", flush=True)
        metrics = {"accuracy": accuracy, "own_accuracy": own_accuracy}
        fedjob.send(fedjob.FLModel(metrics=metrics, meta={"num_examples": len(mine)}))
        continue

    t = received.current_round
    if t == 0:  # first agree on the means, so that all hospitals standardise alike
        params = model.measure(params, measurements)
    else:
        params = model.train(params, measurements, malignant, epochs=local_epochs, seed=t)
    print(f"round {t}: received accuracy {accuracy:.3f}", flush=True)
    fedjob.send(fedjob.FLModel(params=params, metrics={"accuracy": accuracy}, meta={"num_examples": len(mine)}))
