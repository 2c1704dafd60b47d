"""When a certificate is issued anew: each way in which it may differ, each bound of its life."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.desired.certificate import JITTER, RENEW_AT, Wanted, renewal_time, seconds_left, violation
from fedjob_operator.names import digest
from fedjob_operator.observed import Certificate

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
LIFE = timedelta(seconds=1000)
WANTED = Wanted("n/s", "spiffe://d/job/u/server", ("fj-x.n.svc",), "issuer", "bundle")
PRESENT = Certificate(BEGIN, BEGIN + LIFE, WANTED.names, WANTED.identity, WANTED.issuer, WANTED.bundle)
ANOTHER = "the certificate is for spiffe://other, not for spiffe://d/job/u/server"


@pytest.mark.parametrize(
    ("present", "why"),
    [
        (PRESENT, ""),
        (None, "there is no certificate yet"),
        (replace(PRESENT, identity="spiffe://other"), ANOTHER),
        (replace(PRESENT, issuer="other"), "the hub's authority has changed"),
        (replace(PRESENT, bundle="other"), "the authorities that the hub trusts have changed"),
        (replace(PRESENT, not_after=BEGIN), "the certificate ends at 2030-01-01T00:00:00Z"),
        (replace(PRESENT, identity="spiffe://other", issuer="other", bundle="other"), ANOTHER),
        (replace(PRESENT, issuer="other", bundle="other"), "the hub's authority has changed"),
    ],
)
def test_the_first_difference_is_the_reason(present: Certificate | None, why: str) -> None:
    assert violation(WANTED, present, BEGIN) == why


@pytest.mark.parametrize("names", [(), ("fj-y.n.svc",), ("fj-x.n.svc", "more")])
def test_a_certificate_for_other_names_is_issued_anew(names: tuple[str, ...]) -> None:
    assert violation(WANTED, replace(PRESENT, names=names), BEGIN)


def test_it_is_renewed_from_the_moment_of_its_renewal_on_and_not_before() -> None:
    due = renewal_time(PRESENT, WANTED.key)
    assert violation(WANTED, PRESENT, due - timedelta(microseconds=1)) == ""
    assert violation(WANTED, PRESENT, due) == "the certificate ends at 2030-01-01T00:16:40Z"


@given(st.text(min_size=1, max_size=30))
def test_the_moment_is_at_two_thirds_and_shifted_by_the_secrets_name(key: str) -> None:
    part = int(digest(key), 16) / 0xFFFFFFFF  # from 0 to 1
    due = (renewal_time(PRESENT, key) - BEGIN) / LIFE
    assert due == pytest.approx(2 / 3 - 0.1 + 0.2 * part, abs=1e-6)
    assert seconds_left(PRESENT, key, BEGIN) == pytest.approx(due * 1000, abs=1e-3)


def test_the_names_spread_renewals_over_both_sides() -> None:
    dues = [(renewal_time(PRESENT, f"n/{i}") - BEGIN) / LIFE for i in range(200)]
    assert min(dues) < RENEW_AT - JITTER / 2
    assert max(dues) > RENEW_AT + JITTER / 2


@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=-0.5), timedelta(days=1)])
def test_a_renewal_that_is_due_is_looked_at_in_a_second(late: timedelta) -> None:
    assert seconds_left(PRESENT, "k", renewal_time(PRESENT, "k") + late) == 1.0
