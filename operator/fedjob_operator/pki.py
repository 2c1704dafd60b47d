"""The hub's certificate authority, and the certificates of jobs and sites: names and dates in, Secrets out.

One authority for the whole hub, in a Secret of the operator's own namespace; while it is replaced, two (`desired.authority`). Who a certificate speaks for is in its URI SAN, job by
job (`fedjob.identity`), so a certificate of one job opens nothing in another. The hub itself holds the reserved UID `hub`, which no
Kubernetes object can have.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from fedjob import identity

from . import names
from .observed import Certificate, Raw, moment
from .plan import Issue, Manifest
from .trust import Authorities, Life, Trust

SECRET_NAME = "fedjob-authority"
HUB_UID = "hub"
_KEY, _CERT, _CA = "tls.key", "tls.crt", "ca.crt"
_NEXT_KEY, _NEXT_CERT, _PREVIOUS_CERT = "next.key", "next.crt", "previous.crt"


class NoAuthorityError(ValueError):
    """A Secret that should hold an authority holds none."""


@dataclass(frozen=True)
class Signer:
    """A certificate that signs others, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Authority:
    """The hub's authority with its keys. next: trusted, and not signing yet; previous: trusted still, its key is gone."""

    trust_domain: str
    current: Signer
    next: Signer | None = None
    previous: x509.Certificate | None = None

    @property
    def bundle(self) -> bytes:
        """PEM of all that is trusted, the signing one first."""
        next_pem = self.next.pem if self.next else b""
        previous_pem = self.previous.public_bytes(Encoding.PEM) if self.previous else b""
        return self.current.pem + next_pem + previous_pem

    @property
    def trust(self) -> Trust:
        """What decisions may know of it."""
        return Trust(fingerprint(self.current.certificate), self.bundle.decode())

    def issue(
        self, job_uid: str, site: str | None, dns_names: tuple[str, ...], now: datetime, life: timedelta
    ) -> identity.Credentials:
        """A fresh key and certificate for a job's server (site None) or one of its sites."""
        authority = identity.Authority(self.trust_domain, job_uid, self.current.certificate, self.current.key)
        who = authority.server() if site is None else authority.site(site)
        made = identity.issue(authority, who, now=now, lifetime=life, dns_names=dns_names)
        return identity.Credentials(made.key_pem, made.cert_pem, self.bundle)


def create(trust_domain: str, now: datetime, life: timedelta) -> Authority:
    """A new authority."""
    return Authority(trust_domain, _signer(trust_domain, now, life))


def introduce(authority: Authority, now: datetime, life: timedelta) -> Authority:
    """The same with a next one."""
    return replace(authority, next=_signer(authority.trust_domain, now, life))


def sign(authority: Authority) -> Authority:
    """The next one signs. The key of the one before is in nobody's hands any more."""
    assert authority.next is not None
    return replace(authority, current=authority.next, next=None, previous=authority.current.certificate)


def drop(authority: Authority) -> Authority:
    """The one before is no longer trusted."""
    return replace(authority, previous=None)


def to_secret(authority: Authority, namespace: str) -> Manifest:
    """The Secret that keeps the authority."""
    return {
        "apiVersion": names.SECRET.api_version,
        "kind": names.SECRET.name,
        "metadata": {"name": SECRET_NAME, "namespace": namespace, "labels": {names.MANAGED_BY: names.MANAGER}},
        "type": "kubernetes.io/tls",
        "data": secret_data(authority),
    }


def secret_data(authority: Authority) -> dict[str, str]:
    """What the Secret holds: the signing one and all that is trusted, as in every Secret of this type; and those beside it."""
    data = {_KEY: authority.current.key_pem, _CERT: authority.current.pem, _CA: authority.bundle}
    if authority.next is not None:
        data |= {_NEXT_KEY: authority.next.key_pem, _NEXT_CERT: authority.next.pem}
    if authority.previous is not None:
        data[_PREVIOUS_CERT] = authority.previous.public_bytes(Encoding.PEM)
    return encoded(data)


