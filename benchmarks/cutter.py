"""A relay between two ends that cuts every connection through it, at moments that a seed chooses."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator

_BUFFER_BYTES = 1 << 18
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is on the way is lost, as when a line breaks


class Cutter:
    """Relays to a port of this machine. After each of `moments`, bytes relayed in all, it resets all connections."""

    def __init__(self, port: int, moments: list[int]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._to = port
        self._moments = sorted(moments, reverse=True)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.relayed = {"up": 0, "down": 0}  # bytes, to the port and back
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Cut what is open, and listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._reset()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._open |= {near, far}
                for source, target, way in ((near, far, "up"), (far, near, "down")):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._threads.append(threading.Thread(target=self._relay, args=(source, target, way), daemon=True))
                    self._threads[-1].start()

    def _relay(self, source: socket.socket, target: socket.socket, way: str) -> None:
        block = memoryview(bytearray(_BUFFER_BYTES))
        with contextlib.suppress(OSError):
            while got := source.recv_into(block):
                target.sendall(block[:got])
                self._count(got, way)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source, target}

    def _count(self, size: int, way: str) -> None:
        with self._lock:
            self.relayed[way] += size
            if self._moments and sum(self.relayed.values()) >= self._moments[-1]:
                self._moments.pop()
                self.cuts += 1
                self._reset()

    def _reset(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # a thread that still waits in recv would hold the connection open
                end.close()
        self._open.clear()


@contextlib.contextmanager
def cutting(port: int, cuts: int, size: int, seed: int) -> Iterator[Cutter]:
    """A relay to `port` that cuts so many times while `size` bytes go through it."""
    chosen = random.Random(seed)
    cutter = Cutter(port, [chosen.randrange(size // 100, size - size // 100) for _ in range(cuts)])
    try:
        yield cutter
    finally:
        cutter.close()
