"""What a live server thinks of this process's certificate, for the moments when gRPC will not say.

In TLS 1.3 a client finishes its handshake before the server has looked at the client's certificate. A gRPC server that
refuses it sends no alert; it closes the connection, and the client's error is "Socket closed" for every cause
(measured: grpcio 1.85). So `diagnose` makes one handshake of its own and watches what the server does *next*:

    server's first HTTP/2 frame arrives   the certificate was accepted
    an alert arrives                      refused, and the alert says why (servers other than gRPC's)
    the connection is closed              refused; our own copy of the certificate usually tells why
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509

from .identity import CA_FILE, CERT_FILE, KEY_FILE, Credentials, problems, write

# grpcio offers no minimum TLS version. With ECDSA certificates this TLS 1.2 suite can never be agreed on, while the
# suites of TLS 1.3 are not affected: what remains is TLS 1.3 alone. C core reads the variable once, when `grpc` is
# first imported, so it belongs into the environment that the server's process is started with.
SERVER_ENVIRONMENT: Mapping[str, str] = {"GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384"}

_ALERTS = {
    "CERTIFICATE_EXPIRED": "certificate expired",
    "UNKNOWN_CA": "unknown certificate authority",
    "CERTIFICATE_REVOKED": "certificate revoked",
    "CERTIFICATE_REQUIRED": "a client certificate is required",
    "UNSUPPORTED_CERTIFICATE": "unsupported certificate, for instance not one for a client",
    "BAD_CERTIFICATE": "bad certificate",
    "CERTIFICATE_UNKNOWN": "certificate not acceptable",
    "DECRYPT_ERROR": "a signature does not verify, for instance by another authority of the same name",
}

_SLOW_SECONDS = 2.0

# X509_V_ERR_* of OpenSSL; ssl has no names for them.
_EXPIRED, _NOT_YET_VALID, _HOSTNAME_MISMATCH, _IP_MISMATCH = 10, 9, 62, 64


def diagnose(address: str, credentials: Credentials, server_name: str, *, timeout_seconds: float = 3.0) -> str:
    """Make one TLS 1.3 handshake with the server and return why it fails, as a sentence; "" if it does not.

    address: "host:port", IPv6 as "[::1]:port"; dialled directly, not through a proxy.
    server_name: the DNS name or IP address that the server's certificate must carry; also the SNI.
    timeout_seconds: for each of connecting, the handshake and the server's first frame; the resolver of names has its own.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return f"the server's address {address!r} is not of the form host:port."
    try:
        context = client_context(credentials)
        context.set_alpn_protocols(["h2"])
    except (ssl.SSLError, ValueError):  # ValueError: nothing in ca.crt
        return (
            _own_problem(credentials) or f"OpenSSL cannot load {KEY_FILE}, {CERT_FILE} and {CA_FILE}. Write them again."
        )
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout_seconds)
    except socket.gaierror as exc:
        return _unresolved(host, exc)
    except (OSError, OverflowError) as exc:
        return f"server not reachable at {address}: {_reason(exc)}. Check the address, the network and that it runs."
    with connection:
        try:
            tls = context.wrap_socket(connection, server_hostname=server_name)
        except OSError as exc:
            dates = partial(_dates, context, address, server_name, timeout_seconds)
            found = _handshake_failure(exc, address, server_name, dates)
            own = _own_problem(credentials)
            return f"{found} And of this site's own certificate: {own}" if own else found
        with tls:
            return _verdict(tls, address, credentials)


def look_up(address: str, slow: Callable[[str], None]) -> str:
    """Ask name servers for the host of "host:port", and return why that fails, as a sentence; "" if it does not.

    slow: called with what is waited for, on a thread of its own, once that lasts. The system's resolver has deadlines of its own,
    5 s for each question and try; gRPC's has too, but says nothing before it gives up.
    """
    host = address.rpartition(":")[0]
    told = threading.Timer(
        _SLOW_SECONDS, slow, [f"the name of the server, {host}, is not resolved yet: name servers are slow"]
    )
    told.daemon = True
    told.start()
    try:
        socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as exc:
        return _unresolved(host, exc)
    finally:
        told.cancel()
    return ""


