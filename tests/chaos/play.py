"""One plan, played: a real job, its faults at their moments, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos import processes
from chaos.faults import RUNNER, SERVER, Damage, Fault, Freeze, Plan, Shape, Vanish
from chaos.federation import Federation, federation
from chaos.strikes import NotStruck, Violation, strike
from chaos.verdict import Reference, Sample, reference, violations

_QUIET_SECONDS = 120.0  # an undisturbed job is over, and any fault is got over, within these
_SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Row:
    """A fault that was done, and how the job got over it. seconds: until the next round was complete."""

    plan: Plan
    fault: Fault
    recovered: str
    seconds: float


@dataclass
class Outcome:
    """What became of a plan. struck: the faults that were done; samples: what the server held."""

    plan: Plan
    struck: list[Row] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    story: str = ""


async def undisturbed(shape: Shape, folder: Path) -> Reference:
    """What a job of this shape ends with. Raises AssertionError if it does not end well."""
    samples: list[Sample] = []
    async with federation(folder, shape) as job, sampled(job, samples):
        job.start()
        await processes.until(lambda: job.exit_code is not None, _QUIET_SECONDS, "the undisturbed job ends")
        assert job.exit_code == 0, job.story()
        expected = reference(job, samples)
        wrong = violations(job, expected, samples)
        assert not wrong, f"undisturbed: {wrong}{job.story()}"
        return expected


async def play(plan: Plan, folder: Path, expected: Reference, tell: Callable[[Row], None]) -> Outcome:
    """Run the job and do to it what the plan says. tell: hears of each fault when the job has got over it."""
    outcome, began = Outcome(plan), time.monotonic()
    async with federation(folder, plan.shape) as job, sampled(job, outcome.samples):
        job.start()
        try:
            await _strike_all(job, plan, outcome, tell)
            await processes.until(lambda: job.exit_code is not None, _QUIET_SECONDS, "the job ends")
            outcome.violations += violations(job, expected, outcome.samples)
        except* (Violation, processes.TooLate) as group:
            outcome.violations += [str(e) for e in _leaves(group)]
        outcome.seconds = time.monotonic() - began
        outcome.story = job.story()
    return outcome


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [leaf for e in group.exceptions for leaf in (_leaves(e) if isinstance(e, BaseExceptionGroup) else [e])]


async def _strike_all(job: Federation, plan: Plan, outcome: Outcome, tell: Callable[[Row], None]) -> None:
    """Each fault at its moment, whether or not the job has got over the ones before it."""
    alone = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        for fault in plan.faults:
            await processes.until(
                lambda n=fault.trainings: job.trainings >= n or _is_over(job, alone),  # type: ignore[misc]
                _QUIET_SECONDS,
                f"training {fault.trainings} begins",
                pause=0.005,
            )
            await asyncio.sleep(fault.seconds)
            if _is_over(job, alone):
                return
            group.create_task(_one(job, plan, fault, alone, outcome, tell))


def _is_over(job: Federation, alone: asyncio.Lock) -> bool:
    """Whether the job has ended, and nobody is about to resume it."""
    return job.exit_code is not None and not alone.locked()


async def _one(
    job: Federation, plan: Plan, fault: Fault, alone: asyncio.Lock, outcome: Outcome, tell: Callable[[Row], None]
) -> None:
    long = isinstance(fault.action, Freeze | Vanish | Damage) or RUNNER in fault.action.targets
    async with alone if long else contextlib.nullcontext():
        if job.exit_code is not None and long:
            return
        before, length = job.pids(), len(job.history)
        made = {site: line.made for site, line in job.lines.items()}
        try:
            noticed = await strike(job, fault.action)
        except NotStruck:
            return
    began = time.monotonic()
    await processes.until(
        lambda: len(job.history) > length or _is_over(job, alone), _QUIET_SECONDS, f"the round after {fault.action}"
    )
    seconds = time.monotonic() - began
    after = job.pids()
    started = [n for n in (SERVER, *job.lines) if n in after and after[n] != before.get(n)]
    again = sum(line.made - made[site] for site, line in job.lines.items())
    parts = [noticed, f"{', '.join(started)} started again" if started else "", f"{again} connections" if again else ""]
    row = Row(plan, fault, "; ".join(p for p in parts if p) or "nothing to recover", seconds)
    outcome.struck.append(row)
    tell(row)


@contextlib.asynccontextmanager
async def sampled(job: Federation, samples: list[Sample]) -> AsyncIterator[None]:
    """Look at the server's files and memory a few times a second, in the block."""

    async def watch() -> None:
        pid = 0
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            used = processes.usage(pid) if pid else None
            if used is None:
                pid = job.pids(SERVER).get(SERVER, 0)
            else:
                samples.append(Sample(time.monotonic(), sum(line.made for line in job.lines.values()), used))

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
