"""mTLS gRPC: the only module that imports grpc. Bytes and certificates here; what they mean is decided elsewhere.

The settings are measured ones. malloc: by default glibc maps, faults in and unmaps every 1 MiB chunk, which halves the rate
and costs three times the CPU. Keepalive: `http2.ping_timeout_ms` is what shortens the detection of a vanished peer from a
minute to seconds; `keepalive_timeout_ms` alone does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, cast

from .tls import SERVER_ENVIRONMENT

# Read once, when grpc is imported: with them a server speaks TLS 1.3 only. They do a client no harm.
for _name, _value in SERVER_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
# A training script forks data loaders. They never use the connection, so grpc need not (and cannot) survive in them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # noqa: E402
import grpc.aio  # noqa: E402

from . import frames  # noqa: E402
from . import wire_pb2 as wire  # noqa: E402
from .api.limits import (  # noqa: E402
    CONNECTIONS,
    FIRST_MESSAGE_SECONDS,
    HANDSHAKE_SECONDS,
    IDLE_SECONDS,
    OPEN_CALLS,
    STALL_SECONDS,
)
from .chunks import CHUNK_BYTES, WINDOW_CHUNKS, Range  # noqa: E402
from .errors import TransportError  # noqa: E402
from .frames import Piece  # noqa: E402
from .identity import Credentials, not_after  # noqa: E402
from .wire_text import read_message  # noqa: E402

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = CHUNK_BYTES + (1 << 20)  # a chunk, or an announcement with its header
_SERVICE = "fedjob.v1.Federation"
_ALIVE = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
_SERVER_OPTIONS = [
    *_ALIVE,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 2_000),
    # A busy machine sends delayed pings close together; to end the connection for it would make things worse.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    # What a stranger can hold: docs/limits.md says why.
    ("grpc.max_allowed_incoming_connections", CONNECTIONS.value),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS.value * 1000),
    ("grpc.max_connection_idle_ms", IDLE_SECONDS.value * 1000),
    ("grpc.max_concurrent_streams", OPEN_CALLS.value),
]
_CLIENT_OPTIONS = [
    *_ALIVE,
    # A download's window: what a cut can cost. gRPC's own estimate of the line would let it grow without a bound of ours.
    ("grpc.http2.bdp_probe", 0),
    # Beside it a cut costs what the server has read ahead, what gRPC is about to send, and the chunk that came in part.
    ("grpc.http2.lookahead_bytes", (WINDOW_CHUNKS - 8) * CHUNK_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In fact how long one attempt may take: TCP, TLS and settings, some round trips.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A script may need HTTPS_PROXY for others; its server is in the cluster, or has an address of its own.
    ("grpc.enable_http_proxy", 0),
]


def tune_malloc() -> None:
    """Keep chunks and models in one arena and off mmap (glibc only; elsewhere nothing is done).

    What is freed stays with this process: the next model has the same shapes and takes its place. A model that was given
    back to the system after each round had to be found and cleared again in the next, at up to a second per GiB.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        m_trim, m_mmap, m_arenas, most = -1, -3, -8, (1 << 31) - 1
        libc.mallopt(m_mmap, most)
        libc.mallopt(m_trim, most)
        libc.mallopt(m_arenas, 1)


# ------------------------------------------------------------------------------------------------------------ server


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A call that this peer may not make."""


class NotThere(Exception):  # noqa: N818
    """What is asked for does not exist, or no longer."""


class Unreadable(Exception):  # noqa: N818
    """What a peer has sent is none of our messages."""


class Service(Protocol):
    """What the server does with a call. `peer`: the URI SAN of the caller's certificate, None unless there is just one."""

    def attend(self, peer: str | None, events: AsyncIterator[wire.Upward]) -> AsyncIterator[wire.Downward]:
        """A site's life line."""

    def fetch(self, peer: str | None, wanted: wire.Wanted) -> AsyncIterator[Piece]:
        """Chunks of an object."""

    def submit(self, peer: str | None, frames: AsyncIterator[wire.Frame | Piece]) -> AsyncIterator[wire.Reply]:
        """An answer."""


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of gRPC's is worth a line: one for a peer that hung up in mid-stream is not, the life line tells that."""
    return "ExecuteBatchError" not in record.getMessage()


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)