def _unresolved(host: str, exc: OSError) -> str:
    return (
        f"the name of the server, {host}, is not resolved yet: {_reason(exc)}. Check the address and the name servers."
    )


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.3 as a client with a certificate; verifies the server's chain and name. Raises SSLError, ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, credentials)
    return context


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.3 as a server, for clients with a certificate of the same authorities. Raises SSLError, ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, credentials)
    return context


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=credentials.ca_pem.decode("ascii", "replace"))
    with tempfile.TemporaryDirectory() as folder:  # ssl loads keys from files only
        write(credentials, Path(folder))
        context.load_cert_chain(Path(folder, CERT_FILE), Path(folder, KEY_FILE))


def _verdict(tls: ssl.SSLSocket, address: str, credentials: Credentials) -> str:
    """Wait for the first frame: a gRPC server sends its HTTP/2 settings at once, unasked."""
    try:
        if tls.recv(1):
            return ""
    except TimeoutError:
        return f"the server at {address} finished the handshake but sent no HTTP/2 settings. Is it a gRPC server?"
    except ssl.SSLError as exc:
        return _refused(_alert(exc), credentials)
    except ConnectionError:
        pass  # a reset says no more than a close
    return _refused("", credentials)


def _refused(said: str, credentials: Credentials) -> str:
    """Join the server's alert and what this machine can see itself."""
    own = _own_problem(credentials)
    if said or own:
        return "the server refused this site's certificate: " + "; ".join(filter(None, (said, own)))
    return (
        "the server refused this site's certificate: it closed the connection without a reason, and the certificate is "
        "in order as seen from here. Compare the two machines' clocks, and see the server's log."
    )


def _own_problem(credentials: Credentials) -> str:
    return " ".join(problems(credentials, datetime.now(UTC), None))


def _handshake_failure(exc: OSError, address: str, server_name: str, dates: Callable[[], str]) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        if exc.verify_code in (_EXPIRED, _NOT_YET_VALID):
            return (
                f"the server's own certificate is not valid now: {exc.verify_message}{dates()}. "
                "Have a new one issued to the server, or set this machine's clock."
            )
        if exc.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
            return (
                f"the server's own certificate does not carry the name {server_name!r}: {exc.verify_message}. "
                "Check the address; it may be another server."
            )
        return (
            f"the server's own certificate is not signed by this job's authority: {exc.verify_message}. "
            "Check the address and the job: it may be another job's server, or a proxy that opens TLS."
        )
    if isinstance(exc, TimeoutError):
        return f"the server at {address} accepts connections but does not answer a TLS handshake. Check that it is up."
    if isinstance(exc, ssl.SSLEOFError | ConnectionError):
        return (
            f"{address} closed the connection in the middle of the TLS handshake. "
            "Something is there, but not this job's server: perhaps a proxy or gateway that knows no such server."
        )
    if isinstance(exc, ssl.SSLError):
        return f"the TLS handshake with {address} failed: {_alert(exc)}. Check that it is this job's server."
    return f"the connection to {address} failed: {_reason(exc)}."


def _dates(context: ssl.SSLContext, address: str, server_name: str, timeout_seconds: float) -> str:
    """From when to when the server's certificate is valid, once it was not accepted. Nothing is sent, nothing else believed."""
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout_seconds) as connection,
            context.wrap_socket(connection, server_hostname=server_name) as tls,
        ):
            shown = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return ""
    begin, end = shown.not_valid_before_utc, shown.not_valid_after_utc
    return f" (valid from {begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ})"


def _alert(exc: ssl.SSLError) -> str:
    """OpenSSL spells an alert SSLV3_ALERT_X or TLSV1_ALERT_X or TLSV13_ALERT_X."""
    name = (exc.reason or "").partition("_ALERT_")[2]
    return _ALERTS.get(name) or (name or exc.reason or str(exc)).lower().replace("_", " ")


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "connection timed out"
    return (getattr(exc, "strerror", None) or str(exc)).lower()
