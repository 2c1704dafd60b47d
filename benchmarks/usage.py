"""Anonymous memory and CPU time of every process of a job, sampled from /proc while it runs.

Anonymous memory (RssAnon) is what a process cannot give back; files that it has written or mapped are the kernel's to drop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from processes import MeasureError, descendants

_LOOK_SECONDS = 0.5  # how often new processes are looked for
_TICKS = os.sysconf("SC_CLK_TCK")
STARVED_BYTES = 1 << 30  # a machine with less to give is about to end processes that are not ours

# What a process is, from its command line and environment: "server", "client/site-1"; "" to leave it out.
Role = Callable[[str, dict[str, str]], str]


@dataclass(frozen=True)
class Sample:
    """One process at one moment of CLOCK_MONOTONIC. user, system: CPU seconds since its start."""

    seconds: float
    anonymous: int
    user: float
    system: float


@dataclass
class Usage:
    """Samples of each process, and what each process is. A role `client` takes in `client/site-1`, `client/site-2`."""

    role_of: Role
    roles: dict[int, str] = field(default_factory=dict)
    samples: dict[int, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    starved: bool = False

    def peak(self, role: str, begin: float = 0.0, end: float = float("inf")) -> int:
        """The most anonymous bytes that all processes of a role held at one moment."""
        at: dict[float, int] = defaultdict(int)
        for pid in self._of(role):
            for s in self.samples[pid]:
                if begin <= s.seconds <= end:
                    at[s.seconds] += s.anonymous
        return max(at.values(), default=0)

    def cpu(self, role: str, begin: float = 0.0, end: float = float("inf")) -> tuple[float, float]:
        """User and system CPU seconds of all processes of a role, between two moments."""
        user = system = 0.0
        for pid in self._of(role):
            inside = [s for s in self.samples[pid] if begin <= s.seconds <= end]
            if inside:
                # A process that began inside the interval began at zero.
                first = inside[0] if self.samples[pid][0].seconds < begin else Sample(begin, 0, 0.0, 0.0)
                user, system = user + inside[-1].user - first.user, system + inside[-1].system - first.system
        return user, system

    def summary(self, begin: float = 0.0, end: float = float("inf")) -> dict[str, dict[str, float]]:
        """For each role: processes, peak of anonymous MiB, CPU seconds. Rounded, for people and JSON."""
        found = {}
        for role in sorted({r.partition("/")[0] for r in self.roles.values() if r}):
            user, system = self.cpu(role, begin, end)
            found[role] = {
                "processes": len(self._of(role)),
                "peak_anonymous_mib": round(self.peak(role, begin, end) / (1 << 20), 1),
                "cpu_user_seconds": round(user, 2),
                "cpu_system_seconds": round(system, 2),
            }
        return found

    def _of(self, role: str) -> list[int]:
        return [pid for pid, its in self.roles.items() if role in (its, its.partition("/")[0])]

    def look(self) -> None:
        """Find processes that have begun, or have become another program since they were forked."""
        for pid in descendants():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                if command:
                    self.roles[pid] = self.role_of(command, dict(v.partition("=")[::2] for v in variables))

    def sample(self) -> None:
        """Sample all that run now."""
        now = time.monotonic()
        for pid, role in list(self.roles.items()):
            if role:
                with contextlib.suppress(OSError, IndexError):  # it has ended
                    self.samples[pid].append(_sample(pid, now))


@contextlib.contextmanager
def watched(role_of: Role, period: float = 0.05) -> Iterator[Usage]:
    """Sample the processes that are below this one, every `period` seconds.

    Before memory runs out they are killed, which the measure then reports.
    """
    usage, stop = Usage(role_of), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        watch = pool.submit(_watch, usage, stop, period)
        try:
            yield usage
        except MeasureError as e:
            if usage.starved:
                raise MeasureError(f"memory ran out and processes were ended: {usage.summary()}") from e
            raise
        finally:
            stop.set()
        watch.result()


def _watch(usage: Usage, stop: threading.Event, period: float) -> None:
    looked = 0.0
    while not stop.wait(period):
        if time.monotonic() - looked >= _LOOK_SECONDS:
            looked = time.monotonic()
            usage.look()
        usage.sample()
        if available_memory() < STARVED_BYTES and not usage.starved:
            usage.starved = True
            for pid in descendants():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def available_memory() -> int:
    """Bytes that processes can still have."""
    with Path("/proc/meminfo").open(encoding="utf-8") as f:
        for line in f:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    raise MeasureError("/proc/meminfo has no MemAvailable")


def _sample(pid: int, now: float) -> Sample:
    with Path(f"/proc/{pid}/status").open(encoding="utf-8") as f:
        anonymous = next((int(line.split()[1]) << 10 for line in f if line.startswith("RssAnon:")), None)
    if anonymous is None:
        raise ProcessLookupError(f"{pid} has ended and waits to be reaped")
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace", encoding="utf-8").rsplit(")", 1)[1].split()
    return Sample(now, anonymous, int(fields[11]) / _TICKS, int(fields[12]) / _TICKS)
