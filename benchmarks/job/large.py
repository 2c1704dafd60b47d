"""Client of a large model: adds a random number to what it received and sends that. large.py TENSORS VALUES numpy|torch

Where the benchmark says so (BENCH_STEPS), it waits before each transfer. The first site alone offers a model.
"""

import itertools
import os
import random
import sys

from telling import anonymous_bytes, mark, wait_for_go

import fedjob

tensors, values, library = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stepwise, offers = "BENCH_STEPS" in os.environ, "BENCH_OFFER" in os.environ
if library == "torch":
    import torch
else:
    import numpy as np


def initial():
    """Random numbers: nothing on the way can be saved by equal bytes."""
    if library == "torch":
        return {f"layer{i}": torch.rand(values) for i in range(tensors)}
    source = np.random.default_rng(1)
    return {f"layer{i}": source.random(values, np.float32) for i in range(tensors)}


with fedjob.init(initial() if offers else None):
    site = fedjob.get_site_name()
    for number in itertools.count():
        if not fedjob.is_running():
            break
        mark("ready", site, number)
        if stepwise:
            wait_for_go()
        mark("receiving", site, number, anonymous_bytes())
        model = fedjob.receive()
        mark("received", site, number, anonymous_bytes())
        change = random.random()
        for tensor in model.params.values():
            tensor += change
        if stepwise:
            wait_for_go()
        mark("sending", site, number)
        receipt = fedjob.send(fedjob.FLModel(params=model.params, meta={"num_examples": 1}))
        mark("sent", site, number, anonymous_bytes())
        if not receipt:
            raise SystemExit(f"the update was not accepted: {receipt.reason}: {receipt.message}")
        del model, tensor
