"""Moments that measured scripts report, through a named pipe that this process reads.

A script writes `<seconds> <event> <site> <round> <value>` in one write, which a pipe keeps whole (below PIPE_BUF bytes). The
seconds are CLOCK_MONOTONIC, one clock for all processes of the machine, read by the script and not on arrival.
A second pipe goes the other way: a script that is to wait reads one byte from it.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from processes import MeasureError, tail

VARIABLE = "BENCH_MARKS"  # names the pipe to the scripts
GO_VARIABLE = "BENCH_GO"  # names the pipe from which a script reads that it may go on


@dataclass(frozen=True)
class Mark:
    """One moment: seconds of CLOCK_MONOTONIC, what happened, where, in which round (counted as the peer counts).

    value: what the script adds, in the event's own unit.
    """

    seconds: float
    event: str
    site: str
    round: int
    value: float = 0.0


@dataclass
class Marks:
    """What the scripts of one run have reported so far. go: the pipe of permissions."""

    path: Path
    fd: int
    go: Path
    go_fd: int
    seen: list[Mark] = field(default_factory=list)
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)  # of each event and round
    rest: bytes = b""

    def until(self, done: Callable[[Marks], bool], process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
        """Read until `done`. Raises MeasureError if `process` ends before, or past `seconds`."""
        end = time.monotonic() + seconds
        pidfd = os.pidfd_open(process.pid)
        try:
            while not done(self):
                ready, _, _ = select.select([self.fd, pidfd], [], [], max(0.0, end - time.monotonic()))
                if self.fd in ready:
                    self._take(os.read(self.fd, 1 << 16))
                elif pidfd in ready:
                    raise MeasureError(f"the job ended after {len(self.seen)} marks:\n{tail(log)}")
                elif not ready:
                    raise MeasureError(f"not done within {seconds:.0f} s, {len(self.seen)} marks seen:\n{tail(log)}")
        finally:
            os.close(pidfd)

    def let_go(self) -> None:
        """Let the script that waits go on."""
        os.write(self.go_fd, b".")

    def of(self, event: str) -> list[Mark]:
        """The marks of one event, in the order of time."""
        return sorted((m for m in self.seen if m.event == event), key=lambda m: m.seconds)

    def at(self, event: str) -> dict[tuple[str, int], Mark]:
        """The first mark of an event for each site and round."""
        return {(m.site, m.round): m for m in reversed(self.of(event))}

    def intervals(self, event: str = "received") -> list[float]:
        """Seconds between an event of one round and of the next at the same site, all sites together."""
        at = self.at(event)
        return [at[site, t + 1].seconds - m.seconds for (site, t), m in sorted(at.items()) if (site, t + 1) in at]

    def between(self, begin: str, end: str) -> list[float]:
        """Seconds from one event to another of the same site and round."""
        ends = self.at(end)
        return [ends[key].seconds - m.seconds for key, m in sorted(self.at(begin).items()) if key in ends]

    def _take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            seconds, event, site, number, *value = line.decode().split()
            self.seen.append(Mark(float(seconds), event, site, int(number), float(value[0]) if value else 0.0))
            self.counts[event, int(number)] += 1


@contextlib.contextmanager
def marks(folder: Path) -> Iterator[Marks]:
    """New pipes in `folder`."""
    with contextlib.ExitStack() as stack:
        fds = []
        for path in (folder / "marks", folder / "go"):
            os.mkfifo(path)
            # Open for both, so that reading never meets the end of the file while no script has it open.
            fds.append(os.open(path, os.O_RDWR))
            stack.callback(os.close, fds[-1])
        yield Marks(folder / "marks", fds[0], folder / "go", fds[1])
