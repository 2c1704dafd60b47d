"""When a certificate must be issued: a chain of checks, the first violation wins.  PURE"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..names import digest
from ..observed import Certificate

RENEW_AT = 2 / 3  # of its life
JITTER = 0.1  # of its life; a thousand certificates of one minute are not renewed in one minute


@dataclass(frozen=True)
class Wanted:
    """What the certificate should be. key: names the Secret, for the jitter. issuer, bundle: of the hub's authority now."""

    key: str
    identity: str
    names: tuple[str, ...]
    issuer: str
    bundle: str


@dataclass(frozen=True)
class Input:
    """All that a check may look at."""

    wanted: Wanted
    present: Certificate
    now: datetime


def identity_differs(given: Input) -> str:
    """It was issued to someone else, or for a service of another name."""
    if (given.present.identity, given.present.names) == (given.wanted.identity, given.wanted.names):
        return ""
    return f"the certificate is for {given.present.identity}, not for {given.wanted.identity}"


def issuer_differs(given: Input) -> str:
    """The hub signs with another authority by now."""
    return "" if given.present.issuer == given.wanted.issuer else "the hub's authority has changed"


def trust_differs(given: Input) -> str:
    """The authorities beside it are not those that the hub trusts by now."""
    return "" if given.present.bundle == given.wanted.bundle else "the authorities that the hub trusts have changed"


def near_its_end(given: Input) -> str:
    """Two thirds of its life are over, give or take the jitter."""
    due = renewal_time(given.present, given.wanted.key)
    return "" if given.now < due else f"the certificate ends at {given.present.not_after:%Y-%m-%dT%H:%M:%SZ}"


CHECKS: tuple[Callable[[Input], str], ...] = (identity_differs, issuer_differs, trust_differs, near_its_end)


def violation(wanted: Wanted, present: Certificate | None, now: datetime) -> str:
    """Why a new certificate must be issued, "" if the present one will do."""
    if present is None:
        return "there is no certificate yet"
    given = Input(wanted, present, now)
    return next((found for check in CHECKS if (found := check(given))), "")


def renewal_time(present: Certificate, key: str) -> datetime:
    """When a certificate is renewed: the same moment for the same Secret, whoever asks."""
    life = present.not_after - present.not_before
    shift = (int(digest(key), 16) / 0xFFFFFFFF * 2 - 1) * JITTER
    return present.not_before + life * (RENEW_AT + shift)


def seconds_left(present: Certificate, key: str, now: datetime) -> float:
    """Seconds until the renewal, at least one."""
    return max((renewal_time(present, key) - now) / timedelta(seconds=1), 1.0)