def from_secret(raw: Raw, trust_domain: str) -> Authority:
    """The authority in a Secret. Raises NoAuthorityError."""
    name, data = raw["metadata"]["name"], raw.get("data") or {}
    try:
        current = _read_signer(data[_KEY], data[_CERT])
        following = _read_signer(data[_NEXT_KEY], data[_NEXT_CERT]) if _NEXT_CERT in data else None
        previous = _certificate(data[_PREVIOUS_CERT]) if _PREVIOUS_CERT in data else None
    except (KeyError, ValueError, TypeError) as e:
        raise NoAuthorityError(
            f"Secret {name} holds no authority ({type(e).__name__}): restore it from a backup, or delete it "
            "while the operator is stopped, to have a new one made and everything issued anew"
        ) from None  # the parser's words may quote the key
    return Authority(trust_domain, current, following, previous)


def authorities(raw: Raw, authority: Authority) -> Authorities:
    """What decisions may know of the Secret that holds `authority`."""
    notes: Mapping[str, str] = raw["metadata"].get("annotations") or {}
    return Authorities(
        current=_life(authority.current.certificate),
        next=_life(authority.next.certificate) if authority.next else None,
        previous=_life(authority.previous) if authority.previous else None,
        followed_since=moment(notes.get(names.FOLLOWED_ANNOTATION)),
        asked=notes.get(names.ROTATE_ANNOTATION, ""),
        answered=notes.get(names.ROTATED_ANNOTATION, ""),
    )


def fill(issue: Issue, authority: Authority, now: datetime) -> tuple[Manifest, Certificate]:
    """The Secret that was asked for, and what is known of the certificate in it."""
    made = authority.issue(issue.job_uid, issue.site, issue.dns_names, now, issue.lifetime)
    present = describe(made.cert_pem, made.ca_pem)
    metadata = issue.manifest["metadata"]
    notes = {**metadata.get("annotations", {}), names.NOT_AFTER_ANNOTATION: f"{present.not_after:%Y-%m-%dT%H:%M:%SZ}"}
    data = encoded({_KEY: made.key_pem, _CERT: made.cert_pem, _CA: made.ca_pem})
    return {**issue.manifest, "metadata": {**metadata, "annotations": notes}, "data": data}, present


def read(raw: Raw) -> Certificate | None:
    """What is known of the certificate in a Secret; None if it holds none."""
    data: Mapping[str, str] = raw.get("data") or {}
    try:
        return describe(base64.b64decode(data[_CERT]), base64.b64decode(data[_CA]))
    except (KeyError, ValueError):
        return None


def describe(certificate_pem: bytes, bundle_pem: bytes) -> Certificate:
    """The facts that decide whether a certificate will do. Raises ValueError."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    trusted = x509.load_pem_x509_certificates(bundle_pem)
    issuer = next((a for a in trusted if _key_id(a) == _authority_key_id(certificate)), None)
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = san.get_values_for_type(x509.UniformResourceIdentifier)
    return Certificate(
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        names=tuple(san.get_values_for_type(x509.DNSName)),
        identity=uris[0] if len(uris) == 1 else "",
        issuer=fingerprint(issuer) if issuer is not None else "",
        bundle=names.digest(bundle_pem.decode(), 16),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """The first half of a certificate's SHA-256, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:32]


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    """Data of a Secret as JSON carries it."""
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


def _signer(trust_domain: str, now: datetime, life: timedelta) -> Signer:
    made = identity.create_authority(HUB_UID, now=now, lifetime=life, trust_domain=trust_domain)
    return Signer(made.certificate, made.key)


def _read_signer(key: str, certificate: str) -> Signer:
    found = Signer(_certificate(certificate), _private_key(key))
    if found.key.public_key() != found.certificate.public_key():
        raise ValueError("not the key of the certificate")
    return found


def _private_key(text: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(base64.b64decode(text), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return key


def _certificate(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(text))


def _life(certificate: x509.Certificate) -> Life:
    return Life(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _key_id(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _authority_key_id(certificate: x509.Certificate) -> bytes | None:
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
