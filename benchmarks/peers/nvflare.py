"""NVFLARE as its proof-of-concept deployment: a server and clients that are provisioned, mTLS, its default driver."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from folders import emptied, lightened
from marks import VARIABLE, marks
from processes import contained, isolated, start
from usage import watched

from peers import PeerRun, Work
from peers.environment import environment, versions

VERSION = "2.9.0"
PORTS = (8002, 8003)  # of a proof-of-concept server and its admin console; fixed by its provisioning
# A deployment's processes: each site has a parent, and a process for the job.
_ROLES = {
    "server_train": "server parent",
    "runner_process": "server job",
    "client_train": "client parent",
    "worker_process": "client job",
}
JOB = Path(__file__).parent / "nvflare_job"


def install() -> Path:
    return environment("nvflare", VERSION)


def run(folder: Path, work: Work) -> PeerRun:
    """Run one job. Raises MeasureError."""
    venv = install()
    job = shutil.copytree(JOB, emptied(folder) / "job")
    log = folder / "submit.log"
    with contained(), marks(folder) as seen, watched(_role) as usage:
        env = {
            # The deployment's start scripts call python3 by name.
            "PATH": f"{venv / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "NVFLARE_POC_WORKSPACE": str(folder / "poc"),
            "PYTHONPATH": str(job),  # of the model's class
            VARIABLE: str(seen.path),
        }
        began = time.monotonic()
        sizes = map(str, (work.clients, work.rounds, work.tensors, work.values))
        # Its server listens on all addresses; here there is only the loopback one.
        submit = isolated([venv / "bin/python", "submit.py", *sizes], PORTS)
        process = start(submit, log, cwd=job, env=env)
        seen.until(lambda m: m.counts["sent", work.rounds - 1] == work.clients, process, log, work.seconds)
    lightened(folder)
    return PeerRun(
        deployment="POC, mTLS, http driver (its default)",
        versions=versions(venv, "nvflare", "numpy", "torch"),
        round_seconds=seen.intervals(),
        first_model_seconds=seen.of("received")[0].seconds - began,
        first_model_includes="provisioning, start of server and clients, submission",
        usage=usage.summary(),
    )


def _role(command: str, _: dict[str, str]) -> str:
    for part, role in _ROLES.items():
        if part in command:
            return role
    return ""
