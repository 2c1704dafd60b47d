"""What the hub signs with and trusts, as decisions see it: no keys.  PURE"""

from __future__ import annotations

from dataclasses import dataclass

from .names import digest as hash_of


@dataclass(frozen=True)
class Trust:
    """issuer: fingerprint of the authority that signs. bundle: PEM of every authority that is trusted, the signing one first."""

    issuer: str
    bundle: str

    @property
    def digest(self) -> str:
        """A short name of the bundle."""
        return hash_of(self.bundle, 16)
