"""Who a process is: a job's certificate authority, the certificates it issues, and checks of both.

One authority per job, one certificate per process. A process is who the URI SAN of its certificate says:

    spiffe://<trust-domain>/job/<uid>/server        may serve, and report to the hub   (EKU serverAuth, clientAuth)
    spiffe://<trust-domain>/job/<uid>/site/<name>   may call its server, and only call (EKU clientAuth)

So a site's certificate cannot pose as the server, and a job's server admits sites only. Nothing here opens a connection or reads a
clock: dates come in, PEM comes out. What a live server thinks of a certificate is in `tls.py`.

SPIFFE-ID and X.509-SVID standards, github.com/spiffe/spiffe; RFC 5280 for the extensions.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import IdentityError
from .files import make_folder, sync_folder

TRUST_DOMAIN = "fedjob.local"
# Clocks of sites differ: a certificate is valid from this long before it is issued, or a tenth of its life if that is less.
CLOCK_SKEW = timedelta(minutes=5)

KEY_FILE, CERT_FILE, CA_FILE = "tls.key", "tls.crt", "ca.crt"  # names of a kubernetes.io/tls Secret
_FILES = (KEY_FILE, CERT_FILE, CA_FILE)
_MOUNTED = "..data"  # in a mounted Secret, the link to the folder that has its files now
_TRIES = 3

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # a DNS label: job UIDs and names of sites
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
# The first one is what the role cannot be without.
_ROLE_USAGE = {
    "server": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    "site": (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


@dataclass(frozen=True)
class Identity:
    """The server of a job (site is None) or one of its sites. Raises IdentityError for a part that no URI can hold."""

    trust_domain: str
    job_uid: str
    site: str | None

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise IdentityError(
                f"trust domain {self.trust_domain!r} is not 1 to 255 of a-z, 0-9, '.', '-', '_'. "
                f"Use one such as {TRUST_DOMAIN!r}."
            )
        for what, value in (("job uid", self.job_uid), ("site name", self.site)):
            if value is not None and not _LABEL.fullmatch(value):
                raise IdentityError(
                    f"{what} {value!r} is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', no '-' at either end."
                )

    @property
    def role(self) -> str:
        """Either "server" or "site"."""
        return "server" if self.site is None else "site"

    def __str__(self) -> str:
        who = "the server" if self.site is None else f"site {self.site}"
        return f"{who} of job {self.job_uid} ({self.trust_domain})"


def spiffe(identity: Identity) -> str:
    """Return the URI that stands for `identity` in a certificate; `parse_spiffe` is its inverse."""
    role = "server" if identity.site is None else f"site/{identity.site}"
    return f"spiffe://{identity.trust_domain}/job/{identity.job_uid}/{role}"


def parse_spiffe(uri: str) -> Identity:
    """Return the identity that `uri` spells, in exactly the form that `spiffe` writes.

    Raises IdentityError, which names the part that is wrong.
    """
    scheme, found, rest = uri.partition("://")
    if scheme != "spiffe" or not found:
        raise IdentityError(f"{uri!r} is not a SPIFFE URI: it must begin with spiffe://.")
    trust_domain, *path = rest.split("/")
    match path:
        case ["job", job_uid, "server"]:
            return Identity(trust_domain, job_uid, None)
        case ["job", job_uid, "site", site]:
            return Identity(trust_domain, job_uid, site)
    raise IdentityError(
        f"the path of {uri!r} names neither a server nor a site of a job: expected /job/<uid>/server "
        f"or /job/<uid>/site/<name>, got {'/' + '/'.join(path)}."
    )


@dataclass(frozen=True)
class Credentials:
    """What one process needs for mTLS, as PEM. ca_pem may hold several authorities, during a rotation."""

    key_pem: bytes = field(repr=False)
    cert_pem: bytes
    ca_pem: bytes


@dataclass(frozen=True)
class Authority:
    """The certificate authority of one job. Its key stays in this process's memory."""

    trust_domain: str
    job_uid: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def server(self) -> Identity:
        """Return the identity of the job's server."""
        return Identity(self.trust_domain, self.job_uid, None)

    def site(self, name: str) -> Identity:
        """Return the identity of the site called `name`."""
        return Identity(self.trust_domain, self.job_uid, name)


