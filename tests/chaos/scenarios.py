"""Faults that need a stage of their own: a disk that is full or slow, a site that stays silent past the deadline.

Each is played in a folder, returns what was seen, and raises Violation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from chaos import processes
from chaos.clocks import Clocks
from chaos.disk import Disk, disk, own_mounts
from chaos.faults import SERVER, SITES, Shape
from chaos.federation import Federation, federation
from chaos.play import sampled, undisturbed
from chaos.strikes import Violation
from chaos.verdict import Sample, violations

# An answer has 6 MB, a state 8 MB; a round needs three states, three answers and the task: they hardly fit.
_SHAPE = Shape("stage", 1_000_000, 8)
_DISK_MEBIBYTES = 64
_END_SECONDS = 120.0
_FULL_SECONDS = 2.5
_SLOW_FOR, _QUICK_FOR = 0.25, 0.05
_DEADLINE_SECONDS = 4
_LATENCY_SECONDS = 0.6


async def full_disk(folder: Path) -> str:
    """No space for the server's state, at several moments: the status says so, and the job goes on when there is space."""
    said: set[str] = set()

    async def disturb(job: Federation, space: Disk) -> None:
        await _fill_and_free(job, space, said)

    async with _on_a_disk(folder, "state") as stage:
        await stage(disturb)
    if "DiskFull" not in said:
        raise Violation(f"a full disk is not told in status.json; conditions told: {sorted(said)}")
    return "twice full, and told"


async def full_run_folder(folder: Path) -> str:
    """No space for anything of the run, also logs and status: nobody can be told, and the job goes on all the same."""

    async def disturb(job: Federation, space: Disk) -> None:
        await _fill_and_free(job, space, set())

    async with _on_a_disk(folder, "runs") as stage:
        await stage(disturb)
    return "twice full"


async def slow_disk(folder: Path) -> str:
    """A disk on which nothing is written five times out of six: the job takes longer, and is the same."""
    frozen = 0

    async def disturb(job: Federation, space: Disk) -> None:
        nonlocal frozen
        while job.exit_code is None:
            space.freeze()
            try:
                await asyncio.sleep(_SLOW_FOR)
            finally:
                space.thaw()
            frozen += 1
            await asyncio.sleep(_QUICK_FOR)

    async with _on_a_disk(folder, "runs") as stage:
        await stage(disturb)
    return f"frozen {frozen} times for {_SLOW_FOR} s"


async def silence(folder: Path) -> str:
    """A site that says nothing for a whole round is left out at the deadline, and back in the next."""
    spec: dict[str, Any] = {"workflow": {"rounds": 4, "quorum": 2, "roundTimeoutSeconds": _DEADLINE_SECONDS}}
    shape = Shape("silence", 20_000, 4)
    async with federation(folder / "skips", shape, {"SKIPS": "c:2"}, **spec) as job:
        job.start()
        await _end(job)
        expected = [r.model_digest for r in job.history]
    async with federation(folder / "silent", shape, **spec) as job:
        job.start()
        await processes.until(lambda: len(job.history) >= 2, _END_SECONDS, "two rounds", pause=0.001)
        job.lines["c"].stop()
        await processes.until(lambda: len(job.history) >= 3, 3 * _DEADLINE_SECONDS, "the round closes at its deadline")
        job.lines["c"].go_on()
        await _end(job)
        history = job.history
    without = [sorted(set(SITES) - set(r.contributors)) for r in history]
    if without != [[], [], ["c"], []] or [r.model_digest for r in history] != expected:
        raise Violation(f"left out: {without}{job.story()}")
    return f"left out once: {history[2].missing[0].reason}"


async def long_distance(folder: Path) -> str:
    """Every byte takes 0.6 s each way, from the first connection on: slow, and nothing else."""
    shape = Shape("distance", 20_000, 3)
    expected = await undisturbed(shape, folder / "undisturbed")
    samples: list[Sample] = []
    async with federation(folder / "far", shape) as job, sampled(job, samples):
        for line in job.lines.values():
            line.latency = _LATENCY_SECONDS
        job.start()
        await _end(job)
        made = max(line.made for line in job.lines.values())
        if wrong := violations(job, expected, samples):
            raise Violation(f"{'; '.join(wrong)}{job.story()}")
    return f"{made} connections of a site at most"


