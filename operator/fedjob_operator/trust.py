"""What the hub signs with and trusts, as decisions see it: no keys.  PURE"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .names import digest as hash_of

PHASES = ("Stable", "Introduced", "Signing")


@dataclass(frozen=True)
class Trust:
    """issuer: fingerprint of the authority that signs. bundle: PEM of every authority that is trusted, the signing one first."""

    issuer: str
    bundle: str

    @property
    def digest(self) -> str:
        """A short name of the bundle."""
        return hash_of(self.bundle, 16)


@dataclass(frozen=True)
class Life:
    """From when to when an authority is valid."""

    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Authorities:
    """The hub's authorities, as their Secret has them. At most one of `next` and `previous` is there: one rotation at a time.

    current: signs. next: is trusted already, and will sign. previous: signs no more, and is trusted still.
    followed_since: when every certificate in use was first seen to agree with this, None: not yet.
    asked, answered: the rotation that somebody asks for by hand, and the last one that was begun for it.
    """

    current: Life
    next: Life | None = None
    previous: Life | None = None
    followed_since: datetime | None = None
    asked: str = ""
    answered: str = ""

    @property
    def phase(self) -> str:
        """Stable; Introduced: a next one is trusted and does not sign yet; Signing: the previous one is trusted still."""
        return "Introduced" if self.next else "Signing" if self.previous else "Stable"