async def serve(
    service: Service, address: str, credentials: Credentials, newest: Callable[[], Credentials] | None = None
) -> tuple[grpc.aio.Server, int]:
    """Start a server on `address` ("host:port", port 0 for any); returns it and its port.

    Only certificates of the same authorities connect, and none is served beyond its end. newest: asked before each handshake
    for the credentials that it shall use. Raises TransportError if the port is taken.
    """
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, _handlers(service)),))
    tls = grpc.dynamic_ssl_server_credentials(
        _configuration(credentials), _Changes(credentials, newest or (lambda: credentials)), True
    )
    try:
        port = server.add_secure_port(address, tls)
    except RuntimeError as e:
        raise TransportError(f"cannot listen on {address}: {e}") from e
    await server.start()
    return server, port


def _configuration(credentials: Credentials) -> Any:
    return grpc.ssl_server_certificate_configuration([(credentials.key_pem, credentials.cert_pem)], credentials.ca_pem)


class _Changes:
    """What gRPC asks before each handshake, on threads of its own: None, while it has the newest."""

    def __init__(self, credentials: Credentials, newest: Callable[[], Credentials]) -> None:
        self._used, self._newest = credentials, newest
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        with self._lock:
            newest = self._newest()
            if newest == self._used:
                return None
            self._used = newest
            return _configuration(newest)


