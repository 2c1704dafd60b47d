"""Provision and start an NVFLARE proof-of-concept deployment, run one FedAvg job in it and stop it.

submit.py CLIENTS ROUNDS VALUES
"""

import sys
from pathlib import Path

import numpy as np
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe import PocEnv

if __name__ == "__main__":
    clients, rounds, values = map(int, sys.argv[1:])
    initial = Path("initial.npy").resolve()
    np.save(initial, np.full(values, 0.5, np.float32))
    recipe = NumpyFedAvgRecipe(
        name="empty-round",
        initial_ckpt=str(initial),
        min_clients=clients,
        num_rounds=rounds,
        train_script="client.py",
    )
    deployment = PocEnv(num_clients=clients)
    try:
        run = recipe.execute(deployment)
        print("result", run.get_result(), flush=True)
    finally:
        deployment.stop()
