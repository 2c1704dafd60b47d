"""fedjob through its public command: `fedjob run job.json`, as a data scientist would start it."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figure import GIB, Settings
from folders import emptied, lightened
from marks import GO_VARIABLE, VARIABLE, Marks, marks
from peers import ROUND_SECONDS, START_SECONDS, Work
from processes import MeasureError, contained, start, succeed, tail
from usage import Usage, available_memory, watched

COMMAND = Path(sys.executable).with_name("fedjob")
SCRIPTS = Path(__file__).parent / "job"
NAME = "benchmark"
_SECONDS_PER_GIB = 60.0  # of a round, at most
_OVERHEAD_BYTES = 150 << 20  # of a client, beside its model


@dataclass(frozen=True)
class Job:
    """What is run. script: of benchmarks/job, with its arguments. variables: of the script's environment."""

    work: Work
    script: str
    arguments: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    sample_seconds: float = 0.05


@dataclass(frozen=True)
class Running:
    """A job that runs. `began`: the exec of the command, on the clock of the marks."""

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    began: float
    marks: Marks
    usage: Usage

    def until(self, event: str, number: int, absent: int = 0) -> None:
        """Wait until all sites, but so many, have reported an event of a round.

        Raises MeasureError if the job ends first or is late.
        """
        sites = self.job.work.clients - absent
        self.marks.until(lambda m: m.counts[event, number] >= sites, self.process, self.log, self.job.work.seconds)

    def let_pass(self, seconds: float) -> None:
        """Let the job be for so long. Raises MeasureError if it ends meanwhile."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise MeasureError(f"the job ended with exit code {self.process.wait(seconds)}:\n{tail(self.log)}")


@dataclass(frozen=True)
class OurRun:
    """A job that is over. history: the lines of history.jsonl."""

    work: Work
    began: float
    marks: Marks
    usage: Usage
    history: list[dict[str, Any]]

    def since_began(self, event: str) -> float:
        """Seconds from the exec of the command to the first mark of this event."""
        return self.marks.of(event)[0].seconds - self.began

    @property
    def train(self) -> list[dict[str, Any]]:
        """The rounds of training in the history."""
        return [line for line in self.history if line["kind"] == "Train"]


def empty(rounds: int, clients: int = 2, hold: int = -1) -> Job:
    """A model of 10 KiB, no training."""
    work = Work(clients=clients, rounds=rounds, seconds=START_SECONDS + rounds * ROUND_SECONDS)
    period = 0.05 if clients < 10 else 0.5  # sampling must not be what is measured
    return Job(work, "empty.py", (str(work.values), str(hold)), sample_seconds=period)


def large(size: int, clients: int, rounds: int, *, library: str = "numpy", tensors: int = 64) -> Job:
    """A model of `size` bytes, each client gives back what it received and a number of its own."""
    seconds = START_SECONDS + rounds * (ROUND_SECONDS + size / GIB * clients * _SECONDS_PER_GIB)
    work = Work(clients, rounds, tensors, size // 4 // tensors, seconds)
    return Job(work, "large.py", (str(work.tensors), str(work.values), library))


@contextlib.contextmanager
def running(folder: Path, job: Job) -> Iterator[Running]:
    """Start a job in this folder; every process of it is gone when the block is left. Raises MeasureError."""
    work = shutil.copytree(SCRIPTS, emptied(folder), dirs_exist_ok=True)
    log, file = work / "run.log", work / "job.json"
    with contained(), marks(work) as seen, watched(_role, job.sample_seconds) as usage:
        variables = {VARIABLE: str(seen.path), GO_VARIABLE: str(seen.go), **job.variables}
        file.write_text(json.dumps(_manifest(job, variables), indent=1), encoding="utf-8")
        began = time.monotonic()
        process = start([COMMAND, "run", file, "--runs", work / "runs"], log, cwd=work, env={})
        yield Running(job, process, log, began, seen, usage)


def finished(job: Running) -> OurRun:
    """Wait for the end of a job, inside its `running`. Raises MeasureError if it fails."""
    succeed(job.process, job.log, START_SECONDS)
    history = (job.log.parent / "runs" / f"{NAME}-01" / "history.jsonl").read_text(encoding="utf-8")
    lightened(job.log.parent)
    return OurRun(job.job.work, job.began, job.marks, job.usage, [json.loads(line) for line in history.splitlines()])


def run(folder: Path, job: Job) -> OurRun:
    """Run a job to its end. Raises MeasureError."""
    with running(folder, job) as started:
        started.until("sent", job.work.rounds - 1)
        return finished(started)


@functools.cache
def large_run(settings: Settings, size: int, clients: int) -> OurRun:
    """A job of a large model, run once whichever and however many measures ask for it. Raises MeasureError."""
    if why := lacking(settings.folder, size, clients):
        raise MeasureError(why)
    return run(settings.folder / f"large-{size >> 20}-mib-{clients}", large(size, clients, settings.grid_rounds))


def lacking(folder: Path, size: int, clients: int) -> str:
    """What this machine has too little of for a job of this size, now; "" if it will do."""
    folder.mkdir(parents=True, exist_ok=True)
    # Each client holds one model; the server keeps every update, the round's model, and the next while it is written.
    needs = {
        "memory": (clients * (int(1.05 * size) + _OVERHEAD_BYTES) + 2 * GIB, available_memory()),
        "disk": ((clients + 3) * size + GIB, shutil.disk_usage(folder).free),
    }
    return "; ".join(
        f"needs {need / GIB:.1f} GiB of {what}, {free / GIB:.1f} GiB are free"
        for what, (need, free) in needs.items()
        if need > free
    )


def _role(command: str, variables: dict[str, str]) -> str:
    if "/fedjob/warden.py" in command:
        return ""  # it has the script's environment
    if site := Path(variables.get("FEDJOB_CONFIG", "")).stem:
        return f"client/{site}"
    if "fedjob.server" in command:
        return "server"
    return "runner" if f"{COMMAND} run" in command else ""


def _manifest(job: Job, variables: dict[str, str]) -> dict[str, Any]:
    env = [{"name": name, "value": value} for name, value in variables.items()]
    sites: list[dict[str, Any]] = [{"name": f"site-{i + 1:02d}"} for i in range(job.work.clients)]
    sites[0]["env"] = [{"name": "BENCH_OFFER", "value": "1"}]
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": NAME},
        "spec": {
            "workflow": {"type": "FedAvg", "rounds": job.work.rounds},
            "trainer": {"command": ["python", job.script, *job.arguments], "env": env},
            "sites": sites,
        },
    }
