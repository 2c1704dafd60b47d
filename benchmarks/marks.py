"""Moments that measured scripts report, through a named pipe that this process reads.

A script writes `<seconds> <event> <site> <round>` in one write, which a pipe keeps whole (below PIPE_BUF bytes). The
seconds are CLOCK_MONOTONIC, one clock for all processes of the machine, read by the script and not on arrival.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from processes import MeasureError, tail

VARIABLE = "BENCH_MARKS"  # names the pipe to the scripts


@dataclass(frozen=True)
class Mark:
    """One moment: seconds of CLOCK_MONOTONIC, what happened, where, in which round (counted as the peer counts)."""

    seconds: float
    event: str
    site: str
    round: int


@dataclass
class Marks:
    """What the scripts of one run have reported so far."""

    path: Path
    fd: int
    seen: list[Mark] = field(default_factory=list)
    rest: bytes = b""

    def until(
        self, done: Callable[[list[Mark]], bool], process: subprocess.Popen[bytes], log: Path, seconds: float
    ) -> None:
        """Read until `done`. Raises MeasureError if `process` ends before, or past `seconds`."""
        end = time.monotonic() + seconds
        pidfd = os.pidfd_open(process.pid)
        try:
            while not done(self.seen):
                ready, _, _ = select.select([self.fd, pidfd], [], [], max(0.0, end - time.monotonic()))
                if self.fd in ready:
                    self._take(os.read(self.fd, 1 << 16))
                elif pidfd in ready:
                    raise MeasureError(f"the job ended after {len(self.seen)} marks:\n{tail(log)}")
                elif not ready:
                    raise MeasureError(f"not done within {seconds:.0f} s, {len(self.seen)} marks seen:\n{tail(log)}")
        finally:
            os.close(pidfd)

    def of(self, event: str) -> list[Mark]:
        """The marks of one event, in the order of time."""
        return sorted((m for m in self.seen if m.event == event), key=lambda m: m.seconds)

    def intervals(self, event: str = "received") -> list[float]:
        """Seconds between an event of one round and of the next at the same site, all sites together."""
        at = {(m.site, m.round): m.seconds for m in reversed(self.of(event))}
        return [at[site, t + 1] - seconds for (site, t), seconds in sorted(at.items()) if (site, t + 1) in at]

    def _take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            seconds, event, site, number = line.decode().split()
            self.seen.append(Mark(float(seconds), event, site, int(number)))


@contextlib.contextmanager
def marks(folder: Path) -> Iterator[Marks]:
    """A new pipe in `folder`."""
    path = folder / "marks"
    os.mkfifo(path)
    # Open for both, so that reading never meets the end of the file while no script has it open.
    fd = os.open(path, os.O_RDWR)
    try:
        yield Marks(path, fd)
    finally:
        os.close(fd)
