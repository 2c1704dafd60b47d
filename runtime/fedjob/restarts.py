"""Restart budgets.  PURE

A process may be restarted so many times; the count starts again after enough newly completed rounds, because a job that
moves on is not one that loops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Budget:
    """allowed: restarts before giving up. refill_rounds: completed rounds after which `used` is 0 again."""

    allowed: int
    refill_rounds: int
    used: int = 0
    at_round: int = 0


def spend(budget: Budget, completed_rounds: int) -> Budget | None:
    """The budget after one more restart, None if there is none left."""
    used = 0 if completed_rounds - budget.at_round >= budget.refill_rounds else budget.used
    if used >= budget.allowed:
        return None
    return replace(budget, used=used + 1, at_round=completed_rounds)


def delay_seconds(used: int) -> float:
    """How long to wait before the restart number `used`: short at first, doubling to half a minute."""
    return float(min(0.1 * 2 ** (used - 1), 30.0))
