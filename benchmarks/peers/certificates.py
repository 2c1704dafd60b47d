"""A certificate authority and a server certificate for 127.0.0.1, made for one run of a peer."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    ca: Path
    certificate: Path
    key: Path


def issue(folder: Path) -> Certificates:
    """Write a new authority's certificate, a server's certificate and its key into `folder`."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ])  # fmt: skip
    root = _builder("benchmark authority", authority, x509.BasicConstraints(ca=True, path_length=0))
    leaf = _builder("localhost", server, x509.BasicConstraints(ca=False, path_length=None))
    key = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificates(
        ca=_written(folder / "ca.crt", _pem(root.sign(authority, hashes.SHA256()))),
        certificate=_written(
            folder / "tls.crt", _pem(leaf.add_extension(names, critical=False).sign(authority, hashes.SHA256()))
        ),
        key=_written(folder / "tls.key", key),
    )


def _builder(name: str, key: ec.EllipticCurvePrivateKey, basic: x509.BasicConstraints) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark authority")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(basic, critical=True)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _written(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path
