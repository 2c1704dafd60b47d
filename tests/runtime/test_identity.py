"""Names, certificates and the checks on them, without a connection."""

import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from fedjob.errors import IdentityError
from fedjob.identity import (
    Authority,
    Credentials,
    Identity,
    admit,
    create_authority,
    issue,
    misfits,
    not_after,
    parse_spiffe,
    problems,
    read,
    spiffe,
    write,
)

NOW = datetime(2030, 1, 10, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
identities = st.builds(
    Identity, st.from_regex(r"[a-z0-9._-]{1,255}", fullmatch=True), labels, st.one_of(st.none(), labels)
)


def authority_of(job: str = "job-1") -> Authority:
    return create_authority(job, now=NOW, lifetime=30 * DAY)


def site_of(authority: Authority, name: str = "a", now: datetime = NOW) -> Credentials:
    return issue(authority, authority.site(name), now=now, lifetime=DAY)


def server_of(authority: Authority) -> Credentials:
    return issue(
        authority, authority.server(), now=NOW, lifetime=DAY, dns_names=["localhost"], ip_addresses=["127.0.0.1", "::1"]
    )


def certificate_of(credentials: Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.cert_pem)


def uses(usage: x509.KeyUsage) -> set[str]:
    """What a key may be used for, of all that RFC 5280 knows."""
    known = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*known, "key_cert_sign", "crl_sign") if getattr(usage, name)}


