"""What real gRPC servers do with certificates, and what `diagnose` and `log_refusals` make of it."""

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedjob import identity
from fedjob.identity import Authority, Credentials, create_authority, issue, write
from fedjob.tls import SERVER_ENVIRONMENT, diagnose, look_up

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
EPHEMERAL = "127.0.0.1:0"

OURS = create_authority("job-1", now=NOW - 9 * DAY, lifetime=30 * DAY)
FOREIGN = create_authority("job-2", now=NOW - 9 * DAY, lifetime=30 * DAY)
IMPOSTOR = create_authority("job-1", now=NOW - 9 * DAY, lifetime=30 * DAY)


def site_of(authority: Authority, now: datetime = NOW) -> Credentials:
    """A site's credentials that trust OURS, whoever issued the certificate."""
    issued = issue(authority, authority.site("a"), now=now, lifetime=DAY)
    return replace(issued, ca_pem=SERVER.ca_pem)


def server_of(authority: Authority, now: datetime = NOW) -> Credentials:
    return issue(authority, authority.server(), now=now, lifetime=DAY, dns_names=["localhost"])


SERVER = server_of(OURS)
with patch.dict(identity._ROLE_USAGE, {"server": (ExtendedKeyUsageOID.SERVER_AUTH,)}):
    NO_CLIENT = server_of(OURS)  # ours may call its hub


