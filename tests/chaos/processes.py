"""Processes of a job under faults, as /proc shows them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
MARK = "CHAOS_OF_FEDJOB"  # in the environment of every process of a job


class TooLate(AssertionError):  # noqa: N818 - a verdict, not a fault
    """A condition that should have come by now has not."""


class CannotHere(Exception):  # noqa: N818 - a fact about this machine
    """Why something cannot be done on this machine."""


async def until(condition: Callable[[], T], seconds: float, what: str, pause: float = 0.02) -> T:
    """What `condition` returns, once that is true. Raises TooLate after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TooLate(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(pause)
    return value


def find(mark: str) -> dict[int, str]:
    """Live processes that carry the mark: pid -> "runner", "server", the site's name, or "other"."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            variables = dict(v.partition(b"=")[::2] for v in (path / "environ").read_bytes().split(b"\0"))
            if variables.get(MARK.encode()) == mark.encode():
                found[int(path.name)] = _role(variables, (path / "cmdline").read_bytes())
    return found


def _role(variables: dict[bytes, bytes], command: bytes) -> str:
    if b"/fedjob/warden.py" in command:
        return "other"  # it has the script's environment, and is not the script
    if config := variables.get(b"FEDJOB_CONFIG"):
        return Path(config.decode()).stem
    if b"fedjob.server" in command:
        return "server"
    return "runner" if b"fedjob.cli.main" in command else "other"


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal to each; one that has ended needs none."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True)
class Usage:
    """What a process holds. anonymous: bytes of memory that are not a file's."""

    pid: int
    files: int
    sockets: int
    anonymous: int


def usage(pid: int) -> Usage | None:
    """What the process holds now; None if it has ended."""
    files = sockets = 0
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                sockets, files = (sockets + 1, files) if "socket:" in str(path.readlink()) else (sockets, files + 1)
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = dict(line.partition(":")[::2] for line in status.splitlines())
    return Usage(pid, files, sockets, int(lines.get("RssAnon", "0 kB").split()[0]) * 1024)