def named(authority: Authority, *uris: str) -> Credentials:
    """A certificate that the authority has signed, with these names, and for no purpose."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(authority.certificate.subject, authority.certificate.subject, key.public_key(), 1)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + DAY)
    if uris:
        san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(san, critical=False)
    return Credentials(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM),
        authority.certificate.public_bytes(Encoding.PEM),
    )


# Names


@given(identities)
def test_an_identity_survives_the_way_through_its_uri(identity: Identity) -> None:
    assert parse_spiffe(spiffe(identity)) == identity


@given(st.text(max_size=80) | st.builds("spiffe://fedjob.local/job/{}".format, st.text(max_size=40)))
def test_a_uri_either_parses_to_what_would_be_written_or_is_refused(uri: str) -> None:
    try:
        identity = parse_spiffe(uri)
    except IdentityError:
        return
    assert spiffe(identity) == uri


def test_a_site_and_the_server_are_spelt_as_the_design_says() -> None:
    assert spiffe(Identity("fedjob.local", "u1", "hospital-a")) == "spiffe://fedjob.local/job/u1/site/hospital-a"
    assert spiffe(Identity("fedjob.local", "u1", None)) == "spiffe://fedjob.local/job/u1/server"


@pytest.mark.parametrize(
    ("uri", "wrong"),
    [
        pytest.param("https://fedjob.local/job/u/server", "begin with spiffe://", id="another scheme"),
        pytest.param("SPIFFE://fedjob.local/job/u/server", "begin with spiffe://", id="the scheme in capitals"),
        pytest.param("", "begin with spiffe://", id="nothing"),
        pytest.param("spiffe:///job/u/server", "trust domain ''", id="no trust domain"),
        pytest.param("spiffe://fedjob.local:443/job/u/server", "trust domain 'fedjob.local:443'", id="a port"),
        pytest.param("spiffe://me@fedjob.local/job/u/server", "trust domain", id="a user"),
        pytest.param("spiffe://fedjob.local/job//server", "job uid ''", id="an empty job"),
        pytest.param("spiffe://fedjob.local/job/u/site/", "site name ''", id="an empty site"),
        pytest.param("spiffe://fedjob.local/job/u/site/A", "site name 'A'", id="capitals"),
        pytest.param("spiffe://fedjob.local/job/u/site/a%2fb", "site name 'a%2fb'", id="an escape"),
        pytest.param("spiffe://fedjob.local/job/u/site/..", "site name '..'", id="the parent folder"),
        pytest.param("spiffe://fedjob.local/job/u/site/a\n", "site name", id="a newline at the end"),
        pytest.param("spiffe://fedjob.local/job/u/site/a?x=1", "site name 'a?x=1'", id="a query"),
        pytest.param("spiffe://fedjob.local/job/u/server/", "got /job/u/server/", id="a slash at the end"),
        pytest.param("spiffe://fedjob.local/job/u/site/a/b", "got /job/u/site/a/b", id="one part too many"),
        pytest.param("spiffe://fedjob.local/jobs/u/site/a", "got /jobs/u/site/a", id="another path"),
        pytest.param("spiffe://fedjob.local/job/u/site/a://b", "got /job/u/site/a://b", id="a second scheme"),
        pytest.param("spiffe://fedjob.local", "got /", id="no path"),
    ],
)
def test_a_malformed_uri_is_refused_and_the_error_names_the_part(uri: str, wrong: str) -> None:
    with pytest.raises(IdentityError) as error:
        parse_spiffe(uri)
    assert wrong in str(error.value)


# Issuing


def test_an_independent_verifier_lets_a_server_serve_and_report_and_a_site_only_call() -> None:
    authority = authority_of()
    policy = PolicyBuilder().store(Store([authority.certificate])).time(NOW).max_chain_depth(0)
    server, site = certificate_of(server_of(authority)), certificate_of(site_of(authority))

    policy.build_server_verifier(x509.DNSName("localhost")).verify(server, [])
    assert policy.build_client_verifier().verify(site, []).subjects == [
        x509.UniformResourceIdentifier("spiffe://fedjob.local/job/job-1/site/a")
    ]
    policy.build_client_verifier().verify(server, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("a")).verify(site, [])


def test_the_authority_may_sign_leaves_and_no_further_authority() -> None:
    certificate = authority_of().certificate
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert usage.critical
    assert uses(usage.value) == {"key_cert_sign"}


def test_a_leaf_signs_handshakes_only_and_names_its_issuer() -> None:
    authority = authority_of()
    leaf = certificate_of(site_of(authority))
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert (basic.critical, basic.value.ca) == (True, False)
    assert usage.critical
    assert uses(usage.value) == {"digital_signature"}
    assert issuer == authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_a_certificate_starts_five_minutes_early_and_ends_no_later_than_its_authority() -> None:
    authority = create_authority("job-1", now=NOW, lifetime=DAY)
    short = certificate_of(issue(authority, authority.site("a"), now=NOW, lifetime=DAY / 2))
    long = certificate_of(issue(authority, authority.site("a"), now=NOW, lifetime=DAY * 2))
    assert short.not_valid_before_utc == datetime(2030, 1, 10, 11, 55, tzinfo=UTC)
    assert short.not_valid_after_utc == datetime(2030, 1, 11, 0, 0, tzinfo=UTC)
    assert long.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_certificate_of_a_few_minutes_starts_a_tenth_of_them_early() -> None:
    authority = authority_of()
    brief = issue(authority, authority.site("a"), now=NOW, lifetime=timedelta(minutes=20))
    assert certificate_of(brief).not_valid_before_utc == NOW - timedelta(minutes=2)


def test_a_certificate_names_its_holder_for_people_too() -> None:
    authority = authority_of()
    assert certificate_of(server_of(authority)).subject.rfc4514_string() == "CN=server,O=fedjob"
    assert certificate_of(site_of(authority)).subject.rfc4514_string() == "CN=a,O=fedjob"


def test_two_certificates_of_one_site_share_neither_key_nor_serial_number() -> None:
    authority = authority_of()
    one, two = site_of(authority), site_of(authority)
    assert one.key_pem != two.key_pem
    assert certificate_of(one).serial_number != certificate_of(two).serial_number


def test_an_authority_issues_for_its_own_job_only() -> None:
    with pytest.raises(IdentityError, match="cannot issue a certificate to site a of job job-2"):
        issue(authority_of("job-1"), authority_of("job-2").site("a"), now=NOW, lifetime=DAY)


def test_a_server_needs_an_address_and_a_site_must_have_none() -> None:
    authority = authority_of()
    with pytest.raises(IdentityError, match="a server needs one"):
        issue(authority, authority.server(), now=NOW, lifetime=DAY)
    with pytest.raises(IdentityError, match="a site has none"):
        issue(authority, authority.site("a"), now=NOW, lifetime=DAY, dns_names=["localhost"])


def test_a_lifetime_of_nothing_is_refused() -> None:
    authority = authority_of()
    with pytest.raises(IdentityError, match=r"must be longer than zero, got 0:00:00\."):
        create_authority("job-1", now=NOW, lifetime=timedelta(0))
    with pytest.raises(IdentityError, match=r"must be longer than zero, got 0:00:00\."):
        issue(authority, authority.site("a"), now=NOW, lifetime=timedelta(0))


# Files and what is printed


def test_credentials_come_back_from_a_folder_that_only_the_owner_can_enter(tmp_path: Path) -> None:
    credentials = site_of(authority_of())
    write(credentials, tmp_path / "deep" / "a")
    assert read(tmp_path / "deep" / "a") == credentials
    assert stat.S_IMODE((tmp_path / "deep" / "a").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "deep" / "a").iterdir()) == ["ca.crt", "tls.crt", "tls.key"]


def test_a_key_takes_the_place_of_an_open_file_without_ever_sharing_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    loose = tmp_path / "tls.key"
    loose.write_bytes(b"old")
    loose.chmod(0o644)
    with loose.open("rb") as opened_before:
        write(site_of(authority_of()), tmp_path)
        assert opened_before.read() == b"old"  # another file: who had it open sees nothing of the new key
    assert stat.S_IMODE(loose.stat().st_mode) == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_file_that_cannot_be_written_leaves_no_key_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is in its own folder from its first byte: no other is needed, here or ever."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    (tmp_path / "tls.crt").mkdir()
    with pytest.raises(IsADirectoryError):
        write(site_of(authority_of()), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tls.crt", "tls.key"]


def test_a_missing_file_is_named_and_a_missing_folder(tmp_path: Path) -> None:
    write(site_of(authority_of()), tmp_path)
    (tmp_path / "tls.crt").unlink()
    for folder, missing in ((tmp_path, tmp_path / "tls.crt"), (tmp_path / "none", tmp_path / "none")):
        with pytest.raises(IdentityError) as error:
            read(folder)
        assert str(error.value) == (
            f"cannot read {missing}: No such file or directory. The folder must hold tls.key, tls.crt and ca.crt."
        )


def test_a_secret_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """Its first file is a pipe: when this is being read, the link goes over to another issue, and the rest goes away."""
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "..data"
    credentials = site_of(authority_of())
    write(credentials, new)
    old.mkdir()
    os.mkfifo(old / "tls.key")
    link.symlink_to(old)

    def replaced() -> None:
        with (old / "tls.key").open("wb"):
            link.unlink()
            link.symlink_to(new)

    with ThreadPoolExecutor() as pool:
        swap = pool.submit(replaced)
        assert read(tmp_path) == credentials
        swap.result()


def test_no_key_is_printed_with_what_holds_it() -> None:
    authority = authority_of()
    for shown in (repr(site_of(authority)), str(site_of(authority)), repr(authority)):
        assert "PRIVATE" not in shown
        assert "key" not in shown


# Problems with one's own certificate


def test_a_fresh_certificate_has_no_problem() -> None:
    authority = authority_of()
    assert problems(site_of(authority), NOW, authority.site("a")) == []
    assert problems(site_of(authority), NOW, None) == []
    assert problems(server_of(authority), NOW, authority.server()) == []


def test_a_certificate_is_good_from_five_minutes_before_its_issue_to_its_last_second() -> None:
    credentials = site_of(authority_of())
    assert problems(credentials, NOW - timedelta(minutes=5), None) == []
    assert problems(credentials, NOW + DAY, None) == []
    assert len(problems(credentials, NOW - timedelta(minutes=5, seconds=1), None)) == 1
    assert len(problems(credentials, NOW + DAY + timedelta(seconds=1), None)) == 1


def test_an_expired_certificate_says_since_when() -> None:
    assert problems(site_of(authority_of()), NOW + DAY + timedelta(hours=3, microseconds=7), None) == [
        "the certificate expired at 2030-01-11T12:00:00Z (notAfter), 3:00:00 ago by this machine's clock "
        "(2030-01-11T15:00:00Z). Have a new one issued, or set the clock if it is wrong."
    ]


def test_a_certificate_from_the_future_points_at_the_clock() -> None:
    assert problems(site_of(authority_of()), NOW - DAY, None) == [
        "the certificate is not valid before 2030-01-10T11:55:00Z (notBefore), and this machine's clock says "
        "2030-01-09T12:00:00Z. Set the clock if it is wrong, or wait."
    ]


@pytest.mark.parametrize(
    "job",
    [pytest.param("job-2", id="of another job"), pytest.param("job-1", id="of the same name with another key")],
)
def test_a_certificate_of_another_authority_is_found(job: str) -> None:
    mixed = replace(site_of(authority_of("job-1")), ca_pem=site_of(authority_of(job)).ca_pem)
    (problem,) = problems(mixed, NOW, None)
    assert "names CN=job-1,O=fedjob as its issuer and was not signed by the authority in ca.crt" in problem
    assert f"(CN={job},O=fedjob)" in problem


def test_during_a_rotation_one_authority_of_several_is_enough() -> None:
    credentials = site_of(authority_of())
    both = replace(credentials, ca_pem=site_of(authority_of()).ca_pem + credentials.ca_pem)
    assert problems(both, NOW, None) == []


def test_a_key_of_another_certificate_is_found() -> None:
    authority = authority_of()
    mixed = replace(site_of(authority), key_pem=site_of(authority).key_pem)
    (problem,) = problems(mixed, NOW, None)
    assert problem.startswith("tls.key is not the key of the certificate in tls.crt. Take both from the same issue")


def test_a_certificate_of_another_site_or_job_is_found() -> None:
    authority = authority_of()
    (other_site,) = problems(site_of(authority, "b"), NOW, authority.site("a"))
    assert other_site.startswith(
        "the certificate was issued to site b of job job-1 (fedjob.local), and this process is"
    )
    (other_job,) = problems(site_of(authority), NOW, Identity("fedjob.local", "job-2", "a"))
    assert other_job.endswith("Use the one issued for spiffe://fedjob.local/job/job-2/site/a.")


def test_a_sites_certificate_in_the_servers_place_fails_by_name_and_by_usage() -> None:
    authority = authority_of()
    name, usage = problems(site_of(authority), NOW, authority.server())
    assert "this process is the server of job job-1" in name
    assert "its extended key usage lacks serverAuth, which a server needs" in usage


SITE_A = "spiffe://fedjob.local/job/job-1/site/a"


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        pytest.param([], f"the certificate has 0 URI SANs [], not one. Have one issued for {SITE_A}.", id="no name"),
        pytest.param(
            [SITE_A, "spiffe://x"],
            f"the certificate has 2 URI SANs ['{SITE_A}', 'spiffe://x'], not one. Have one issued for {SITE_A}.",
            id="two names",
        ),
        pytest.param(
            ["https://x"],
            "the certificate names nobody in a job: 'https://x' is not a SPIFFE URI: it must begin with spiffe://. "
            f"Have one issued for {SITE_A}.",
            id="a name of something else",
        ),
        pytest.param(
            [SITE_A],
            "the certificate is not for a TLS client: its extended key usage lacks clientAuth, which a site needs. "
            f"Have one issued for {SITE_A}.",
            id="a name, and no use",
        ),
    ],
)
def test_a_certificate_that_another_program_issued_is_told_what_it_lacks(uris: list[str], expected: str) -> None:
    authority = authority_of()
    assert problems(named(authority, *uris), NOW, authority.site("a")) == [expected]


def test_what_should_be_issued_is_said_also_to_a_process_that_does_not_know_who_it_is() -> None:
    assert problems(named(authority_of()), NOW, None) == [
        "the certificate has 0 URI SANs [], not one. Have one issued for a server or site of a job."
    ]


def test_an_authority_is_good_to_its_last_second_and_ends_with_what_it_issued() -> None:
    authority = create_authority("job-1", now=NOW, lifetime=DAY)
    credentials = issue(authority, authority.site("a"), now=NOW, lifetime=DAY)
    assert problems(credentials, NOW + DAY, None) == []
    assert problems(credentials, NOW + DAY + timedelta(seconds=1), None)[1:] == [
        "the authority in ca.crt expired at 2030-01-11T12:00:00Z, and this machine's clock says 2030-01-11T12:00:01Z. "
        "Start the job again, with a new authority."
    ]


def test_whatever_the_time_is_another_name_does_not_fit() -> None:
    authority = authority_of()
    credentials = site_of(authority)
    assert misfits(credentials, authority.site("a")) == []
    assert misfits(credentials, authority.site("b")) == problems(credentials, NOW, authority.site("b")) != []
    (unreadable,) = misfits(replace(credentials, cert_pem=b""), None)
    assert "is not readable as PEM (ValueError). Write them again." in unreadable


def test_the_end_of_a_certificate_is_read_from_it() -> None:
    assert not_after(site_of(authority_of()).cert_pem) == NOW + DAY


@pytest.mark.parametrize("part", ["key_pem", "cert_pem", "ca_pem"])
def test_what_is_not_pem_is_reported_without_repeating_it(part: str) -> None:
    broken = replace(site_of(authority_of()), **{part: b"-----BEGIN SECRET-----"})
    (problem,) = problems(broken, NOW, None)
    assert "not readable as PEM" in problem
    assert "SECRET" not in problem


# Admission


def test_a_site_of_the_job_is_admitted() -> None:
    uri = "spiffe://fedjob.local/job/job-1/site/a"
    assert admit(uri, "job-1", {"a", "b"}) == Identity("fedjob.local", "job-1", "a")


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        pytest.param(None, "does not carry exactly one URI SAN", id="no SAN"),
        pytest.param("spiffe://fedjob.local/job/job-2/site/a", "this is the server of job job-1", id="another job"),
        pytest.param("spiffe://other.org/job/job-1/site/a", "this is the server of job job-1", id="another domain"),
        pytest.param("spiffe://fedjob.local/job/job-1/server", "which is not a site", id="the server itself"),
        pytest.param("spiffe://fedjob.local/job/job-1/site/c", "has no such site; it has a, b", id="an unknown site"),
        pytest.param("spiffe://fedjob.local/ns/default", "neither a server nor a site", id="another scheme of names"),
    ],
)
def test_any_other_caller_is_refused_and_told_why(uri: str | None, why: str) -> None:
    with pytest.raises(IdentityError) as error:
        admit(uri, "job-1", {"b", "a"})
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("sites", "listed"),
    [
        pytest.param(0, "none", id="no sites"),
        pytest.param(8, "s1, s2, s3, s4, s5, s6, s7, s8", id="as many as are listed"),
        pytest.param(10, "s1, s10, s2, s3, s4, s5, s6, s7 and 2 more", id="more than are listed"),
    ],
)
def test_an_unknown_site_is_told_some_of_those_that_the_job_has(sites: int, listed: str) -> None:
    with pytest.raises(IdentityError) as error:
        admit("spiffe://fedjob.local/job/job-1/site/c", "job-1", [f"s{n + 1}" for n in range(sites)])
    assert str(error.value) == (
        "the caller is site c of job job-1 (fedjob.local), and the job has no such site; "
        f"it has {listed}. Add the site to spec.sites."
    )
