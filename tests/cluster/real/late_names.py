"""Name servers that are late: a process on each node between its pods and CoreDNS, which drops and delays what each pod asks first.

It counts by pod, not by the clock: however long a pod takes to start, its own first questions find no answer, the next ones a late
one, and all others an answer at once.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from ..helm import ROOT
from ..kube import until
from .cluster import Cluster
from .layout import Node

DROPPED, LATE = 4, 12  # of the questions of a pod: the first ones, and those after them
LATE_SECONDS = (3.0, 4.0, 5.0)  # in turn
_PORT = 5300
_TABLE = "late-names"


@contextlib.contextmanager
def late_names(cluster: Cluster) -> Iterator[None]:
    """Inside the block pods that begin to ask are answered late, on every node."""
    with contextlib.ExitStack() as stack:
        for node in cluster.nodes:
            stack.enter_context(_late_on(cluster, node))
        yield


@contextlib.contextmanager
def _late_on(cluster: Cluster, node: Node) -> Iterator[None]:
    rooms = os.pathsep.join(str(ROOT / room) for room in ("tests", "operator", "runtime"))
    command = (sys.executable, "-m", "cluster.real.late_names", cluster.layout.control.address)
    processes, name = cluster.processes[node], Path(sys.executable).name
    process = processes.start(*command, environment={"PYTHONPATH": rooms})
    log = node.folder / f"{name}.log"
    try:
        until("the late name server to listen", lambda: process.poll() is None and "listening" in log.read_text(), 30)
        redirect = f"ip saddr {node.pods} udp dport 53 redirect to :{_PORT}"
        _nft(node, f"table ip {_TABLE} {{ chain in {{ type nat hook prerouting priority -150; {redirect}; }}; }}")
        yield
        assert process.poll() is None, log.read_text()
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _nft(node, f"delete table ip {_TABLE}")
        processes.end(name)


def _nft(node: Node, rules: str) -> None:
    subprocess.run([*node.enter, "nft", "-f", "-"], input=rules, text=True, check=True)


class _Answer(asyncio.DatagramProtocol):
    """Takes one answer of the real name server back to who asked."""

    def __init__(self, question: bytes, back: asyncio.DatagramTransport, peer: tuple[str, int]) -> None:
        self.question, self.back, self.peer = question, back, peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast(asyncio.DatagramTransport, transport)  # CPython's is one in all but its name
        self.transport.sendto(self.question)

    def datagram_received(self, data: bytes, _addr: object) -> None:
        """Answer."""
        self.back.sendto(data, self.peer)
        self.transport.close()


class _Questions(asyncio.DatagramProtocol):
    """Takes questions. upstream: address of the real name server."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.asked: collections.Counter[str] = collections.Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Listen."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Drop, or pass on at once or later."""
        number = self.asked[addr[0]]
        self.asked[addr[0]] += 1
        if number < DROPPED:
            return
        seconds = LATE_SECONDS[number % len(LATE_SECONDS)] if number < DROPPED + LATE else 0.0
        task = asyncio.create_task(self._pass_on(data, addr, seconds))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _pass_on(self, data: bytes, peer: tuple[str, int], seconds: float) -> None:
        await asyncio.sleep(seconds)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: _Answer(data, self.transport, peer), remote_addr=(self.upstream, 53)
        )


async def _serve(upstream: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Questions(upstream), local_addr=("0.0.0.0", _PORT))
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
