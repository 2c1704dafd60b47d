"""Flower's FedAvg without evaluation."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchapp.marks import mark

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    sizes = ("clients", "rounds", "tensors", "values")
    clients, rounds, tensors, values = (int(context.run_config[k]) for k in sizes)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    # Random numbers: Flower stores chunks by their digest, and would send equal ones once.
    layers = np.random.default_rng(1).random((tensors, values), np.float32)
    initial = ArrayRecord({f"layer{i}": Array(layer) for i, layer in enumerate(layers)})
    mark("began", "server", 0)
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds, timeout=3600)
    mark("done", "server", rounds)
