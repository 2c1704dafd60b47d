"""Keys and certificates of a test's control plane, made anew for each."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LIFE = timedelta(days=30)  # a cluster that a person plays with may stand for a while

_HOSTS = ("127.0.0.1", "localhost", "10.96.0.1", "kubernetes.default.svc")
_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Authority:
    """The authority of a control plane, while its certificates are made."""

    key: _Key
    certificate: x509.Certificate

    def issue(self, folder: Path, name: str, hosts: Sequence[str] = (), *, subject: str = "", group: str = "") -> None:
        """Write NAME.crt and NAME.key. hosts: addresses and DNS names of a server; subject and group: who a client is."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(_name(subject or name, group), key, self, hosts)
        (folder / f"{name}.crt").write_bytes(made.public_bytes(Encoding.PEM))
        _write_key(folder / f"{name}.key", key)


def write(folder: Path, hosts: Sequence[str] = ()) -> Authority:
    """Write ca.crt, the server's server.crt and server.key, and accounts.key, which signs tokens; returns the authority for more.

    The API server is at the loopback and, from inside its cluster, at 10.96.0.1. hosts: its further addresses and names.
    caller.crt and caller.key are what it shows to kubelets.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    authority = Authority(key, _certificate(_name("test authority"), key, None))
    (folder / "ca.crt").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    authority.issue(folder, "server", (*_HOSTS, *hosts), subject="kube-apiserver")
    authority.issue(folder, "caller", subject="kube-apiserver", group="system:masters")
    _write_key(folder / "accounts.key", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    return authority


def _name(common: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate(
    subject: x509.Name, key: _Key, issuer: Authority | None, hosts: Sequence[str] = ()
) -> x509.Certificate:
    """A certificate for a server or client; for an authority if there is no issuer."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(h) for h in hosts]), critical=False)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def _write_key(path: Path, key: _Key | rsa.RSAPrivateKey) -> None:
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
