"""Client of an empty round: returns what it received, and tells the benchmark when. empty.py VALUES [HOLD]

HOLD: a round in which the first site waits until it is let go, while all others wait for the next round.
"""

import time

started = time.monotonic()

import sys  # noqa: E402

import numpy as np  # noqa: E402
from telling import mark, wait_for_go  # noqa: E402

import fedjob  # noqa: E402

imported = time.monotonic()
values, hold = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else -1

with fedjob.init({"layer": np.full(values, 0.5, np.float32)}):
    initialised, site = time.monotonic(), fedjob.get_site_name()
    mark("started", site, 0, seconds=started)
    mark("imported", site, 0, seconds=imported)
    mark("initialised", site, 0, seconds=initialised)
    first = site == fedjob.get_config()["sites"][0]
    while fedjob.is_running():
        model = fedjob.receive()
        mark("received", site, model.current_round)
        if first and model.current_round == hold:
            wait_for_go()
        fedjob.send(fedjob.FLModel(params=model.params, meta={"num_examples": 1}))
        mark("sent", site, model.current_round)
