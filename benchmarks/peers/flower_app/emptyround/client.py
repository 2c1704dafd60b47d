"""Flower client of an empty round: returns what it received."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from emptyround.marks import mark

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays = message.content["arrays"]
    number = int(message.content["config"]["server-round"])
    arrays.to_numpy_ndarrays()  # what a training script would do first
    mark("received", context.node_id, number)
    metrics = MetricRecord({"num-examples": 1})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
