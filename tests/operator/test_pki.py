"""The hub's authority and what it issues; the checks that ask for a renewal."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
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
