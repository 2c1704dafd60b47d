"""Provision and start an NVFLARE proof-of-concept deployment, run one FedAvg job in it and stop it.

submit.py CLIENTS ROUNDS TENSORS VALUES: one tensor is a numpy array, several are a PyTorch model.
"""

import sys
from pathlib import Path

import numpy as np
from nvflare.recipe import PocEnv

RESULT_SECONDS = 3600.0


def small(clients: int, rounds: int, values: int):
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe

    initial = Path("initial.npy").resolve()
    np.save(initial, np.full(values, 0.5, np.float32))
    return NumpyFedAvgRecipe(
        name="benchmark", initial_ckpt=str(initial), min_clients=clients, num_rounds=rounds, train_script="client.py"
    )


def large(clients: int, rounds: int, tensors: int, values: int):
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.client.config import ExchangeFormat

    return FedAvgRecipe(
        name="benchmark",
        model={"class_path": "model.Net", "args": {"tensors": tensors, "values": values}},
        min_clients=clients,
        num_rounds=rounds,
        train_script="client.py",
        server_expected_format=ExchangeFormat.PYTORCH,  # no conversion on the way
    )


if __name__ == "__main__":
    clients, rounds, tensors, values = map(int, sys.argv[1:])
    recipe = small(clients, rounds, values) if tensors == 1 else large(clients, rounds, tensors, values)
    deployment = PocEnv(num_clients=clients)
    try:
        run = recipe.execute(deployment)
        print("result", run.get_result(timeout=RESULT_SECONDS), flush=True)
    finally:
        deployment.stop()
