"""The hub's authority and what it issues; the checks that ask for a renewal."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from fedjob import identity
from fedjob_operator import names, pki
from fedjob_operator.desired import certificate
from fedjob_operator.observed import Certificate
from fedjob_operator.plan import Issue

NOW = datetime(2030, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.create("fedjob.local", NOW, timedelta(days=3650))


def issue_of(site: str | None) -> Issue:
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "n"},
        "type": "kubernetes.io/tls",
    }
    return Issue(manifest, "uid-1", site, () if site else ("fj-x.n.svc",), WEEK)


@pytest.mark.parametrize("site", [None, "hospital-a"])
def test_what_is_issued_is_what_the_runtime_accepts(authority: pki.Authority, site: str | None) -> None:
    secret, present = pki.fill(issue_of(site), authority, NOW)
    data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    credentials = identity.Credentials(data["tls.key"], data["tls.crt"], data["ca.crt"])
    assert identity.problems(credentials, NOW, identity.Identity("fedjob.local", "uid-1", site)) == []
    assert present.identity == names.spiffe("fedjob.local", "uid-1", site)
    assert present.identity == identity.spiffe(identity.Identity("fedjob.local", "uid-1", site))
    assert present.issuer == authority.trust.issuer
    assert pki.read(secret) == present


def test_an_authority_survives_its_secret(authority: pki.Authority) -> None:
    again = pki.from_secret(pki.to_secret(authority, "system"), "fedjob.local")
    assert again.trust == authority.trust
    _, present = pki.fill(issue_of(None), again, NOW)
    assert present.issuer == authority.trust.issuer


@pytest.mark.parametrize("data", [{}, {"tls.crt": "AAAA"}, {"tls.crt": "AAAA", "tls.key": "AAAA"}])
def test_a_secret_without_an_authority_is_an_error_that_does_not_quote_it(data: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="holds no authority") as error:
        pki.from_secret({"metadata": {"name": "fedjob-authority"}, "data": data}, "fedjob.local")
    assert "AAAA" not in str(error.value)


def test_neither_key_nor_secret_shows_in_a_repr(authority: pki.Authority) -> None:
    assert "PrivateKey" not in repr(authority)


def wanted(authority: pki.Authority, site: str | None = None) -> certificate.Wanted:
    names_ = () if site else ("fj-x.n.svc",)
    return certificate.Wanted(
        "n/s", names.spiffe("fedjob.local", "uid-1", site), names_, authority.trust.issuer, authority.trust.digest
    )


def test_a_fresh_certificate_will_do_and_each_difference_is_named(authority: pki.Authority) -> None:
    _, present = pki.fill(issue_of(None), authority, NOW)
    good = wanted(authority)
    other = pki.create("fedjob.local", NOW, WEEK)
    rows = [
        (good, present, NOW, ""),
        (good, None, NOW, "no certificate yet"),
        (wanted(authority, "a"), present, NOW, "not for"),
        (wanted(other), present, NOW, "authority has changed"),
        (good, present, NOW + timedelta(days=6), "ends at"),
    ]
    for want, there, now, says in rows:
        found = certificate.violation(want, there, now)
        assert (says in found) if says else found == ""


@given(st.text("abcdefghij/-", min_size=1, max_size=30))
def test_renewal_comes_at_two_thirds_give_or_take_a_tenth_always_the_same(key: str) -> None:
    present = Certificate(NOW, NOW + WEEK, (), "", "", "")
    due = certificate.renewal_time(present, key)
    assert due == certificate.renewal_time(present, key)
    assert abs((due - NOW) / WEEK - 2 / 3) <= 0.1


def test_the_hubs_own_name_cannot_be_a_jobs(authority: pki.Authority) -> None:
    made = authority.issue(pki.HUB_UID, None, ("hub.test",), NOW, WEEK)
    leaf = x509.load_pem_x509_certificate(made.cert_pem)
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["hub.test"]
    assert len(pki.HUB_UID) < 36  # a Kubernetes UID has 36 characters


# ------------------------------------------------------------------------------------------- what Secrets hold, part by part


def test_the_authoritys_secret_part_by_part(authority: pki.Authority) -> None:
    raw = pki.to_secret(authority, "system")
    assert (raw["apiVersion"], raw["kind"], raw["type"]) == ("v1", "Secret", "kubernetes.io/tls")
    labels = {"app.kubernetes.io/managed-by": "fedjob"}
    assert raw["metadata"] == {"name": "fedjob-authority", "namespace": "system", "labels": labels}
    held = {key: base64.b64decode(value) for key, value in raw["data"].items()}
    assert held == {"tls.key": authority.current.key_pem, "tls.crt": authority.current.pem, "ca.crt": authority.bundle}
    assert held["tls.key"].startswith(b"-----BEGIN PRIVATE KEY-----")
    introduced = pki.introduce(authority, NOW, WEEK)
    assert introduced.next is not None
    assert introduced.bundle == authority.current.pem + introduced.next.pem
    held = {key: base64.b64decode(value) for key, value in pki.to_secret(introduced, "system")["data"].items()}
    assert (held["next.key"], held["next.crt"]) == (introduced.next.key_pem, introduced.next.pem)
    signing = pki.sign(introduced)
    assert signing.bundle == introduced.next.pem + authority.current.pem
    assert signing.next is None
    assert pki.drop(signing).bundle == introduced.next.pem


def test_an_authority_lives_from_now_on_for_its_life() -> None:
    made = pki.create("hub.example", NOW, WEEK)
    assert made.trust_domain == "hub.example"
    found = pki.authorities({"metadata": {}}, pki.introduce(made, NOW + WEEK / 2, WEEK))
    assert (found.current.begin, found.current.end) == (made.current.certificate.not_valid_before_utc, NOW + WEEK)
    assert NOW - found.current.begin < timedelta(hours=1)
    assert found.next is not None
    assert found.next.end == NOW + 1.5 * WEEK
    assert (found.previous, found.followed_since, found.asked, found.answered) == (None, None, "", "")


def test_notes_of_the_secret_are_read(authority: pki.Authority) -> None:
    notes = {
        names.FOLLOWED_ANNOTATION: "2030-01-01T00:00:00Z",
        names.ROTATE_ANNOTATION: "2",
        names.ROTATED_ANNOTATION: "1",
    }
    signing = pki.sign(pki.introduce(authority, NOW, WEEK))
    found = pki.authorities({"metadata": {"annotations": notes}}, signing)
    assert (found.followed_since, found.asked, found.answered) == (NOW, "2", "1")
    assert found.previous is not None
    assert found.previous.end == authority.current.certificate.not_valid_after_utc


def spoiled(authority: pki.Authority, **parts: bytes) -> dict[str, Any]:
    """The authority's Secret with other parts; _ stands for a dot."""
    raw = pki.to_secret(authority, "system")
    changed = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in parts.items()}
    return {**raw, "data": {**raw["data"], **changed}}


