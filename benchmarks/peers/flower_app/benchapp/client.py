"""Flower client: returns what it received; of a model of several tensors, with a random number added."""

import random

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchapp.marks import mark

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays = message.content["arrays"]
    number = int(message.content["config"]["server-round"])
    if len(arrays) > 1:
        arrays = changed(arrays, context, number)
    else:
        arrays.to_numpy_ndarrays()  # what a training script would do first
        mark("received", context.node_id, number)
    metrics = MetricRecord({"num-examples": 1})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def changed(arrays: ArrayRecord, context: Context, number: int) -> ArrayRecord:
    import torch  # noqa: F401 - Flower converts to PyTorch only where it is loaded

    model = arrays.to_torch_state_dict()
    mark("received", context.node_id, number)
    change = random.random()
    for tensor in model.values():
        tensor += change
    return ArrayRecord(model)
