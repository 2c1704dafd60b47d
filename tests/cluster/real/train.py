"""What every site of a job under kills runs. The model after a round is a function of round and site alone; ROUND_SECONDS: how long a round takes."""

import os
import time

import numpy as np

import fedjob

fedjob.init({"w": np.zeros(250_000, np.float32), "steps": np.int64(0)})
site = fedjob.get_site_name()
while fedjob.is_running():
    model = fedjob.receive()
    if model is None:
        break
    number = model.current_round
    chance = np.random.default_rng([number, *site.encode()])
    time.sleep(float(os.environ["ROUND_SECONDS"]))  # the time that training takes
    params = {
        "w": np.float32(0.9) * model.params["w"] + chance.standard_normal(250_000, np.float32),
        "steps": model.params["steps"] + 1,
    }
    fedjob.send(fedjob.FLModel(params=params, meta={"num_examples": 10 + len(site)}))
