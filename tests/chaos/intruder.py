"""Somebody with a good certificate and bad manners: what no client of ours sends. Each must be refused, and soon."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import grpc

from fedjob import identity
from fedjob import wire_pb2 as wire
from fedjob.tls import client_context
from fedjob.transport import MAX_MESSAGE_BYTES

_CALL_SECONDS = 10.0
_SERVICE = "/fedjob.v1.Federation"
Address = tuple[str, int]


def intrude(what: str, address: Address, credentials: identity.Credentials) -> str:
    """Do it; returns how the server refused. Raises AssertionError if it did not, or not within ten seconds."""
    return _WAYS[what](address, credentials)


def _not_tls(address: Address, _: identity.Credentials) -> str:
    with socket.create_connection(address, _CALL_SECONDS) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: fedjob\r\n\r\n" * 1000)
        return _hung_up(s)


def _no_handshake(address: Address, _: identity.Credentials) -> str:
    """Connections that say nothing: they are left alone, and cost nothing but themselves."""
    with contextlib.ExitStack() as stack:
        for _n in range(20):
            stack.enter_context(socket.create_connection(address, _CALL_SECONDS))
    return "nothing happened"


def _not_http2(address: Address, credentials: identity.Credentials) -> str:
    plain = socket.create_connection(address, _CALL_SECONDS)
    context = client_context(credentials)
    context.set_alpn_protocols(["h2"])
    with plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
        tls.sendall(bytes(range(256)) * 4000)
        return _hung_up(tls)


def _hung_up(s: socket.socket) -> str:
    try:
        while s.recv(1 << 16):
            pass
    except TimeoutError:
        raise AssertionError(f"the server did not hang up within {_CALL_SECONDS:.0f} s") from None
    except OSError as e:
        return f"hung up: {e.strerror or e}"
    return "hung up"


def _call(method: str, *messages: bytes) -> Callable[[Address, identity.Credentials], str]:
    """A call with these bytes as its messages; it must end with an error."""

    def call(address: Address, credentials: identity.Credentials) -> str:
        tls = grpc.ssl_channel_credentials(credentials.ca_pem, credentials.key_pem, credentials.cert_pem)
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"{address[0]}:{address[1]}", tls, options) as channel:
            raw: Callable[[bytes], bytes] = bytes
            answers = channel.stream_stream(f"{_SERVICE}/{method}", raw, raw)(_each(messages), timeout=_CALL_SECONDS)
            try:
                told = [bytes(a)[:60] for a in answers]
            except grpc.RpcError:
                told = [b"silence"]
                if answers.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    return str(answers.code().name)
        raise AssertionError(f"{method} was not refused; the server said {told}")

    return call


def _each(messages: tuple[bytes, ...]) -> Iterator[bytes]:
    yield from messages


_CHUNK = wire.Frame(chunk=wire.Chunk(part=0, offset=1 << 40, data=b"x" * 1000)).SerializeToString()
_WAYS: dict[str, Callable[[Address, identity.Credentials], str]] = {
    "not TLS": _not_tls,
    "no handshake": _no_handshake,
    "not HTTP/2": _not_http2,
    "unknown call": _call("Overthrow", b""),
    "no protobuf": _call("Submit", b"\xff" * 5000),
    "oversized message": _call("Submit", bytes(MAX_MESSAGE_BYTES + 1)),
    "no hello": _call("Attend", wire.Upward(farewell=wire.Farewell(reason="Nonsense", final=True)).SerializeToString()),
    "chunk before announcement": _call("Submit", _CHUNK, _CHUNK),
    "unknown object": _call("Fetch", wire.Wanted(digest="0" * 64).SerializeToString()),
}
