"""A proxy between a client and the API server: it records every call, and makes the faults that a test asks for.

    with ApiProxy(plane.port, …) as proxy:
        proxy.judge = lambda call: Answer(429, retry_after=1) if call.is_write and call.number % 3 == 0 else None

It runs in a thread of its own, speaks HTTP/1.1 over TLS on both sides, and copies bytes as they come, so watches stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

_BLOCK = 65_536
_MAX_HEAD = 1_048_576
_START_SECONDS = 10.0


@dataclass(frozen=True)
class Call:
    """One call, as the client made it. number: counts from 1, in the order of arrival; query: what follows the "?"."""

    number: int
    method: str
    path: str
    query: str = ""

    @property
    def is_write(self) -> bool:
        """Whether it asks for a change."""
        return self.method in ("POST", "PUT", "PATCH", "DELETE")

    @property
    def is_watch(self) -> bool:
        """Whether its answer is a stream of events."""
        return parse_qs(self.query).get("watch", ["0"])[0] in ("1", "true")


@dataclass(frozen=True)
class Answer:
    """Answer in the API server's place, which never hears of the call. retry_after: seconds, for the header; None: without."""

    code: int
    reason: str = "Test"
    retry_after: int | None = None


@dataclass(frozen=True)
class Cut:
    """Close the connection. delivered: after the API server has acted, so that only its answer is lost."""

    delivered: bool = False


@dataclass(frozen=True)
class Delay:
    """Pass the call on after this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Truncate:
    """Pass the call on, and close the connection once this many bytes of the answer have gone by: in the middle of an event."""

    size: int


@dataclass(frozen=True)
class Silence:
    """Pass the call on, and nothing after this many bytes of the answer: the connection stays open."""

    size: int


@dataclass(frozen=True)
class Says:
    """Answer a watch with these lines, and end it in good form. What stands there need not be whole."""

    text: str


GONE = Says('{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}\n')
HALF_A_LINE = Says('{"type": "MODIFIED", "object": {"apiVersion": "v1", "kind": "Pod", "metad')

Fault = Answer | Cut | Delay | Truncate | Silence | Says
Judge = Callable[[Call], Fault | None]


class ApiProxy:
    """The proxy. judge: called for each call, on the proxy's own thread; None lets it through. calls: all calls so far."""

    def __init__(self, port: int, authority: Path, certificate: Path, key: Path) -> None:
        """Before the API server at a port of this machine. authority: the server's; certificate and key: the proxy's."""
        self.judge: Judge = lambda _call: None
        self.calls: list[Call] = []
        self._upstream = port
        self._trust = ssl.create_default_context(cafile=str(authority))
        self._identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._identity.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-proxy", daemon=True)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"https://127.0.0.1:{self._port}"

    def cut_all(self) -> None:
        """Close every connection that is open now, watches included."""
        self._loop.call_soon_threadsafe(self._cancel_all)

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Inside the block nobody listens: connections are refused, and those that were open are closed."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_START_SECONDS)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self._port, ssl=self._identity, limit=_MAX_HEAD
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        """Returns when nothing is under way: a connection that is still shaking hands would be served in a moment."""
        if self._server is not None:
            self._server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def _cancel_all(self) -> None:
        for task in self._open:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The calls of one connection, one after the other."""
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side has gone: so does the other
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One call. Whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(_header(head, b"content-length") or 0))
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        path, _, query = target.partition("?")
        call = Call(len(self.calls) + 1, method, path, query)
        self.calls.append(call)
        fault = self.judge(call)
        if isinstance(fault, Answer):
            writer.write(_made_up(fault.code, fault.reason, _status(fault), fault.retry_after))
            await writer.drain()
            return True
        if isinstance(fault, Says):
            writer.write(_made_up(200, "OK", fault.text))
            await writer.drain()
            return True
        if isinstance(fault, Cut) and not fault.delivered:
            return False
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        await self._forward(head, body, writer, fault)
        return False  # the API server's end is known by its closing the connection

    async def _forward(self, head: bytes, body: bytes, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
        upstream, sink = await asyncio.open_connection("127.0.0.1", self._upstream, ssl=self._trust)
        try:
            sink.write(_closing(head) + body)
            left = fault.size if isinstance(fault, Truncate | Silence) else None
            while block := await upstream.read(_BLOCK if left is None else min(left, _BLOCK)):
                if isinstance(fault, Cut):
                    return  # the answer has begun, so the API server has acted
                writer.write(block)
                await writer.drain()
                left = None if left is None else left - len(block)
            if isinstance(fault, Silence):
                await asyncio.Event().wait()  # until the test closes it
        finally:
            sink.transport.abort()
        await _flush(writer)


async def _flush(writer: asyncio.StreamWriter) -> None:
    """See the last bytes off before the connection is closed."""
    writer.close()
    await writer.wait_closed()


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().decode()
    return ""


def _closing(head: bytes) -> bytes:
    """The head of a call with the wish that the connection is closed after the answer."""
    first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [
        line for line in lines if line.partition(b":")[0].strip().lower() not in (b"connection", b"accept-encoding")
    ]
    return b"\r\n".join([first, *kept, b"Connection: close", b"", b""])


def _status(answer: Answer) -> str:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": answer.code,
        "reason": answer.reason,
        "message": "made up by a test",
    }
    return json.dumps(status)


def _made_up(code: int, reason: str, text: str, retry_after: int | None = None) -> bytes:
    body = text.encode()
    lines = [f"HTTP/1.1 {code} {reason}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    if retry_after is not None:
        lines.append(f"Retry-After: {retry_after}")
    return "\r\n".join([*lines, "", ""]).encode() + body