def create_authority(
    job_uid: str, *, now: datetime, lifetime: timedelta, trust_domain: str = TRUST_DOMAIN
) -> Authority:
    """Create the authority of a job: a fresh P-256 key and a certificate signed by itself.

    now: with a time zone. lifetime: of the authority, and so the longest of anything it issues.
    """
    server = Identity(trust_domain, job_uid, None)  # refuses names that no certificate could carry
    _require_positive(lifetime)
    key = ec.generate_private_key(ec.SECP256R1())
    # The UID is in the subject: authorities of two jobs differ by name, and an error can tell which one is meant.
    name = _subject(server.job_uid)
    builder = _builder(name, name, key.public_key(), now, now + lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(certificate_sign=True), critical=True)
    return Authority(trust_domain, job_uid, builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Authority,
    role: Identity,
    *,
    now: datetime,
    lifetime: timedelta,
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
) -> Credentials:
    """Issue a fresh key and certificate to the server (`authority.server()`) or a site (`authority.site(name)`).

    lifetime: cut short at the end of the authority, after which the certificate would be worth nothing.
    dns_names, ip_addresses: what clients dial; the server needs at least one, a site has none.
    Raises IdentityError for a role of another job, or names that do not fit the role.
    """
    _require_positive(lifetime)
    if (role.trust_domain, role.job_uid) != (authority.trust_domain, authority.job_uid):
        raise IdentityError(f"the authority of {authority.server()} cannot issue a certificate to {role}.")
    if (role.site is None) != bool(dns_names or ip_addresses):
        raise IdentityError(f"{role} got addresses {[*dns_names, *ip_addresses]}: a server needs one, a site has none.")
    key = ec.generate_private_key(ec.SECP256R1())
    not_after = min(now + lifetime, authority.certificate.not_valid_after_utc)
    subject = _subject(role.site or "server")
    builder = _builder(subject, authority.certificate.subject, key.public_key(), now, not_after)
    san = [
        x509.UniformResourceIdentifier(spiffe(role)),
        *(x509.DNSName(name) for name in dns_names),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in ip_addresses),
    ]
    authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    # EKU and SAN stay non-critical as RFC 5280 has it where the subject is not empty; TLS stacks enforce both anyway.
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage(_ROLE_USAGE[role.role]), False),
        (x509.SubjectAlternativeName(san), False),
        (authority_key_id, False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Credentials(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.public_bytes(Encoding.PEM),
        authority.certificate.public_bytes(Encoding.PEM),
    )


def write(credentials: Credentials, folder: Path) -> None:
    """Write tls.key, tls.crt and ca.crt to `folder` (created; mode 0700), each whole or not at all, mode 0600."""
    make_folder(folder, 0o700)
    folder.chmod(0o700)  # it may have been there, with a looser mode
    _replace(folder / KEY_FILE, credentials.key_pem)
    _replace(folder / CERT_FILE, credentials.cert_pem)
    _replace(folder / CA_FILE, credentials.ca_pem)
    sync_folder(folder)


def read(folder: Path) -> Credentials:
    """Read what `write` wrote, or a mounted Secret. Raises IdentityError naming the file that cannot be read.

    The files of a mounted Secret are of one issue: a new one is a new folder, and the link `..data` goes over to it at once.
    """
    tries = _TRIES
    while True:
        tries -= 1
        try:
            with _opened(folder) as place:
                return Credentials(*(_content(place, name) for name in _FILES))
        except OSError as exc:
            if tries:
                continue  # the folder went away under our hands: there is a newer one
            where = folder / exc.filename if exc.filename in _FILES else exc.filename
            raise IdentityError(
                f"cannot read {where}: {exc.strerror}. The folder must hold {KEY_FILE}, {CERT_FILE} and {CA_FILE}."
            ) from exc


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The folder that has the files now: it stays that one, wherever the link goes meanwhile."""
    mounted = folder / _MOUNTED
    descriptor = os.open(mounted if mounted.exists() else folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(place: int, name: str) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=place), "rb") as file:
        return file.read()


def not_after(certificate_pem: bytes) -> datetime:
    """When a certificate ends. Raises ValueError if this is none."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc


def problems(credentials: Credentials, now: datetime | None, expect: Identity | None) -> list[str]:
    """Return what is wrong with a process's own certificate, a sentence with its remedy each; [] if it will do.

    now: with a time zone; None: whatever the time is. expect: who the process is, if it knows; None accepts any server or site.
    """
    try:
        return _found(credentials, now, expect)
    except _UNREADABLE as exc:
        # The parser's own words may quote bytes of the key: only their kind is repeated.
        return [
            f"one of {KEY_FILE}, {CERT_FILE} and {CA_FILE} is not readable as PEM ({type(exc).__name__}). Write them again."
        ]


def _found(credentials: Credentials, now: datetime | None, expect: Identity | None) -> list[str]:
    """See `problems`. A certificate is parsed as it is looked at: each look may raise _UNREADABLE."""
    certificate = x509.load_pem_x509_certificate(credentials.cert_pem)
    authorities = x509.load_pem_x509_certificates(credentials.ca_pem)
    key = load_pem_private_key(credentials.key_pem, password=None)
    at = now or certificate.not_valid_before_utc
    found = [*_date_problems(certificate, at), *_issuer_problems(certificate, authorities, at)]
    if key.public_key().public_bytes(*_SPKI) != certificate.public_key().public_bytes(*_SPKI):
        found.append(
            f"{KEY_FILE} is not the key of the certificate in {CERT_FILE}. Take both from the same issue; "
            "if they are being replaced right now, read them again."
        )
    return [*found, *_identity_problems(certificate, expect)]


def misfits(credentials: Credentials, expect: Identity | None) -> list[str]:
    """As `problems`, whatever the time is: what no waiting and no clock will mend."""
    return problems(credentials, None, expect)


def admit(
    peer_spiffe: str | None, job_uid: str, roster: Collection[str], *, trust_domain: str = TRUST_DOMAIN
) -> Identity:
    """Return the identity of a site that called this job's server.

    peer_spiffe: the one URI SAN of the certificate that TLS has verified, None if it has none or several.
    roster: names of the job's sites. Raises IdentityError saying why the caller is not one of them.
    """
    if peer_spiffe is None:
        raise IdentityError(
            "the caller's certificate does not carry exactly one URI SAN, so it names nobody. "
            "Use the certificate that was issued to the site for this job."
        )
    caller = parse_spiffe(peer_spiffe)
    if (caller.trust_domain, caller.job_uid) != (trust_domain, job_uid):
        raise IdentityError(
            f"the caller is {caller}, and this is the server of job {job_uid} ({trust_domain}). "
            "Use the certificate that was issued to the site for this job."
        )
    if caller.site is None:
        raise IdentityError(f"the caller is {caller}, which is not a site. Only sites call the server.")
    if caller.site not in roster:
        raise IdentityError(
            f"the caller is {caller}, and the job has no such site; it has {_few(roster)}. Add the site to spec.sites."
        )
    return caller


_SPKI = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType,
)  # fmt: skip


