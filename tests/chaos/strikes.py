"""Faults, done to a job that runs. Each returns what was noticed, for the table, or raises Violation."""

from __future__ import annotations

import asyncio
import signal
import time

from chaos import processes
from chaos.damage import MUST_RECOVER, Damaged, damage
from chaos.faults import (
    NOTICE_SECONDS,
    RUNNER,
    SERVER,
    Action,
    Cut,
    Damage,
    Delay,
    Flip,
    Freeze,
    HalfClose,
    Intrude,
    Kill,
    Lose,
    Stall,
    Throttle,
    Vanish,
)
from chaos.federation import Federation
from chaos.intruder import intrude
from fedjob import identity
from fedjob.errors import FedJobError

_ERROR_SECONDS = 60.0  # within these a run that cannot go on has said so


class Violation(AssertionError):  # noqa: N818 - a verdict, not a fault
    """Something that must never be."""


class NotStruck(Exception):  # noqa: N818
    """The moment has passed: the job is over, or no byte came by."""


async def strike(job: Federation, action: Action) -> str:
    """Do it. Raises NotStruck if there was nothing to do it to, Violation."""
    match action:
        case Kill():
            return await _kill(job, action)
        case Freeze():
            return await _freeze(job, action)
        case Cut() | Flip() | Lose():
            return await _arm(job, action)
        case HalfClose(targets=(site,), direction=direction):
            job.lines[site].half_close(direction)
            return ""
        case Delay() | Throttle():
            return await _hinder(job, action)
        case Stall(targets=(site,), seconds=seconds):
            return await _stall(job, site, seconds)
        case Vanish(targets=(site,)):
            return await _vanish(job, site)
        case Intrude(targets=(site,), what=what):
            return await _intrude(job, site, what)
        case Damage():
            return await _damage(job, action)
    raise TypeError(f"no way to do {action!r}")


async def _kill(job: Federation, kill: Kill) -> str:
    if RUNNER in kill.targets:
        await _kill_runner(job)
        job.start("--resume")
        return "resumed"
    pids = await job.all_of(*kill.targets)
    processes.send(pids.values(), signal.SIGKILL)
    return ""


async def _kill_runner(job: Federation) -> None:
    if job.exit_code is not None:
        raise NotStruck
    await job.kill_runner()


async def _freeze(job: Federation, freeze: Freeze) -> str:
    pids = await job.all_of(*freeze.targets)
    processes.send(pids.values(), signal.SIGSTOP)
    await asyncio.sleep(freeze.seconds)
    processes.send(set(pids.values()) & set(job.pids().values()), signal.SIGCONT)
    return ""


async def _arm(job: Federation, fault: Cut | Flip | Lose) -> str:
    armed = job.lines[fault.targets[0]].arm(fault)
    while not armed.struck.is_set():
        if job.exit_code is not None:
            raise NotStruck
        await asyncio.wait([asyncio.ensure_future(armed.struck.wait())], timeout=0.5)
    return ""


async def _hinder(job: Federation, fault: Delay | Throttle) -> str:
    line = job.lines[fault.targets[0]]
    if isinstance(fault, Delay):
        line.latency = fault.latency
    else:
        line.rate = fault.rate
    await asyncio.sleep(fault.seconds)
    line.latency, line.rate = 0.0, float("inf")
    return ""


async def _stall(job: Federation, site: str, seconds: float) -> str:
    job.lines[site].stop()
    await asyncio.sleep(seconds)
    job.lines[site].go_on()
    return ""


async def _vanish(job: Federation, site: str) -> str:
    """The site's machine is gone, as far as the server can tell: it must notice, and the site must come back."""
    server, before = job.pids(SERVER), job.log(SERVER)
    ours = before[before.rfind("listens on port") :]  # what this process of the server has said
    here = ours.rfind(f"site {site} attends") > ours.rfind(f"site {site} lost")
    line, began = job.lines[site], time.monotonic()
    line.stop()

    def noticed() -> str:
        if f"site {site} lost" in job.log(SERVER)[len(before) :]:
            return f"noticed after {time.monotonic() - began:.1f} s"
        if not here or job.exit_code is not None or job.pids(SERVER) != server:
            return "not connected then"
        return ""

    try:
        return await processes.until(noticed, NOTICE_SECONDS, f"the server notices that {site} has vanished", pause=0.1)
    except processes.TooLate as e:
        raise Violation(str(e)) from None
    finally:
        line.cut("RST")
        line.go_on()


async def _intrude(job: Federation, site: str, what: str) -> str:
    """Refused in any case; a server that dies meanwhile refuses as well, so only its silence is wrong."""
    try:
        credentials = identity.read(job.keys / site)
        return await asyncio.to_thread(intrude, what, job.server_address(), credentials)
    except (OSError, FedJobError) as e:
        return f"no server then: {type(e).__name__}"
    except AssertionError as e:
        raise Violation(str(e)) from None


async def _damage(job: Federation, fault: Damage) -> str:
    """After the damage the run goes on by itself, or says once and clearly that it cannot, and goes on when it is undone."""
    await _kill_runner(job)
    done = await asyncio.to_thread(damage, job.run, fault)
    job.start("--resume")
    if done is None:
        return "resumed; there was no file"
    where = str(done.path.relative_to(job.run))
    if done.what in MUST_RECOVER:
        return f"resumed without {where}"
    length = len(job.history)
    await processes.until(
        lambda: job.exit_code is not None or len(job.history) > length, _ERROR_SECONDS, f"an end without {where}"
    )
    if job.exit_code in (None, 0):
        return f"resumed in spite of {where}"
    _check_said(job, done)
    done.undo()
    job.start("--resume")
    return f"StateDamaged: {where}; undone and resumed"


def _check_said(job: Federation, done: Damaged) -> None:
    said = job.output.splitlines()[-20:]
    if not any("StateDamaged: " in line and str(done.path.parent) in line for line in said):
        raise Violation(f"{done.path.name} was damaged, and the run ended without saying so: {said[-3:]}")
    if any("Traceback" in line for line in said):
        raise Violation(f"{done.path.name} was damaged, and the run ended with a traceback")
