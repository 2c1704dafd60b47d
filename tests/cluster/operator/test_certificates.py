"""Certificates of seconds on a real control plane: renewed by themselves, and the authority exchanged, under pods that look late."""

from __future__ import annotations

import base64
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.kube import until
from fedjob import identity
from fedjob.config import Report
from fedjob.identity import Credentials
from fedjob.progress_push import push
from fedjob.records import JobRef, Progress, Status
from fedjob.tls import client_context, server_context
from fedjob_operator import names, pki
from fedjob_operator.names import CLIENT, SERVER

SYSTEM = "fedjob-system"
LIFE_SECONDS = 30.0  # of a certificate; renewed after 17 to 23
LATE_SECONDS = 2.0  # how long a pod takes to look at its Secret again
_SOON = timedelta(seconds=1)
SHORT = ("--certificate-seconds", str(LIFE_SECONDS))


@dataclass
class Pod:
    """A process that reads its Secret now and then."""

    kube: Any
    namespace: str
    secret: str
    held: Credentials | None = None
    _looked: float = -LATE_SECONDS

    def look(self) -> Credentials:
        """What it holds; what the Secret has, if it is time to look again."""
        if time.monotonic() - self._looked >= LATE_SECONDS:
            self._looked = time.monotonic()
            self.held = until(f"the Secret {self.secret}", self._read)
        assert self.held is not None
        return self.held

    def _read(self) -> Credentials | None:
        raw = self.kube.get(names.SECRET, self.namespace, self.secret)
        return credentials_of(raw) if raw else None

    @property
    def certificate(self) -> x509.Certificate:
        """The one that it holds."""
        return x509.load_pem_x509_certificate(self.look().cert_pem)


def credentials_of(raw: Any) -> Credentials:
    data = {name: base64.b64decode(raw["data"][name]) for name in ("tls.key", "tls.crt", "ca.crt")}
    return Credentials(data["tls.key"], data["tls.crt"], data["ca.crt"])


def handshake(server: Credentials, client: Credentials, host: str) -> None:
    """A whole handshake, both sides with what they hold. Raises SSLError if either does not trust the other."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context(client).wrap_bio(down, up, server_hostname=host),
        server_context(server).wrap_bio(up, down, server_side=True),
    ]
    left = list(ends)
    for _ in range(10):
        for end in list(left):
            try:
                end.do_handshake()
                left.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not left, "the handshake does not end"


@dataclass
class World:
    """A job with its pods, looked at again and again: whoever runs trusts whom it must, at every moment."""

    kube: Any
    job: Any
    operator: Any
    folder: Path
    server: Pod = field(init=False)
    clients: list[Pod] = field(init=False)
    ready: set[tuple[str, str]] = field(default_factory=set)
    handshakes: int = 0
    _told: float = 0.0

    def __post_init__(self) -> None:
        uid = self.job.raw["metadata"]["uid"]
        self.server = Pod(self.kube, self.job.namespace, names.base(self.job.name, uid))
        sites = [site["name"] for site in self.job.raw["spec"]["sites"]]
        self.clients = [Pod(self.kube, self.job.namespace, names.site_job(self.job.name, uid, s)) for s in sites]

    def moment(self) -> None:
        """One look at everything."""
        host = names.service_host(self.server.secret, self.job.namespace)
        server = self.server.look()
        for held in [client.look() for client in self.clients]:
            # Where no operator was alive for long, one may have ended: whatever happens then is no matter of trust.
            if datetime.now(UTC) < min(map(identity.not_after, (server.cert_pem, held.cert_pem))) - _SOON:
                handshake(server, held, host)
                self.handshakes += 1
        self.ready.add(self.job.condition("CertificatesReady"))
        if time.monotonic() - self._told > 1.5:
            self.report(self.server.look())
            self._told = time.monotonic()  # one report a second, however long this one took

    def report(self, credentials: Credentials) -> None:
        """The job's server tells the hub of its progress. Raises OSError, ValueError."""
        identity.write(credentials, self.folder)
        where = f"/v1alpha1/namespaces/{self.job.namespace}/federatedjobs/{self.job.name}/progress"
        report = Report(url=f"https://127.0.0.1:{self.operator.reports}{where}", server_name="hub.test")
        job = JobRef(self.job.name, self.job.raw["metadata"]["uid"], 1)
        push(report, self.folder, Status(job=job, state="Running", progress=Progress(1, 1, 3)))

    def until(self, what: str, found: Any, seconds: float = 4 * LIFE_SECONDS) -> None:
        """Look again and again until `found`."""

        def seen() -> bool:
            self.moment()
            return bool(found())

        until(what, seen, seconds)

    @property
    def authority(self) -> Any:
        """The authority's Secret."""
        return self.kube.get(names.SECRET, SYSTEM, pki.SECRET_NAME)

    @property
    def phase(self) -> str:
        """Of its rotation."""
        data = self.authority["data"]
        return "Introduced" if "next.crt" in data else "Signing" if "previous.crt" in data else "Stable"

    @property
    def signer(self) -> bytes:
        """The authority that signs, as PEM."""
        return base64.b64decode(self.authority["data"]["tls.crt"])

    def scraped(self, series: str) -> bool:
        """Whether the operator tells this."""
        return series in self.operator.scrape()