def _date_problems(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        ago = timedelta(seconds=(now - end) // timedelta(seconds=1))  # whole seconds
        yield (
            f"the certificate expired at {_utc(end)} (notAfter), {ago} ago by this machine's clock "
            f"({_utc(now)}). Have a new one issued, or set the clock if it is wrong."
        )
    if now < start:
        yield (
            f"the certificate is not valid before {_utc(start)} (notBefore), and this machine's clock says {_utc(now)}. "
            "Set the clock if it is wrong, or wait."
        )


def _issuer_problems(
    certificate: x509.Certificate, authorities: Sequence[x509.Certificate], now: datetime
) -> Iterator[str]:
    issuers = [authority for authority in authorities if _issued_by(certificate, authority)]
    if not issuers:
        subjects = "; ".join(authority.subject.rfc4514_string() for authority in authorities)
        yield (
            f"the certificate names {certificate.issuer.rfc4514_string()} as its issuer and was not signed by the "
            f"authority in {CA_FILE} ({subjects}). Take {CERT_FILE} and {CA_FILE} from the same issue of the same job."
        )
    elif all(now > issuer.not_valid_after_utc for issuer in issuers):
        yield (
            f"the authority in {CA_FILE} expired at {_utc(issuers[0].not_valid_after_utc)}, and this machine's clock "
            f"says {_utc(now)}. Start the job again, with a new authority."
        )


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *_UNREADABLE):  # other subject, other kind of key, other key
        return False
    return True


def _identity_problems(certificate: x509.Certificate, expect: Identity | None) -> Iterator[str]:
    wanted = "a server or site of a job" if expect is None else spiffe(expect)
    uris = _uris(certificate)
    if len(uris) != 1:
        yield f"the certificate has {len(uris)} URI SANs {uris}, not one. Have one issued for {wanted}."
        return
    try:
        identity = parse_spiffe(uris[0])
    except IdentityError as exc:
        yield f"the certificate names nobody in a job: {exc} Have one issued for {wanted}."
        return
    if expect not in (None, identity):
        yield f"the certificate was issued to {identity}, and this process is {expect}. Use the one issued for {wanted}."
    role = (expect or identity).role
    if _ROLE_USAGE[role][0] not in _usages(certificate):
        kind = "server" if role == "server" else "client"
        yield (
            f"the certificate is not for a TLS {kind}: its extended key usage lacks {kind}Auth, which a {role} needs. "
            f"Have one issued for {wanted}."
        )


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return []
    return san.get_values_for_type(x509.UniformResourceIdentifier)


def _usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return []


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(CLOCK_SKEW, (not_after - now) / 10))
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "fedjob"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),  # for people; 63 characters fit
        ]
    )


def _key_usage(*, digital_signature: bool = False, certificate_sign: bool = False) -> x509.KeyUsage:
    """A leaf signs handshakes, an authority signs certificates; neither does anything else."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=certificate_sign,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _require_positive(lifetime: timedelta) -> None:
    if lifetime <= timedelta(0):
        raise IdentityError(f"a certificate's lifetime must be longer than zero, got {lifetime}.")


def _replace(path: Path, content: bytes) -> None:
    """mkstemp opens with O_EXCL and mode 0600: no other user can read a key, not even before a chmod."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _few(names: Collection[str], most: int = 8) -> str:
    listed = sorted(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return (", ".join(listed[:most]) or "none") + rest


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
