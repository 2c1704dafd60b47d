"""One replica of the operator: a process of its own, with the operator's own rights, which may be killed at any moment.

Replicas are forked from a server process that has imported the operator already, so that a test can afford hundreds of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["__main__", "fedjob_operator.__main__"])
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass
class Operator:
    """A replica. log: what it writes; metrics, reports: its ports."""

    process: BaseProcess
    log: Path
    metrics: int
    reports: int

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.is_alive()

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self.process.pid or 0)

    def kill(self) -> None:
        """At once, as a lost node would."""
        self.process.kill()
        self.process.join(10)

    def stop(self) -> int:
        """Politely; returns the exit code."""
        self.process.terminate()
        self.process.join(30)
        return -1 if self.process.exitcode is None else self.process.exitcode

    def scrape(self) -> str:
        """Its metrics, "" while it does not answer."""
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as a,
        ):
            return str(a.read().decode())
        return ""


def begin(arguments: list[str], kubeconfig: Path, log: Path, metrics: int, reports: int) -> Operator:
    """Start a replica with these arguments."""
    ports = ["--metrics-port", str(metrics), "--reports-port", str(reports)]
    log.touch()
    whole = [*arguments, "--kubeconfig", str(kubeconfig), *ports]
    process = _FORKS.Process(target=_be, args=(whole, str(kubeconfig), str(log)), daemon=True)
    process.start()
    return Operator(process, log, metrics, reports)


def _be(arguments: list[str], kubeconfig: str, log: str) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ["KUBECONFIG"] = kubeconfig
    from fedjob_operator.__main__ import main

    sys.exit(main(arguments))


@dataclass
class Kept:
    """A replica that is started again whenever it ends, as a kubelet does. lives: every process so far."""

    start: Callable[[], Operator]
    lives: list[Operator] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Keep it running until `stop`."""
        while not self._over.is_set():
            self.lives.append(self.start())
            while self.now.alive and not self._over.wait(0.1):
                pass
            self._over.wait(1.0)  # a kubelet's first pause is longer

    @property
    def now(self) -> Operator:
        """The present process."""
        return self.lives[-1]

    @property
    def leads(self) -> bool:
        """Whether the present process acts."""
        return bool(self.lives) and "fedjob_operator_leader 1.0" in self.now.scrape()

    def stop(self) -> None:
        """No more lives; the last one goes on."""
        self._over.set()
