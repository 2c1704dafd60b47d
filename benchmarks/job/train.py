"""Client of an empty round: returns what it received, and tells the benchmark when."""

import time

started = time.monotonic()

import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

import fedjob  # noqa: E402

imported = time.monotonic()


def mark(seconds: float, event: str, site: str, number: int) -> None:
    with Path(os.environ["BENCH_MARKS"]).open("wb", buffering=0) as pipe:
        pipe.write(f"{seconds:.6f} {event} {site} {number}\n".encode())


with fedjob.init({"layer": np.full(int(sys.argv[1]), 0.5, np.float32)}):
    initialised, site = time.monotonic(), fedjob.get_site_name()
    mark(started, "started", site, 0)
    mark(imported, "imported", site, 0)
    mark(initialised, "initialised", site, 0)
    while fedjob.is_running():
        model = fedjob.receive()
        mark(time.monotonic(), "received", site, model.current_round)
        fedjob.send(fedjob.FLModel(params=model.params, meta={"num_examples": 1}))
        mark(time.monotonic(), "sent", site, model.current_round)
