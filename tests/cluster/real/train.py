"""What every site of a job under faults runs. The model after a round is a function of round and site alone.

ROUND_SECONDS: how long a round takes. With data, a round ends only when the file "open" there says that so many may.
"""

import os
import time
from pathlib import Path

import numpy as np

import fedjob

gate = Path(os.environ["FEDJOB_DATA"], "open") if "FEDJOB_DATA" in os.environ else None


def held(number: int) -> bool:
    return gate is not None and not (gate.exists() and number < int(gate.read_text()))


fedjob.init({"w": np.zeros(250_000, np.float32), "steps": np.int64(0)})
site = fedjob.get_site_name()
while fedjob.is_running():
    model = fedjob.receive()
    if model is None:
        break
    number = model.current_round
    assert number is not None
    chance = np.random.default_rng([number, *site.encode()])
    time.sleep(float(os.environ["ROUND_SECONDS"]))  # the time that training takes
    while held(number):
        time.sleep(0.05)
    params = {
        "w": np.float32(0.9) * model.params["w"] + chance.standard_normal(250_000, np.float32),
        "steps": model.params["steps"] + 1,
    }
    fedjob.send(fedjob.FLModel(params=params, meta={"num_examples": 10 + len(site)}))