async def wrong_clock(folder: Path) -> str:
    """Clocks jump by an hour: what runs is not disturbed; who connects anew is told about the clock, until it is right."""
    shape = Shape("clock", 20_000, 12)
    expected = await undisturbed(shape, folder / "undisturbed")
    clocks = Clocks(folder / "clocks")
    everybody = (SERVER, *SITES)
    samples: list[Sample] = []
    async with (
        federation(folder / "job", shape, clocks.environment(SERVER), clocks.environment) as job,
        sampled(job, samples),
    ):
        job.start()
        for begun, seconds in ((4, 3600), (8, -3600), (12, 0)):
            await processes.until(lambda n=begun: job.trainings >= n, _END_SECONDS, f"training {begun}", pause=0.005)  # type: ignore[misc]
            clocks.set(seconds, *everybody)
        await processes.until(lambda: job.trainings >= 16, _END_SECONDS, "training 16", pause=0.005)
        if " lost" in job.log(SERVER):
            raise Violation(f"a site was lost when clocks jumped{job.story()}")
        for wrong, words in (("b", "not yet valid"), (SERVER, "not valid yet")):
            clocks.set(-3600, wrong)
            job.lines["b"].cut("RST")
            await processes.until(lambda w=wrong, t=words: t in job.log(w), _END_SECONDS, f"{wrong} tells: {words}")  # type: ignore[misc]
            clocks.set(0, wrong)
            length = len(job.history)
            await processes.until(lambda n=length: len(job.history) > n, _END_SECONDS, "a round, as the clock is right")  # type: ignore[misc]
        await _end(job)
        if found := violations(job, expected, samples):
            raise Violation(f"{'; '.join(found)}{job.story()}")
    return "nobody was lost, and both sides named the clock"


SCENARIOS: dict[str, Callable[[Path], Coroutine[Any, Any, str]]] = {
    "full-disk": full_disk,
    "full-run-folder": full_run_folder,
    "slow-disk": slow_disk,
    "silence": silence,
    "long-distance": long_distance,
    "wrong-clock": wrong_clock,
}

Disturb = Callable[[Federation, Disk], Coroutine[Any, Any, None]]
Stage = Callable[[Disturb], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def _on_a_disk(folder: Path, where: str) -> AsyncIterator[Stage]:
    """A job whose runs, or whose state alone, are on a disk of their own; it is disturbed as told, and judged."""
    own_mounts()
    expected = await undisturbed(_SHAPE, folder / "undisturbed")
    samples: list[Sample] = []

    async def stage(disturb: Disturb) -> None:
        await disturb(job, space)
        await _end(job)
        if wrong := violations(job, expected, samples):
            raise Violation(f"{'; '.join(wrong)}{job.story()}")

    async with federation(folder / "job", _SHAPE) as job, sampled(job, samples):
        if where == "state":  # the runner makes this folder, so the disk comes in between
            job.start()
            await processes.until(lambda: job.history, _END_SECONDS, "the first round", pause=0.005)
            await job.kill_runner()
            job.state.rename(job.run / "moved")
        place = job.state if where == "state" else job.folder / "runs"
        with disk(place, job.folder / "disk", _DISK_MEBIBYTES) as space:
            if where == "state":
                shutil.copytree(job.run / "moved", job.state, dirs_exist_ok=True)
                shutil.rmtree(job.run / "moved")
            job.start(*(["--resume"] if where == "state" else []))
            yield stage


async def _fill_and_free(job: Federation, space: Disk, said: set[str]) -> None:
    for begun in (6, 14):
        await processes.until(lambda n=begun: job.trainings >= n, _END_SECONDS, f"training {begun}", pause=0.005)  # type: ignore[misc]
        async with _full(space):
            await asyncio.sleep(_FULL_SECONDS)
            said |= _conditions(job)
        length = len(job.history)
        await processes.until(lambda n=length: len(job.history) > n, _END_SECONDS, "a round, as there is space")  # type: ignore[misc]


@contextlib.asynccontextmanager
async def _full(space: Disk) -> AsyncIterator[None]:
    """In the block, what others give back is taken at once."""

    async def keep() -> None:
        while True:
            space.fill()
            await asyncio.sleep(0.02)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        space.clear()


def _conditions(job: Federation) -> set[str]:
    """What is the matter, as the status tells."""
    path = job.run / "status.json"
    status = json.loads(path.read_text()) if path.exists() else {}
    return {c["type"] for c in status.get("conditions", ())}


async def _end(job: Federation) -> None:
    try:
        await processes.until(lambda: job.exit_code is not None, _END_SECONDS, "the job ends")
    except processes.TooLate as e:
        raise Violation(f"{e}{job.story()}") from None
