"""The line between one site and the server: a TCP proxy that can do to the bytes what a network does, and worse.

Each direction of a connection is a reader and a writer with a short queue between them, so that latency does not limit the
rate. Faults that wait for a number of bytes are armed on the line and strike the connection that carries them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from chaos.faults import Cut, Direction, Flip, Lose

_ADDRESS = "127.0.0.1"
_PIECE_BYTES = 1 << 18
_QUEUE_PIECES = 16
_DIRECTIONS: tuple[Direction, Direction] = ("up", "down")
Upstream = Callable[[], tuple[str, int]]


@dataclass
class Armed:
    """A fault that strikes when its direction has carried so many more bytes; `struck` is set then."""

    fault: Cut | Flip | Lose
    left: int
    struck: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class Connection:
    """Both sockets of one connection, by the direction that writes into them."""

    sinks: dict[Direction, socket.socket]
    closed: set[Direction] = field(default_factory=set)  # what still comes for these is lost
    task: asyncio.Task[None] | None = None

    def end(self, how: str) -> None:
        """Close it: with a reset, or in order."""
        for sink in self.sinks.values():
            if how == "RST":
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_RDWR)
        if self.task is not None:
            self.task.cancel()


class Line:
    """A site's line. upstream: where the server listens now; asked for each connection. `made` counts connections."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._connections: set[Connection] = set()
        self._armed: list[Armed] = []
        self._open = asyncio.Event()
        self._open.set()
        self.latency = 0.0
        self.rate = float("inf")
        self.made = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Line]:
        """Take connections, on a port of its own, until the end of the block."""
        with socket.create_server((_ADDRESS, 0), backlog=64) as server:
            server.setblocking(False)
            self.port = server.getsockname()[1]
            accepting = asyncio.create_task(self._accept(server))
            try:
                yield self
            finally:
                accepting.cancel()
                await asyncio.gather(accepting, *self.cut("RST"), return_exceptions=True)

    def arm(self, fault: Cut | Flip | Lose) -> Armed:
        """Strike when the line has carried so many more bytes."""
        self._armed.append(Armed(fault, fault.after_bytes))
        return self._armed[-1]

    def cut(self, how: str) -> list[asyncio.Task[None]]:
        """End all connections now."""
        tasks = [c.task for c in self._connections if c.task is not None]
        for connection in list(self._connections):
            connection.end(how)
        return tasks

    def half_close(self, direction: Direction) -> None:
        """Close one direction of all connections."""
        for connection in self._connections:
            connection.closed.add(direction)
            with contextlib.suppress(OSError, KeyError):  # not connected yet
                connection.sinks[direction].shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """Forward nothing more, and close nothing."""
        self._open.clear()

    def go_on(self) -> None:
        """Forward again."""
        self._open.set()

    def mend(self) -> None:
        """A line without faults from here on."""
        self._armed.clear()
        self.latency, self.rate = 0.0, float("inf")
        self.go_on()

    async def _accept(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(server)
            connection = Connection({"down": near})
            self._connections.add(connection)
            connection.task = asyncio.create_task(self._carry(connection))

    async def _carry(self, connection: Connection) -> None:
        """Everything of one connection, until both directions have ended or it is cut."""
        loop = asyncio.get_running_loop()
        far = socket.socket()
        connection.sinks["up"] = far
        try:
            for end in connection.sinks.values():
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._open.wait()
            await loop.sock_connect(far, self._upstream())
            self.made += 1
            async with asyncio.TaskGroup() as both:
                for direction in _DIRECTIONS:
                    both.create_task(self._flow(connection, direction))
        except* OSError:  # a reset, or no server: the site sees its connection end
            connection.end("RST")
        finally:
            self._connections.discard(connection)
            for end in connection.sinks.values():
                end.close()

    async def _flow(self, connection: Connection, direction: Direction) -> None:
        """One direction, from the socket that the other one writes into."""
        loop = asyncio.get_running_loop()
        source = connection.sinks["down" if direction == "up" else "up"]
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE_PIECES)
        async with asyncio.TaskGroup() as pair:
            pair.create_task(self._write(connection, direction, pieces))
            while piece := await loop.sock_recv(source, _PIECE_BYTES):
                await pieces.put((loop.time() + self.latency, piece))
            await pieces.put((loop.time() + self.latency, b""))

    async def _write(
        self, connection: Connection, direction: Direction, pieces: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        sink = connection.sinks[direction]
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(due - loop.time(), len(piece) / self.rate))
            await self._open.wait()
            if not piece:
                with contextlib.suppress(OSError):  # the other side was faster
                    sink.shutdown(socket.SHUT_WR)
                return
            altered, ends = self._strike(direction, piece)
            if direction not in connection.closed:
                await loop.sock_sendall(sink, altered)
            if ends:
                connection.end(ends)

    def _strike(self, direction: Direction, piece: bytes) -> tuple[bytes, str]:
        """What becomes of these bytes, and how the connection ends after them ("": it does not)."""
        ends = ""
        for armed in [a for a in self._armed if a.fault.direction == direction]:
            at = armed.left
            armed.left -= len(piece)
            if armed.left >= 0:
                continue
            self._armed.remove(armed)
            armed.struck.set()
            match armed.fault:
                case Cut(how=how):
                    piece, ends = piece[:at], how
                case Flip(bit=bit):
                    piece = piece[:at] + bytes([piece[at] ^ 1 << bit]) + piece[at + 1 :] if at < len(piece) else piece
                case Lose(count=count):
                    piece = piece[:at] + piece[at + count :]
        return piece, ends
