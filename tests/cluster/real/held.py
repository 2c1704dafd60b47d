"""A job that stays in a round until the test lets it go on, so that it cannot be over before the test has looked at it."""

from __future__ import annotations

from typing import Any

from fedjob_operator import names
from fedjob_operator.names import CLIENT

from .federation import HOSPITALS, TEAM, Submitted

_GO = "/tmp/go"

# The first hospital holds round AT. A script of its own may hold in the same way.
HOLD = f"""
import time
from pathlib import Path

def hold():
    while not Path("{_GO}").exists():
        time.sleep(0.05)
"""
_SCRIPT = f"""
import numpy as np
import fedjob
{HOLD}
fedjob.init({{"w": np.zeros(1000, np.float32)}})
while fedjob.is_running():
    model = fedjob.receive()
    if model.current_round == AT and fedjob.get_site_name() == "{HOSPITALS[0]}":
        hold()
    fedjob.send(fedjob.FLModel(params={{"w": model.params["w"] + 1}}, metrics={{"score": 0.5}}))
"""


def held(name: str, rounds: int, at: int) -> dict[str, Any]:
    """A job of the hospitals that completes `at` rounds, and the others once it is released."""
    trainer = {"files": {"train.py": f"AT = {at}\n{_SCRIPT}"}}
    spec = {"workflow": {"rounds": rounds}, "trainer": trainer, "sites": [{"name": name} for name in HOSPITALS]}
    return {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": {"name": name}, "spec": spec}


def release(job: Submitted) -> None:
    """Let the first hospital end its round. Its pod must be the one that holds: a file of a pod goes with it."""
    [pod] = job.pods(CLIENT, HOSPITALS[0])
    job.cluster.plane.kubectl("exec", "--namespace", TEAM, pod["metadata"]["name"], "--", "touch", _GO)