class WhoAmI(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """Answers every call with the URI SAN that TLS has verified."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Handle a call of any name."""

        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            (uri,) = context.auth_context()["peer_spiffe_id"]
            assert isinstance(uri, bytes)
            return uri

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def serving(credentials: Credentials) -> Iterator[str]:
    """A gRPC server in this process that requires a client certificate of OURS; yields its address."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=[WhoAmI()])
    pair = [(credentials.key_pem, credentials.cert_pem)]
    port = server.add_secure_port(EPHEMERAL, grpc.ssl_server_credentials(pair, SERVER.ca_pem, True))
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(SERVER) as at:
        yield at


def call(address: str, credentials: Credentials) -> str:
    """The server's answer, or the client's error."""
    tls = grpc.ssl_channel_credentials(credentials.ca_pem, credentials.key_pem, credentials.cert_pem)
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(address, tls, options) as channel:
        try:
            return bytes(channel.unary_unary("/who/am-i")(b"", timeout=10)).decode()
        except grpc.RpcError as error:
            return str(error.details())


# What gRPC itself says


def test_the_server_sees_the_name_in_the_callers_certificate(address: str) -> None:
    assert call(address, site_of(OURS)) == "spiffe://fedjob.local/job/job-1/site/a"


REFUSED = [
    pytest.param(site_of(FOREIGN), id="of a foreign authority"),
    pytest.param(site_of(IMPOSTOR), id="of an authority with our name and another key"),
    pytest.param(site_of(OURS, NOW - 3 * DAY), id="that has expired"),
    pytest.param(site_of(OURS, NOW + 3 * DAY), id="that is not valid yet"),
    pytest.param(NO_CLIENT, id="not for a client"),
]


@pytest.mark.parametrize("credentials", REFUSED)
def test_grpc_tells_the_client_nothing_about_a_refused_certificate(address: str, credentials: Credentials) -> None:
    # The day this fails, gRPC says more, and `diagnose` may be needed less.
    assert call(address, credentials).endswith("Socket closed")


def test_a_site_cannot_pose_as_the_server() -> None:
    with serving(site_of(OURS)) as at:
        assert "unsupported certificate purpose" in call(at, site_of(OURS))


# What `diagnose` says


def test_a_good_certificate_and_a_good_server_need_no_diagnosis(address: str) -> None:
    assert diagnose(address, site_of(OURS), "localhost") == ""


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        pytest.param(site_of(FOREIGN), r"names CN=job-2,O=fedjob as its issuer .* \(CN=job-1,O=fedjob\)", id="foreign"),
        pytest.param(site_of(IMPOSTOR), r"was not signed by the authority in ca\.crt", id="impostor"),
        pytest.param(site_of(OURS, NOW - 3 * DAY), r"the certificate expired at \d{4}-.*Z \(notAfter\)", id="expired"),
        pytest.param(site_of(OURS, NOW + 3 * DAY), r"is not valid before \d{4}-.*Z \(notBefore\)", id="not valid yet"),
    ],
)
def test_a_refused_certificate_is_explained(address: str, credentials: Credentials, why: str) -> None:
    said = diagnose(address, credentials, "localhost")
    assert said.startswith("the server refused this site's certificate: the certificate ")
    assert re.search(why, said)


def test_a_refusal_that_cannot_be_seen_from_here_points_at_the_other_machine(address: str) -> None:
    # The site takes both authorities for good; the server does not.
    credentials = site_of(FOREIGN)
    said = diagnose(address, replace(credentials, ca_pem=credentials.ca_pem + server_of(FOREIGN).ca_pem), "localhost")
    assert said == (
        "the server refused this site's certificate: it closed the connection without a reason, and the certificate is "
        "in order as seen from here. Compare the two machines' clocks, and see the server's log."
    )


@pytest.mark.parametrize(
    ("server", "why"),
    [
        pytest.param(server_of(FOREIGN), "is not signed by this job's authority: ", id="a server of another authority"),
        pytest.param(server_of(IMPOSTOR), "is not signed by this job's authority: ", id="an impostor of ours"),
        pytest.param(
            server_of(OURS, NOW - 3 * DAY),
            r"is not valid now: certificate has expired \(valid from \d{4}-\S+Z to \d{4}-\S+Z\)\. Have",
            id="an expired one",
        ),
    ],
)
def test_a_server_with_a_wrong_certificate_is_told_apart(server: Credentials, why: str) -> None:
    with serving(server) as at:
        assert re.match(f"the server's own certificate {why}", diagnose(at, site_of(OURS), "localhost"))


def test_when_the_certificates_of_both_sides_have_expired_both_are_named() -> None:
    with serving(server_of(OURS, NOW - 3 * DAY)) as at:
        said = diagnose(at, site_of(OURS, NOW - 4 * DAY), "localhost")
    assert said.startswith("the server's own certificate is not valid now: certificate has expired (valid from ")
    assert "And of this site's own certificate: the certificate expired at " in said


def test_a_server_of_another_name_is_told_apart(address: str) -> None:
    said = diagnose(address, site_of(OURS), "elsewhere.example")
    assert said.startswith("the server's own certificate does not carry the name 'elsewhere.example': ")


def test_nobody_listening_is_told_apart() -> None:
    with socket.socket() as bound:  # bound but not listening: the port is ours, and refuses
        bound.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{bound.getsockname()[1]}"
        assert diagnose(at, site_of(OURS), "localhost") == (
            f"server not reachable at {at}: connection refused. Check the address, the network and that it runs."
        )


def test_an_address_that_cannot_be_dialled_is_named() -> None:
    assert diagnose("localhost", site_of(OURS), "localhost") == (
        "the server's address 'localhost' is not of the form host:port."
    )
    unknown = diagnose("no-such-host.invalid:1", site_of(OURS), "localhost")
    assert unknown.startswith("the name of the server, no-such-host.invalid, is not resolved yet: ")
    assert diagnose("localhost:99999", site_of(OURS), "localhost").startswith("server not reachable at localhost:99999")


def test_a_name_is_looked_up_and_one_that_is_unknown_is_told() -> None:
    slow: list[str] = []
    assert (
        look_up("localhost:1", slow.append)
        == look_up("[::1]:1", slow.append)
        == look_up("127.0.0.1:1", slow.append)
        == ""
    )
    assert slow == []
    assert look_up("no-such-host.invalid:1", slow.append).startswith(
        "the name of the server, no-such-host.invalid, is not"
    )


def test_credentials_that_cannot_be_loaded_are_reported_before_dialling() -> None:
    mixed = replace(site_of(OURS), key_pem=site_of(OURS).key_pem)
    assert diagnose("localhost:1", mixed, "localhost").startswith("tls.key is not the key of the certificate")
    assert "not readable as PEM" in diagnose("localhost:1", replace(mixed, ca_pem=b""), "localhost")


# Peers other than gRPC, played by one accepted socket each


@contextmanager
def accepting(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def server_context(tmp_path: Path) -> ssl.SSLContext:
    write(SERVER, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    context.load_verify_locations(tmp_path / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        pytest.param(site_of(OURS, NOW - 3 * DAY), "certificate expired; the certificate expired at", id="expired"),
        pytest.param(site_of(FOREIGN), "unknown certificate authority; the certificate names CN=job-2", id="foreign"),
    ],
)
def test_an_alert_is_read_where_the_server_sends_one(tmp_path: Path, credentials: Credentials, said: str) -> None:
    def refuse(connection: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            server_context(tmp_path).wrap_socket(connection, server_side=True)

    with accepting(refuse) as at:
        assert diagnose(at, credentials, "localhost").startswith(f"the server refused this site's certificate: {said}")


def test_a_peer_that_hangs_up_at_once_is_not_taken_for_the_server() -> None:
    with accepting(lambda connection: connection.close()) as at:
        assert "in the middle of the TLS handshake" in diagnose(at, site_of(OURS), "localhost")


def test_a_peer_that_does_not_speak_tls_is_not_taken_for_the_server() -> None:
    with accepting(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 99)) as at:
        assert diagnose(at, site_of(OURS), "localhost").startswith(f"the TLS handshake with {at} failed: ")


def test_a_peer_that_never_answers_is_given_up_after_the_timeout() -> None:
    with accepting(lambda connection: drain(connection)) as at:
        said = diagnose(at, site_of(OURS), "localhost", timeout_seconds=0.2)
    assert said.startswith(f"the server at {at} accepts connections but does not answer a TLS handshake")


def drain(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


# A server in a process of its own: C core reads the environment once

PROGRAM = """
import logging, sys
from pathlib import Path
from fedjob.identity import read
if "log" in sys.argv:
    from fedjob.refusals import log_refusals
    log_refusals(logging.getLogger("fedjob"))
    logging.basicConfig(format="%(levelname)s %(message)s: %(peer)s: %(reason)s")
import os
from concurrent.futures import ThreadPoolExecutor
import grpc
mine = read(Path(sys.argv[1]))
server = grpc.server(ThreadPoolExecutor(1))
pair = [(mine.key_pem, mine.cert_pem)]
print(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair, mine.ca_pem, True)), flush=True)
server.start()
sys.stdin.read()
os.write(2, b"written by C code\\n")
print("written by Python", file=sys.stderr)
"""


@contextmanager
def process(folder: Path, *arguments: str, **environment: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    write(SERVER, folder)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=inherited | environment,
        text=True,
    )
    with child:
        assert child.stdout is not None
        try:
            yield f"127.0.0.1:{child.stdout.readline().strip()}", child
        finally:
            child.kill()


def agreed_version(address: str, folder: Path, version: ssl.TLSVersion) -> str | None:
    """The TLS version that the server speaks with a client that offers only `version`; None if it hangs up."""
    write(site_of(OURS), folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(folder / "ca.crt")
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.set_alpn_protocols(["h2"])
    host, port = address.split(":")
    try:
        with (
            socket.create_connection((host, int(port)), 10) as connection,
            context.wrap_socket(connection, server_hostname="localhost") as tls,
        ):
            return tls.version() if tls.recv(1) else None
    except (ssl.SSLError, ConnectionError):
        return None


@pytest.mark.parametrize(
    ("environment", "tls12"),
    [
        pytest.param({}, "TLSv1.2", id="without the setting, TLS 1.2 is accepted"),
        pytest.param(SERVER_ENVIRONMENT, None, id="with the setting, TLS 1.2 is refused"),
    ],
)
def test_the_environment_leaves_tls_13_alone(tmp_path: Path, environment: dict[str, str], tls12: str | None) -> None:
    with process(tmp_path / "server", **environment) as (address, _):
        assert agreed_version(address, tmp_path / "site", ssl.TLSVersion.TLSv1_2) == tls12
        assert agreed_version(address, tmp_path / "site", ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


@pytest.mark.parametrize(
    ("environment", "peer"),
    [
        pytest.param({}, r"unknown", id="without the tracer, the peer is unknown"),
        pytest.param({"GRPC_TRACE": "handshaker"}, r"127\.0\.0\.1:\d+", id="with the tracer, by its address"),
    ],
)
def test_the_servers_log_says_who_was_refused_and_why(tmp_path: Path, environment: dict[str, str], peer: str) -> None:
    with process(tmp_path, "log", **SERVER_ENVIRONMENT, **environment) as (address, child):
        assert child.stdin is not None
        assert child.stderr is not None
        expected = [
            (site_of(OURS, NOW - 3 * DAY), "its certificate has expired; have a new one issued"),
            (site_of(OURS, NOW + 3 * DAY), "its certificate is not valid yet; compare the two machines' clocks"),
            (site_of(FOREIGN), "its certificate is not of this job's authority"),
            (site_of(IMPOSTOR), "its certificate is not of this job's authority"),
            (NO_CLIENT, "its certificate is not one for a client"),
        ]
        for credentials, sentence in expected:
            assert diagnose(address, credentials, "localhost") != ""
            assert re.match(f"WARNING connection from {peer} refused: {re.escape(sentence)}", child.stderr.readline())
        agreed_version(address, tmp_path / "site", ssl.TLSVersion.TLSv1_2)
        assert child.stderr.readline().endswith(": it does not speak TLS 1.3\n")
        assert diagnose(address, site_of(OURS), "localhost") == ""  # an accepted client leaves no line
        child.stdin.close()
        assert sorted(child.stderr.readlines()) == ["written by C code\n", "written by Python\n"]