@pytest.fixture
def world(admin: Any, start_operator: Any, submit: Any, kubelet: Any, tmp_path: Path) -> World:
    operator = start_operator(*SHORT)
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    return World(admin, job, operator, tmp_path / "keys")


@pytest.mark.timeout(300)
def test_certificates_are_renewed_and_nobody_notices(world: World) -> None:
    pods = [world.server, *world.clients]
    world.moment()
    first = [pod.certificate for pod in pods]
    world.until("two renewals", lambda: all(pod.certificate.not_valid_before_utc > at + timedelta(seconds=LIFE_SECONDS)
                                            for pod, at in zip(pods, (c.not_valid_before_utc for c in first), strict=True)))  # fmt: skip
    assert world.ready == {("True", "Issued")}
    assert len({c.serial_number for c in (*first, *(pod.certificate for pod in pods))}) == 2 * len(pods)
    assert 'fedjob_certificate_not_after_timestamp_seconds{role="server"}' in world.operator.scrape()


@pytest.mark.timeout(300)
def test_the_authority_is_exchanged_on_request_and_through_the_death_of_an_operator(
    world: World, start_operator: Any
) -> None:
    before = pki.from_secret(world.authority, "fedjob.local")
    ask(world, f"by-a-test-{datetime.now(UTC):%H%M%S%f}")
    world.until("the next authority", lambda: world.phase == "Introduced" and events(world))
    assert world.signer == before.current.pem, "the old one signs until everybody trusts the new one"
    world.operator.kill()
    world.operator = start_operator(*SHORT, identity="replica-2")
    until("the other replica", lambda: "fedjob_operator_leader 1.0" in world.operator.scrape())
    world.until("the new one to sign", lambda: world.phase == "Signing")
    new = world.signer
    assert new != before.current.pem
    assert new == x509.load_pem_x509_certificate(new).public_bytes(Encoding.PEM)
    world.until("its series", lambda: world.scraped('fedjob_authority_rotation{phase="Signing"} 1.0'))
    world.until("the old one to go", lambda: world.phase == "Stable")
    pods = [world.server, *world.clients]
    world.until("Secrets without it", lambda: all(pod.look().ca_pem == new for pod in pods))
    for pod in pods:
        pod.certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(new))
    assert world.handshakes > LIFE_SECONDS
    assert [e["reason"] for e in events(world)] == ["AuthorityIntroduced", "AuthoritySigns", "AuthorityDropped"]
    _is_worth_nothing(world, before)
    _no_key_shows(world, before)


def ask(world: World, value: str) -> None:
    """Somebody asks for a rotation."""
    metadata = {"annotations": {names.ROTATE_ANNOTATION: value}}
    world.kube.patch(names.SECRET, SYSTEM, pki.SECRET_NAME, {"metadata": metadata})


def events(world: World) -> list[Any]:
    """Of the authority's Secret, in the order of their versions."""
    found = [e for e in world.kube.list(names.EVENT, SYSTEM) if e["involvedObject"]["name"] == pki.SECRET_NAME]
    return sorted(found, key=lambda e: int(e["metadata"]["resourceVersion"]))


def _is_worth_nothing(world: World, old: pki.Authority) -> None:
    """Whoever has the old key can no longer pose as a job's server; the hub's endpoint was not restarted for that."""
    uid = world.job.raw["metadata"]["uid"]
    forged = old.issue(uid, None, ("x.svc",), datetime.now(UTC), timedelta(hours=1))
    ours = world.server.look()
    with pytest.raises(OSError):  # noqa: PT011 - TLS says it in several ways
        world.report(Credentials(forged.key_pem, forged.cert_pem, ours.ca_pem))
    world.moment()


def _no_key_shows(world: World, old: pki.Authority) -> None:
    assert base64.b64encode(old.current.key_pem).decode() not in str(world.authority), "the old key is gone"
    log = world.operator.log.read_text()
    told = str([world.job.raw, *events(world), *world.kube.list(names.CONFIG_MAP, world.job.namespace)])
    for text in (log, told):
        assert "PRIVATE KEY" not in text
        assert base64.b64encode(b"-----BEGIN PRIVATE").decode()[:16] not in text


def test_an_authority_whose_secret_is_deleted_is_put_back(world: World) -> None:
    signer = world.signer
    world.kube.delete(names.SECRET, SYSTEM, pki.SECRET_NAME)
    world.until("the Secret", lambda: world.kube.get(names.SECRET, SYSTEM, pki.SECRET_NAME))
    assert world.signer == signer
