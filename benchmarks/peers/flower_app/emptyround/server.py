"""Flower's FedAvg without evaluation."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from emptyround.marks import mark

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    clients, rounds, values = (int(context.run_config[k]) for k in ("clients", "rounds", "values"))
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    initial = ArrayRecord({"layer": Array(np.full(values, 0.5, np.float32))})
    mark("began", "server", 0)
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds, timeout=600)
    mark("done", "server", rounds)
