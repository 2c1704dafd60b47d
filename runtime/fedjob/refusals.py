"""Says in the server's log that a certificate was refused, and why.

gRPC refuses a certificate before any Python code sees the connection, and tells the client only "Socket closed". The
reason is in one place: a line that gRPC's C core writes to file descriptor 2. So descriptor 2 becomes a pipe, and a
thread rewrites the lines about refused certificates into log records and passes every other line on.

    C core, other C code -> fd 2 -> pipe -> thread -> log.warning("connection refused", …)
                                              `-----> the old descriptor 2 <- sys.stderr, logging, faulthandler

With GRPC_TRACE=handshaker in the process's environment the line is followed by one that holds the peer's address;
without it the address is unknown. GRPC_VERBOSITY=ERROR or NONE would silence both.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import re
import sys
import threading
from typing import BinaryIO

_REASON = re.compile(rb"ssl_transport_security.*OPENSSL_internal:(\w+): (.*)")
# A record of the tracer is written in one piece, over several lines, so reason and address belong together.
_TRACED_REASON = re.compile(rb"CallNextHandshakerLocked: error=.*OPENSSL_internal:(\w+): (.*): OK")
_PEER = re.compile(rb"endpoint_peer_address=(?:ipv[46]:)?([^,}]+)")
_TRACE = re.compile(
    rb"[A-Z]\d{4} .* (handshaker\.cc|channel_trace\.h|trace\.cc|ssl_transport_security\.cc):\d+\] "
    rb"|=== Source Location|src/core/| shutdown=|$"
)

_SENTENCES = {
    "certificate has expired": "its certificate has expired; have a new one issued",
    "certificate is not yet valid": "its certificate is not valid yet; compare the two machines' clocks",
    "unsupported certificate purpose": "its certificate is not one for a client",
    "unable to get local issuer certificate": "its certificate is not of this job's authority",
    "self signed certificate": "its certificate is not of this job's authority",
    "BAD_SIGNATURE": "its certificate is not of this job's authority",  # another key under the same name
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "NO_SHARED_CIPHER": "it does not speak TLS 1.3",
    "HTTP_REQUEST": "it does not speak TLS",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}


def log_refusals(log: logging.Logger) -> None:
    """Redirect file descriptor 2, for the rest of the process. Call it once, first: before logging is set up."""
    terminal = os.dup(2)
    reader, writer = os.pipe()
    # A full pipe loses lines. If it blocked instead, a thread that writes while it holds the GIL would wait for ever
    # for the thread below, which needs the GIL to read.
    os.set_blocking(writer, False)
    os.dup2(writer, 2)
    os.close(writer)
    sys.stderr = os.fdopen(terminal, "w", buffering=1, errors="backslashreplace", closefd=False, encoding="utf-8")
    faulthandler.enable(sys.stderr)  # a crash must not depend on a thread to be seen
    arguments = (os.fdopen(reader, "rb"), terminal, log)
    pump = threading.Thread(target=_pump, args=arguments, name="refusals", daemon=True)
    pump.start()

    def drain() -> None:
        os.dup2(terminal, 2)  # closes the pipe's last writer, unless a child process has inherited it
        pump.join(timeout=1)

    atexit.register(drain)


def _pump(lines: BinaryIO, terminal: int, log: logging.Logger) -> None:
    traced = "handshaker" in os.environ.get("GRPC_TRACE", "")
    pattern = _TRACED_REASON if traced else _REASON
    sentence, peer = "", "unknown"
    for line in lines:
        if reason := pattern.search(line):
            sentence = explain(reason[1].decode(), reason[2].decode(errors="replace"))
        elif not (traced and _TRACE.match(line)):
            os.write(terminal, line)
        if address := traced and _PEER.search(line):
            peer = address[1].decode()
        if sentence and (address or not traced):
            log.warning("connection from %s refused: %s", peer, sentence, extra={"reason": sentence, "peer": peer})
            sentence = ""


def explain(name: str, detail: str) -> str:
    """Turn BoringSSL's words for a failed handshake into ours; words that we do not know stay as they are."""
    return _SENTENCES.get(detail) or _SENTENCES.get(name) or f"{name}: {detail}"
