"""Processes of one folder: what each prints lies there, and whoever comes later finds them by pid and time of birth.

A pid alone may be another process by then, so a record is `pid birth name`, one a line, and only what matches in both is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .kube import until

STOP_SECONDS = 10.0

_OWNER, _STARTED = "owner", "processes"  # files of the folder: who started them, and what was started
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def birth(pid: int) -> str:
    """When a process was started, in clock ticks since the machine was; "" if it is gone or only waits to be reaped."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return ""
    # A killed process is a zombie already while further threads of it end, and can be reaped, and lets go of its ports, only then.
    return "" if state in "ZX" and threads <= 1 else rest[18]


@dataclass(frozen=True)
class Record:
    """A process as it was written down."""

    pid: int
    birth: str
    name: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return bool(self.birth) and birth(self.pid) == self.birth

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.alive():
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)


def _read(path: Path) -> list[Record]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    fields = [line.split(" ", 2) for line in lines]  # the last line may be half written
    return [Record(int(found[0]), found[1], found[2]) for found in fields if len(found) == 3]


def owner(folder: Path) -> Record | None:
    """Who started the processes of a folder and ends them; None if they were to outlive it."""
    found = _read(folder / _OWNER)
    return found[0] if found else None


def recorded(folder: Path) -> list[Record]:
    """The processes of a folder, oldest first."""
    return _read(folder / _STARTED)


def kill(folder: Path) -> None:
    """End all recorded processes of a folder, the youngest first, wait until they are gone, and forget them."""
    _kill(recorded(folder), str(folder))
    (folder / _STARTED).unlink(missing_ok=True)


def _kill(found: list[Record], whose: str) -> None:
    for record in reversed(found):
        record.kill()
    until(f"the processes of {whose} to end", lambda: not any(record.alive() for record in found), STOP_SECONDS)


@dataclass
class Processes:
    """Starts and ends processes of a folder. enter: what every command begins with, such as nsenter into a namespace.

    lasting: they outlive this process; otherwise the kernel ends them with it.
    """

    folder: Path
    enter: tuple[str, ...] = ()
    lasting: bool = False
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def claim(self) -> None:
        """Write down who we are, before the first process: from now on the folder is in use."""
        if not self.lasting:
            (self.folder / _OWNER).write_text(f"{os.getpid()} {birth(os.getpid())} owner\n")

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program, its output in `NAME.log` of the folder. environment: variables besides those of this process."""
        name = Path(command[0]).name
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if self.lasting else _die_with_parent,
                env={**os.environ, **(environment or {})},
            )
        self.started.append(process)
        with (self.folder / _STARTED).open("a") as records:
            records.write(f"{process.pid} {birth(process.pid)} {name}\n")
        return process

    def end(self, *names: str) -> None:
        """SIGKILL to the processes of these programs, whoever started them, and forget them; returns when they are gone."""
        found = recorded(self.folder)
        _kill([record for record in found if record.name in names], f"{', '.join(names)} in {self.folder}")
        kept = self.folder / f"{_STARTED}.new"
        kept.write_text("".join(f"{r.pid} {r.birth} {r.name}\n" for r in found if r.name not in names))
        kept.replace(self.folder / _STARTED)
        self.forget()

    def forget(self) -> None:
        """From now on `check` looks only at what still runs."""
        self.started = [process for process in self.started if process.poll() is None]

    def check(self) -> None:
        """Raises AssertionError with the last words of a process that has ended."""
        for process in self.started:
            if process.poll() is not None:
                assert isinstance(process.args, list)
                name = Path(process.args[len(self.enter)]).name
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                raise AssertionError(f"{name} ended with {process.returncode}: {log[-2000:]}")

    def stop(self) -> None:
        """End the processes politely, the last one first; kill what does not listen."""
        for process in reversed(self.started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            if process.poll() is None:
                process.kill()
                process.wait(STOP_SECONDS)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
