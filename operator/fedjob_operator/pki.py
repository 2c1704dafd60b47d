"""The hub's certificate authority, and the certificates of jobs and sites: names and dates in, Secrets out.

One authority for the whole hub, in a Secret of the operator's own namespace. Who a certificate speaks for is in its URI SAN, job by
job (`fedjob.identity`), so a certificate of one job opens nothing in another. The hub itself holds the reserved UID `hub`, which no
Kubernetes object can have.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from fedjob import identity

from . import names
from .observed import Certificate, Raw
from .plan import Issue, Manifest
from .trust import Trust

SECRET_NAME = "fedjob-authority"
HUB_UID = "hub"
_KEY, _CERT, _CA = "tls.key", "tls.crt", "ca.crt"


@dataclass(frozen=True)
class Authority:
    """The hub's authority with its key. bundle: PEM of all that is trusted, the signing one first."""

    trust_domain: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    bundle: bytes

    @property
    def trust(self) -> Trust:
        """What decisions may know of it."""
        return Trust(fingerprint(self.certificate), self.bundle.decode())

    def issue(
        self, job_uid: str, site: str | None, dns_names: tuple[str, ...], now: datetime, life: timedelta
    ) -> identity.Credentials:
        """A fresh key and certificate for a job's server (site None) or one of its sites."""
        authority = identity.Authority(self.trust_domain, job_uid, self.certificate, self.key)
        who = authority.server() if site is None else authority.site(site)
        made = identity.issue(authority, who, now=now, lifetime=life, dns_names=dns_names)
        return identity.Credentials(made.key_pem, made.cert_pem, self.bundle)


def create(trust_domain: str, now: datetime, life: timedelta) -> Authority:
    """A new authority."""
    made = identity.create_authority(HUB_UID, now=now, lifetime=life, trust_domain=trust_domain)
    return Authority(trust_domain, made.certificate, made.key, made.certificate.public_bytes(Encoding.PEM))


def to_secret(authority: Authority, namespace: str) -> Manifest:
    """The Secret that keeps the authority."""
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = authority.certificate.public_bytes(Encoding.PEM)
    return {
        "apiVersion": names.SECRET.api_version,
        "kind": names.SECRET.name,
        "metadata": {"name": SECRET_NAME, "namespace": namespace, "labels": {names.MANAGED_BY: names.MANAGER}},
        "type": "kubernetes.io/tls",
        "data": encoded({_KEY: key, _CERT: certificate, _CA: authority.bundle}),
    }


def from_secret(raw: Raw, trust_domain: str) -> Authority:
    """The authority in a Secret. Raises ValueError if it holds none."""
    data = {key: base64.b64decode(value) for key, value in (raw.get("data") or {}).items()}
    try:
        certificate = x509.load_pem_x509_certificate(data[_CERT])
        key = load_pem_private_key(data[_KEY], password=None)
    except (KeyError, ValueError, TypeError) as e:
        raise ValueError(
            f"Secret {raw['metadata']['name']} holds no authority ({type(e).__name__}): restore it from a backup, or delete it "
            "to make a new one, with which running jobs must start again"
        ) from None  # the parser's words may quote the key
    if not isinstance(key, ec.EllipticCurvePrivateKey):  # wrong data, not a wrong call
        raise ValueError(  # noqa: TRY004
            f"Secret {raw['metadata']['name']}: the key of the authority is not an elliptic-curve key"
        )
    return Authority(trust_domain, certificate, key, data.get(_CA, data[_CERT]))


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
    authorities = x509.load_pem_x509_certificates(bundle_pem)
    issuer = next((a for a in authorities if _key_id(a) == _authority_key_id(certificate)), None)
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


def _key_id(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _authority_key_id(certificate: x509.Certificate) -> bytes | None:
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
