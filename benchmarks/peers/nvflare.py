"""NVFLARE as its proof-of-concept deployment: a server and clients that are provisioned, mTLS, its default driver."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from folders import emptied
from marks import VARIABLE, marks
from processes import contained, isolated, start

from peers import CLIENTS, ROUND_SECONDS, START_SECONDS, VALUES, PeerRun
from peers.environment import environment, versions

VERSION = "2.9.0"
PORTS = (8002, 8003)  # of a proof-of-concept server and its admin console; fixed by its provisioning
JOB = Path(__file__).parent / "nvflare_job"


def install() -> Path:
    return environment("nvflare", VERSION)


def empty_rounds(rounds: int) -> PeerRun:
    """Run one job of so many empty rounds. Raises MeasureError."""
    venv, work = install(), emptied("nvflare")
    job = shutil.copytree(JOB, work / "job")
    log = work / "submit.log"
    with contained(), marks(work) as seen:
        env = {
            # The deployment's start scripts call python3 by name.
            "PATH": f"{venv / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(work),
            "NVFLARE_POC_WORKSPACE": str(work / "poc"),
            "PYTHONPATH": "",
            VARIABLE: str(seen.path),
        }
        began = time.monotonic()
        sizes = map(str, (CLIENTS, rounds, VALUES))
        # Its server listens on all addresses; here there is only the loopback one.
        submit = isolated([venv / "bin/python", "submit.py", *sizes], PORTS)
        process = start(submit, log, cwd=job, env=env)
        seconds = START_SECONDS + rounds * ROUND_SECONDS
        seen.until(lambda all_: sum(m.event == "sent" for m in all_) == CLIENTS * rounds, process, log, seconds)
    return PeerRun(
        deployment="POC, mTLS, http driver (its default)",
        versions=versions(venv, "nvflare", "numpy"),
        round_seconds=seen.intervals(),
        first_model_seconds=seen.of("received")[0].seconds - began,
        first_model_includes="provisioning, start of server and clients, submission",
    )
