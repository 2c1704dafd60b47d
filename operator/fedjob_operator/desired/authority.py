"""The hub's authority, from one to the next, while no server and client of a job ever stop trusting each other.  PURE

    Stable ──► Introduced: both are trusted, the old one signs ──► Signing: both are trusted, the new one signs ──► Stable
        old, or asked for                                   followed                                        followed

A step is *followed* once every certificate in use agrees with it, and whatever was issued before that has ended. The second half is
what makes it safe: certificate and trust travel in one Secret, and a process reads both at once. A pod that is late, however late,
either has the newer trust too, or its certificate has ended. How long the kubelet takes does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from ..names import FEDERATED_JOB
from ..observed import Certificate, Raw, condition, moment
from ..trust import Authorities, Trust

ROTATE_AT = 2 / 3  # of its life
LEAST_LIFE = 12  # lives of certificates that an authority must live: a rotation takes two, in a third of its life
_NAMED = 3


class Move(Enum):
    """What is done to the authority's Secret."""

    INTRODUCE = auto()  # make the next one
    FOLLOWED = auto()  # note since when every certificate in use agrees
    SIGN = auto()  # the next one becomes the current one
    DROP = auto()  # the previous one is trusted no longer


@dataclass(frozen=True)
class Follower:
    """A Secret in use. present: what is in it, None: not looked at yet."""

    name: str
    present: Certificate | None


@dataclass(frozen=True)
class Input:
    """All that a check may look at. longest: how long a certificate may live."""

    authorities: Authorities
    trust: Trust
    followers: Sequence[Follower]
    now: datetime
    longest: timedelta


@dataclass(frozen=True)
class Step:
    """move: what is done now, None: nothing. why: the reason for that."""

    move: Move | None
    why: str = ""


def asked_for(given: Input) -> str:
    """Somebody wants a new one."""
    asked = given.authorities.asked
    return f"{asked!r} was asked for" if asked and asked != given.authorities.answered else ""


def near_its_end(given: Input) -> str:
    """Two thirds of its life are over."""
    life = given.authorities.current
    due = life.begin + (life.end - life.begin) * ROTATE_AT
    return "" if given.now < due else f"the authority ends at {life.end:%Y-%m-%dT%H:%M:%SZ}"


def not_followed(given: Input) -> str:
    """Certificates in use do not agree yet."""
    late = [f.name for f in given.followers if not follows(f, given)]
    if not late:
        return ""
    names = ", ".join(sorted(late)[:_NAMED]) + (", …" if len(late) > _NAMED else "")
    return f"{len(late)} of {len(given.followers)} certificates in use are not renewed yet: {names}"


def older_may_live(given: Input) -> str:
    """A certificate that was issued before every Secret agreed may still be in a pod that is late."""
    since = given.authorities.followed_since
    if since is None or given.now >= since + given.longest or given.now >= given.authorities.current.end:
        return ""
    return f"certificates of before may be in use until {since + given.longest:%Y-%m-%dT%H:%M:%SZ}"


BEGIN: tuple[Callable[[Input], str], ...] = (asked_for, near_its_end)


def step(given: Input) -> Step:
    """What is to be done to the authority now."""
    authorities = given.authorities
    if authorities.phase == "Stable":
        why = next((found for check in BEGIN if (found := check(given))), "")
        return Step(Move.INTRODUCE if why else None, why)
    if authorities.followed_since is None:
        why = not_followed(given)
        return Step(None, why) if why else Step(Move.FOLLOWED, "every certificate in use agrees")
    if why := older_may_live(given):
        return Step(None, why)
    return Step(Move.SIGN if authorities.next else Move.DROP, "no certificate of before is left")


def keeps(raw: Raw) -> bool:
    """Whether the certificate of a FederatedJob or SiteJob is kept valid: pods that use it may be alive, or be made."""
    if "deletionTimestamp" in raw["metadata"]:
        return False
    suspended = bool((raw.get("spec") or {}).get("suspend"))
    if raw["kind"] == FEDERATED_JOB.name:
        over = any(condition(raw, end)[0] == "True" for end in ("Complete", "Failed"))
        return not over and not (suspended and condition(raw, "Admitted")[1] == "Suspended")
    return not suspended and condition(raw, "Accepted")[0] == "True" and condition(raw, "Finished")[0] != "True"


def follower(raw: Raw, present: Certificate | None, now: datetime) -> Follower | None:
    """The Secret of a FederatedJob or SiteJob, None if no certificate of it is in use. present: what is known to be in it."""
    status = raw.get("status") or {}
    told = (status.get("certificates") or {}).get("serverNotAfter") or status.get("certificateNotAfter")
    end = present.not_after if present is not None else moment(told)
    if end is None or now >= end or not keeps(raw):
        return None
    return Follower(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}", present)


def follows(follower: Follower, given: Input) -> bool:
    """Whether a Secret agrees with who signs and who is trusted now."""
    present = follower.present
    return present is not None and (present.issuer, present.bundle) == (given.trust.issuer, given.trust.digest)