def test_a_key_of_another_kind_or_of_another_certificate_is_no_authority(authority: pki.Authority) -> None:
    other = pki.create("fedjob.local", NOW, WEEK)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    rsa_pem = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for raw, kind in (
        (spoiled(authority, tls_key=other.current.key_pem), "ValueError"),
        (spoiled(authority, tls_key=rsa_pem), "TypeError"),
        (spoiled(authority, next_crt=other.current.pem), "KeyError"),
        (spoiled(authority, previous_crt=b"x"), "ValueError"),
    ):
        with pytest.raises(pki.NoAuthorityError, match=rf"Secret fedjob-authority holds no authority \({kind}\)") as e:
            pki.from_secret(raw, "fedjob.local")
        assert "restore it from a backup, or delete it" in str(e.value)
        assert e.value.__suppress_context__, "the parser's words may quote the key"


def test_what_is_filled_in_is_told_to_people_and_keeps_what_was_there(authority: pki.Authority) -> None:
    issue = issue_of(None)
    metadata = {**issue.manifest["metadata"], "annotations": {"a": "b"}}
    secret, present = pki.fill(replace(issue, manifest={**issue.manifest, "metadata": metadata}), authority, NOW)
    assert secret["metadata"]["annotations"] == {"a": "b", names.NOT_AFTER_ANNOTATION: "2030-01-08T00:00:00Z"}
    assert (secret["metadata"]["name"], secret["kind"], secret["type"]) == ("s", "Secret", "kubernetes.io/tls")
    assert set(secret["data"]) == {"tls.key", "tls.crt", "ca.crt"}
    assert (present.not_after, present.names) == (NOW + WEEK, ("fj-x.n.svc",))
    assert NOW - timedelta(hours=1) < present.not_before <= NOW
    assert present.bundle == authority.trust.digest
    assert pki.fill(issue_of("a"), authority, NOW)[1].names == ()


