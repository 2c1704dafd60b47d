"""Where the time of a large model's round goes: its phases, each process's CPU, and what the processors are busy with.

The phases are those of history.jsonl, the CPU seconds those of /proc. Where Linux's perf is installed, it samples all processes
while they are on a processor, in the kernel as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ours
from figure import Figure, Settings, size_text
from p2_round import CLIENTS, cpu_per_round, described
from processes import MeasureError, start, tail

PERF = shutil.which("perf")
_RATE = 499  # samples a second
_SHOWN = 16
_BEGIN_SECONDS, _END_SECONDS = 15.0, 60.0


def measure(settings: Settings) -> Figure:
    """Two jobs: one at full speed for the times, one under perf for the shares."""
    plain = ours.run(settings.folder / "profile", ours.large(settings.model, CLIENTS, settings.model_rounds))
    seconds = statistics.median(plain.marks.intervals())
    busy = sum(sum(each.values()) for each in cpu_per_round(plain).values())
    return Figure(
        title=f"profile of a round, {size_text(settings.model)} model, {CLIENTS} clients",
        value=round(seconds, 3),
        unit="s",
        goal="",
        met=True,
        detail={
            **described(plain),
            "cpu_seconds_of_all_per_round": round(busy, 2),
            "cores_busy": round(busy / seconds, 2),
            "site_seconds": _site_seconds(plain),
            "shares": _shares_or_why(settings),
        },
    )


def _site_seconds(run: ours.OurRun) -> dict[str, float]:
    """Median seconds that a site spends on each step of a round."""
    steps = {"receive": ("receiving", "received"), "train": ("received", "sending"), "send": ("sending", "sent")}
    found = {name: statistics.median(run.marks.between(*ends)) for name, ends in steps.items()}
    found["wait for the next round"] = statistics.median(run.marks.intervals()) - sum(found.values())
    return {name: round(seconds, 3) for name, seconds in found.items()}


def _shares_or_why(settings: Settings) -> dict[str, Any]:
    """The shares, or `missing`: why there are none. Not every machine has perf, or lets it look."""
    if PERF is None:
        return {"missing": "Linux's perf is not installed"}
    try:
        return _shares(settings, PERF)
    except MeasureError as e:
        return {"missing": str(e)}


def _shares(settings: Settings, perf: str) -> dict[str, Any]:
    """For the server and the clients: percent of its samples on a processor, by function and by library."""
    job = ours.large(settings.model, CLIENTS, settings.model_rounds)
    with ours.running(settings.folder / "profile-shares", job) as run:
        run.until("received", 0)  # the first round has starts and an offer in it
        run.usage.look()
        with _recorded(perf, run.log.parent, [pid for pid, role in run.usage.roles.items() if role]) as data:
            run.until("received", job.work.rounds - 1)
        ours.finished(run)
    lines = _output(perf, "script", "--input", str(data), "--fields", "pid,ip,sym,dso")
    return _summary(lines, {pid: role.partition("/")[0] for pid, role in run.usage.roles.items()})


@contextlib.contextmanager
def _recorded(perf: str, folder: Path, pids: list[int]) -> Iterator[Path]:
    """perf on these processes, stopped when the block is left. Raises MeasureError if it cannot attach."""
    data, log = folder / "perf.data", folder / "perf.log"
    control, ready = folder / "perf.control", folder / "perf.ready"
    os.mkfifo(control)
    os.mkfifo(ready)
    command: list[str | Path] = [perf, "record", "--event", "cpu-clock", "--freq", str(_RATE), "--output", data]
    waiting = ["--delay=-1", f"--control=fifo:{control},{ready}", "--pid", ",".join(map(str, pids))]
    recorder = start([*command, *waiting], log, cwd=folder, env={})
    with os.fdopen(os.open(control, os.O_RDWR), "wb", 0) as tell, os.fdopen(os.open(ready, os.O_RDWR), "rb", 0) as hear:
        tell.write(b"enable\n")
        if not select.select([hear], [], [], _BEGIN_SECONDS)[0]:
            raise MeasureError(f"perf does not begin:\n{tail(log)}")
        try:
            yield data
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait(_END_SECONDS)


def _output(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_END_SECONDS, check=False, encoding="utf-8")
    if done.returncode != 0:
        raise MeasureError(f"{' '.join(command[:2])} ended with exit code {done.returncode}: {done.stderr[-500:]}")
    return done.stdout.splitlines()


def _summary(lines: list[str], roles: dict[int, str]) -> dict[str, Any]:
    """What `perf script` lists, counted: `PID ADDRESS FUNCTION (LIBRARY)` a line."""
    functions: dict[str, Counter[str]] = defaultdict(Counter)
    libraries: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        if found := re.fullmatch(r"\s*(\d+)\s+[0-9a-f]+ (.+) \((.+)\)", line):
            role, library = roles.get(int(found[1]), ""), _library(found[3])
            functions[role][f"{found[2]} ({library})"] += 1
            libraries[role][library] += 1
    return {
        role: {
            "samples": libraries[role].total(),
            "libraries": _percent(libraries[role]),
            "functions": _percent(functions[role]),
        }
        for role in ("server", "client")
        if role in libraries
    }


def _library(place: str) -> str:
    """A file's name without its version; the kernel's under one name."""
    return "kernel" if place.startswith("[") else Path(place).name.partition(".")[0]


def _percent(counts: Counter[str]) -> dict[str, float]:
    return {name: round(100 * n / counts.total(), 1) for name, n in counts.most_common(_SHOWN)}
