"""What TLS itself can carry here: two processes, one connection, Python's `ssl`.

TLS 1.3 with AES-256-GCM and certificates on both sides, as in a job; one buffer of 1 MiB is sent over and over and received
into one of the same size, so that nothing is kept of what arrives; or, on demand, into memory for all of it, asked for anew. `raw_tls.py send|receive CA CERTIFICATE KEY PORT` is one end.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peers.certificates import issue
from processes import MeasureError, start, tail

BUFFER_BYTES = 1 << 20
_ORDER = ">QB"  # bytes that follow, and whether they are to be kept
CIPHER = "TLS_AES_256_GCM_SHA384"
_SECONDS_PER_GIB = 60.0
_START_SECONDS = 30.0


@dataclass(frozen=True)
class RawTls:
    """A connection that is up."""

    sender: subprocess.Popen[str]
    log: Path

    def seconds(self, size: int, *, keep: bool = False) -> float:
        """Send so many bytes: seconds until the receiver has them all. Raises MeasureError."""
        assert self.sender.stdin is not None
        self.sender.stdin.write(f"{size} {int(keep)}\n")
        self.sender.stdin.flush()
        return float(_line(self.sender, _START_SECONDS + size / (1 << 30) * _SECONDS_PER_GIB, self.log))


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[RawTls]:
    """Both processes, inside a `contained` block. Raises MeasureError."""
    folder.mkdir()
    tls, log = issue(folder), folder / "receiver.log"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.fileno()
        files = [str(p) for p in (tls.ca, tls.certificate, tls.key)]
        receive = [sys.executable, __file__, "receive", *files, str(port)]
        start(receive, log, cwd=folder, env={}, pass_fds=(port,))
        send = [sys.executable, __file__, "send", *files, str(listener.getsockname()[1])]
    sender = subprocess.Popen(
        send, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, encoding="utf-8"
    )
    try:
        if (cipher := _line(sender, _START_SECONDS, log).strip()) != f"TLSv1.3 {CIPHER}":
            raise MeasureError(f"raw TLS came up with {cipher}")
        yield RawTls(sender, log)
    finally:
        sender.kill()
        sender.wait()


def _line(process: subprocess.Popen[str], seconds: float, log: Path) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    if not ready or not (line := process.stdout.readline()):
        raise MeasureError(f"the raw TLS sender said nothing within {seconds:.0f} s:\n{tail(log)}")
    return line


# ------------------------------------------------------------------------------------------------- the processes


def _send(context: ssl.SSLContext, port: int) -> None:
    import time

    block = memoryview(os.urandom(BUFFER_BYTES))
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as tls:
        cipher = tls.cipher()
        print(tls.version(), cipher and cipher[0], flush=True)
        for line in sys.stdin:
            size, keep = map(int, line.split())
            tls.sendall(struct.pack(_ORDER, size, keep))
            began = time.monotonic()
            for at in range(0, size, BUFFER_BYTES):
                tls.sendall(block[: size - at])
            if tls.recv(1) != b".":
                raise ConnectionError("the receiver is gone")
            print(time.monotonic() - began, flush=True)


def _receive(context: ssl.SSLContext, listener: int) -> None:
    block = memoryview(bytearray(BUFFER_BYTES))
    with socket.socket(fileno=listener) as server:
        connection, _ = server.accept()
    with context.wrap_socket(connection, server_side=True) as tls:
        while order := tls.recv(struct.calcsize(_ORDER)):
            size, keep = struct.unpack(_ORDER, order)
            target = memoryview(bytearray(size)) if keep else block
            at = 0
            while at < size:
                place = target[at : at + BUFFER_BYTES] if keep else target[: size - at]
                if not (got := tls.recv_into(place)):
                    raise ConnectionError("the sender is gone")
                at += got
            tls.sendall(b".")


def _context(side: str, ca: str, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "send" else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    side, *files, end = sys.argv[1:]
    {"send": _send, "receive": _receive}[side](_context(side, *files), int(end))