def test_who_issued_a_certificate_is_known_only_among_those_that_are_trusted(authority: pki.Authority) -> None:
    other = pki.create("fedjob.local", NOW, WEEK)
    made = authority.issue("uid-1", "a", (), NOW, WEEK)
    assert pki.describe(made.cert_pem, authority.bundle).issuer == pki.fingerprint(authority.current.certificate)
    assert pki.describe(made.cert_pem, other.bundle).issuer == ""
    assert pki.describe(made.cert_pem, other.bundle + authority.bundle).issuer == authority.trust.issuer


def test_a_certificate_of_several_names_speaks_for_nobody(authority: pki.Authority) -> None:
    who = [x509.UniformResourceIdentifier(f"spiffe://fedjob.local/job/uid-1/site/{site}") for site in "ab"]
    key = ec.generate_private_key(ec.SECP256R1())
    for count, identity_ in ((1, who[0].value), (2, "")):
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.current.certificate.subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + WEEK)
            .add_extension(x509.SubjectAlternativeName(who[:count]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.current.key.public_key()), critical=False
            )
            .sign(authority.current.key, hashes.SHA256())
        )
        found = pki.describe(made.public_bytes(Encoding.PEM), authority.bundle)
        assert (found.identity, found.issuer) == (identity_, authority.trust.issuer)


def test_a_secret_without_a_certificate_holds_none(authority: pki.Authority) -> None:
    secret, present = pki.fill(issue_of("a"), authority, NOW)
    assert pki.read(secret) == present
    for data in (None, {}, {"tls.crt": secret["data"]["tls.crt"]}, {**secret["data"], "tls.crt": "AAAA"}):
        assert pki.read({"data": data}) is None


def test_a_fingerprint_is_of_the_sha256(authority: pki.Authority) -> None:
    found = pki.fingerprint(authority.current.certificate)
    assert found == authority.current.certificate.fingerprint(hashes.SHA256()).hex()[:32], "of which half is enough"


def test_a_trust_domain_that_no_certificate_could_carry_is_refused_at_once() -> None:
    with pytest.raises(identity.IdentityError, match="no domain"):
        pki.create("no domain", NOW, WEEK)


def test_an_authority_in_the_middle_of_a_rotation_survives_its_secret(authority: pki.Authority) -> None:
    introduced = pki.introduce(authority, NOW, WEEK)
    for made in (introduced, pki.sign(introduced)):
        again = pki.from_secret(pki.to_secret(made, "system"), "fedjob.local")
        assert (again.trust, again.trust_domain) == (made.trust, "fedjob.local")
        assert (again.next is None, again.previous is None) == (made.next is None, made.previous is None)
        if made.next is not None and again.next is not None:
            assert (again.next.pem, again.next.key_pem) == (made.next.pem, made.next.key_pem)