def _handlers(service: Service) -> dict[str, grpc.RpcMethodHandler]:
    calls: Counter[str | None] = Counter()  # that are open, by caller

    async def attend(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[wire.Downward]:
        replies = service.attend(_peer(context), _messages(requests, float("inf")))
        async for event in _answered(_counted(calls, _until(_peers_end(context), replies), context), context):
            yield event

    async def fetch(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Piece]:
        pieces = _while(_peers_end(context), _fetched(service, requests, _peer(context)))
        async for piece in _answered(_counted(calls, _not_stalled(pieces), context), context):
            yield piece

    async def submit(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[wire.Reply]:
        replies = service.submit(_peer(context), _messages(requests, STALL_SECONDS.value))
        async for reply in _answered(_counted(calls, _until(_peers_end(context), replies), context), context):
            yield reply

    streams = grpc.stream_stream_rpc_method_handler
    return {
        "Attend": streams(attend, _reading(partial(frames.read_small, wire.Upward)), wire.Downward.SerializeToString),
        # One message, as a client sends it; as a stream, so that there is a deadline for it.
        "Fetch": streams(fetch, _reading(partial(frames.read_small, wire.Wanted)), frames.chunk),
        "Submit": streams(submit, _reading(frames.read_frame), wire.Reply.SerializeToString),
    }


def _reading(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A deserializer that hands on what is wrong with a message: gRPC would log a traceback, and tell the peer nothing."""

    def deserialize(message: bytes) -> Any:
        try:
            return read(message)
        except TransportError as e:
            return Unreadable(str(e))

    return deserialize


async def _messages(requests: AsyncIterator[Any], stall_seconds: float) -> AsyncIterator[Any]:
    """What a peer sends, each message within its time. Raises Unreadable, and TransportError for one that does not come."""
    seconds: float = FIRST_MESSAGE_SECONDS.value
    while True:
        try:
            async with asyncio.timeout(seconds if seconds < float("inf") else None):
                message = await anext(requests)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TransportError(f"no message came for {seconds:.0f} s") from None
        if isinstance(message, Unreadable):
            raise message
        yield message
        seconds = stall_seconds


async def _fetched(service: Service, requests: AsyncIterator[Any], peer: str | None) -> AsyncIterator[Piece]:
    wanted = await anext(_messages(requests, FIRST_MESSAGE_SECONDS.value), None)
    if wanted is None:
        raise Unreadable("a download names what is wanted")
    async for piece in service.fetch(peer, wanted):
        yield piece


async def _counted(calls: Counter[str | None], replies: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """The replies of a call, if this caller has not too many open already. Raises TransportError."""
    peer = _peer(context)
    if calls[peer] >= OPEN_CALLS.value:
        raise TransportError(f"{OPEN_CALLS.value} calls of this site are open already; come again")
    calls[peer] += 1
    try:
        async with contextlib.aclosing(cast(AsyncGenerator[Any], replies)):
            async for reply in replies:
                yield reply
    finally:
        calls[peer] -= 1
        if not calls[peer]:
            del calls[peer]


async def _not_stalled(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The pieces; the call ends if its peer does not take one in time, and what was read for it is let go."""
    loop, call = asyncio.get_running_loop(), asyncio.current_task()
    assert call is not None
    async with contextlib.aclosing(cast(AsyncGenerator[Any], pieces)):
        async for piece in pieces:
            stalled = loop.call_later(STALL_SECONDS.value, call.cancel)
            try:
                yield piece
            finally:
                stalled.cancel()


async def _answered(replies: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    try:
        async with contextlib.aclosing(cast(AsyncGenerator[Any], replies)):
            async for reply in replies:
                yield reply
    except _Expired as e:
        why = f"the certificate of {_peer(context)} expired at {e}; come again with a renewed one"
        if e.begun:  # one that was not begun is tried again and again
            log.warning("a call ends: %s", why, extra={"site": _peer(context)})
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
    except Refused as e:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(e))
    except NotThere as e:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(e))
    except Unreadable as e:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
    except TransportError as e:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(e))
    except OSError as e:  # the disk, or descriptors: there may be room later
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server cannot take it now: {e.strerror}")


class _Expired(Exception):  # noqa: N818 - what happened
    """The caller's certificate has ended. TLS looks at it once, when the connection begins; so each call looks again."""

    def __init__(self, end: datetime, begun: bool) -> None:
        super().__init__(f"{end:%Y-%m-%dT%H:%M:%SZ}")
        self.begun = begun


async def _until(end: datetime, replies: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Replies for which one may wait long, until `end`. Raises _Expired."""
    left = (end - datetime.now(UTC)) / timedelta(seconds=1)
    if left <= 0:
        raise _Expired(end, begun=False)
    deadline = asyncio.get_running_loop().time() + left
    async with contextlib.aclosing(cast(AsyncGenerator[Any], replies)):
        while True:
            try:
                async with asyncio.timeout_at(deadline) as wait:
                    reply = await anext(replies)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not wait.expired():  # the disk's
                    raise
                raise _Expired(end, begun=True) from None
            yield reply


async def _while(end: datetime, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Pieces that come fast, until `end`: each costs a look at the clock, where a deadline would cost more. Raises _Expired."""
    limit = end.timestamp()
    if time.time() >= limit:
        raise _Expired(end, begun=False)
    async with contextlib.aclosing(cast(AsyncGenerator[Any], pieces)):
        async for piece in pieces:
            if time.time() >= limit:
                raise _Expired(end, begun=True)
            yield piece


def _peers_end(context: Any) -> datetime:
    """When the caller's certificate ends."""
    return not_after(context.auth_context()["x509_pem_cert"][0])


def _peer(context: Any) -> str | None:
    found = context.auth_context().get("peer_spiffe_id", [])
    return found[0].decode() if len(found) == 1 else None


# ------------------------------------------------------------------------------------------------------------ client


class Channel:
    """A site's way to its job's server. Every method raises TransportError when the connection fails.

    gRPC's clients cannot reload a certificate. So a renewed one means another connection: new calls use it, and the old
    connection closes behind its last call.
    """

    def __init__(self, address: str, server_name: str, credentials: Credentials) -> None:
        self._where = (address, server_name)
        self._lock = threading.Lock()
        self._connections = [_Connection(*self._where, credentials)]  # the newest is the last

    def attend(self, events: Iterator[wire.Upward]) -> Iterator[wire.Downward]:
        """Open the life line: yields what the server says, as it says it."""
        with self._connection() as connection:
            yield from _mapped(connection.attend(events))

    def fetch(self, digest: str, wanted: Range) -> Iterator[Piece]:
        """The chunks of an object in a range."""
        with self._connection() as connection:
            yield from _mapped(connection.fetch(wire.Wanted(digest=digest, start=wanted.start, stop=wanted.stop)))

    def submit(self, messages: Iterator[bytes]) -> Iterator[wire.Reply]:
        """Send an answer, Frames in bytes: yields Wants and Acks, then a Verdict, or a Verdict alone."""
        with self._connection() as connection:
            yield from _mapped(connection.submit(messages))

    def reconnect(self, credentials: Credentials) -> None:
        """Let new calls use a new connection, which tries at once.

        One whose host was unknown asks name servers again after a pause that grows to two minutes, and no call shortens that.
        """
        with self._lock:
            self._connections.append(_Connection(*self._where, credentials))
            self._close_idle()

    def renew(self, credentials: Credentials, seconds: float) -> None:
        """Let new calls use other credentials.

        Raises TransportError if no connection with them is up within so long; then all stays as it is.
        """
        fresh = _Connection(*self._where, credentials)
        try:
            grpc.channel_ready_future(fresh.channel).result(seconds)
        except grpc.FutureTimeoutError:
            fresh.channel.close()
            raise TransportError(f"no connection to {self._where[0]} with it within {seconds:.0f} s") from None
        with self._lock:
            self._connections.append(fresh)
            self._close_idle()

    def close(self) -> None:
        """End all calls."""
        with self._lock:
            for connection in self._connections:
                connection.channel.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[_Connection]:
        """The newest connection, for one call."""
        with self._lock:
            connection = self._connections[-1]
            connection.calls += 1
        try:
            yield connection
        finally:
            with self._lock:
                connection.calls -= 1
                self._close_idle()

    def _close_idle(self) -> None:
        *older, newest = self._connections
        for connection in older:
            if not connection.calls:
                connection.channel.close()
        self._connections = [*(c for c in older if c.calls), newest]


class _Connection:
    """A gRPC channel with one certificate. calls: how many are open, guarded by its Channel."""

    def __init__(self, address: str, server_name: str, credentials: Credentials) -> None:
        tls = grpc.ssl_channel_credentials(credentials.ca_pem, credentials.key_pem, credentials.cert_pem)
        options = [*_CLIENT_OPTIONS, ("grpc.ssl_target_name_override", server_name)]
        self.calls = 0
        self.channel = grpc.secure_channel(address, tls, options)
        self.attend = self.channel.stream_stream(
            f"/{_SERVICE}/Attend", wire.Upward.SerializeToString, partial(read_message, wire.Downward)
        )
        self.fetch = self.channel.unary_stream(f"/{_SERVICE}/Fetch", wire.Wanted.SerializeToString, frames.read_chunk)
        self.submit = self.channel.stream_stream(f"/{_SERVICE}/Submit", None, partial(read_message, wire.Reply))


class PermissionDenied(TransportError):  # noqa: N818
    """The server knows this certificate and will not serve it; trying again will not help."""


class Gone(TransportError):  # noqa: N818
    """The server no longer has what was asked for; trying again will not help."""


def _mapped(call: Any) -> Iterator[Any]:
    try:
        yield from call
    except grpc.RpcError as e:
        error = e if isinstance(e, grpc.Call) else call
        if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
            raise PermissionDenied(error.details()) from None
        if error.code() == grpc.StatusCode.NOT_FOUND:
            raise Gone(error.details()) from None
        raise TransportError(f"{error.code().name}: {error.details()}") from None
    finally:
        call.cancel()
