"""What every site of a job under faults runs. The model after a round is a function of round and site alone.

It reaches the server through the line that THROUGH names, and leaves a line in the file that TRAININGS names when it begins to train.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

import fedjob

ELEMENTS = int(os.environ["ELEMENTS"])
given = Path(os.environ["FEDJOB_CONFIG"])
settings = given.with_suffix(".through.json")
settings.write_text(json.dumps({**json.loads(given.read_text()), "server": os.environ["THROUGH"]}))

start = {"w": np.zeros(ELEMENTS, np.float32), "half": np.zeros(ELEMENTS, np.float16), "steps": np.int64(0)}
fedjob.init(start, config_file=str(settings))
site = fedjob.get_site_name()
while fedjob.is_running():
    model = fedjob.receive()
    if model is None:
        break
    number = model.current_round or 0
    if f"{site}:{number}" == os.environ.get("SKIPS"):
        fedjob.skip("as told")
        continue
    with Path(os.environ["TRAININGS"]).open("a", encoding="utf-8") as f:
        f.write(f"{number} {site}\n")
    chance = np.random.default_rng([number, ord(site)])
    time.sleep(chance.uniform(0.01, 0.05))  # the time that training takes
    params = {
        "w": np.float32(0.9) * model.params["w"] + chance.standard_normal(ELEMENTS, np.float32),
        "half": (model.params["half"] + chance.random(ELEMENTS, np.float32)).astype(np.float16),
        "steps": model.params["steps"] + 1,
    }
    fedjob.log("mean", float(params["w"].mean()), step=number)
    fedjob.send(fedjob.FLModel(params=params, metrics={"round": number}, meta={"num_examples": 10 + ord(site)}))
