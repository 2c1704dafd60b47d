"""Choices that every process can compute for itself: names ranked by a hash.  PURE"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def rank(names: Sequence[str], seed: int, round: int) -> list[str]:  # noqa: A002 - the field's word
    """The names in the order of SHA-256(seed/round/name): a fresh, reproducible shuffle for every round."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{round}/{name}".encode()).digest())


def sample(names: Sequence[str], count: int, seed: int, round: int) -> list[str]:  # noqa: A002
    """`count` of the names for this round, sorted; all of them if `count` is 0."""
    return sorted(names) if count == 0 else sorted(rank(names, seed, round)[:count])
