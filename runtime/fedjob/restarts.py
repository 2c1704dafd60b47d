"""What follows from the death of a process: restart budgets, and the rules of a failure policy.  PURE

A process may be restarted so many times; the count starts again after enough newly completed rounds, because a job that
moves on is not one that loops. A rule may decide otherwise for one kind of death.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .api import FailureRule


@dataclass(frozen=True)
class Budget:
    """allowed: restarts before giving up. refill_rounds: completed rounds after which `used` is 0 again."""

    allowed: int
    refill_rounds: int
    used: int = 0
    at_round: int = 0


@dataclass(frozen=True)
class End:
    """How a process ended. exit_code: 128 and the signal's number for a signal, None if nobody knows. reasons: as in onReasons."""

    exit_code: int | None = None
    reasons: frozenset[str] = frozenset()


def fitting(rules: Sequence[FailureRule], role: str, ends: Sequence[End]) -> FailureRule | None:
    """The first rule for processes of this role, Client or Server, that fits the end of one of them; None if none does."""
    return next((rule for rule in rules if rule.role == role and any(_fits(rule, end) for end in ends)), None)


def _fits(rule: FailureRule, end: End) -> bool:
    codes = rule.on_exit_codes
    if codes is None:
        return not end.reasons.isdisjoint(rule.on_reasons)
    return bool(end.exit_code) and (end.exit_code in codes.values) == (codes.operator == "In")


def spend(budget: Budget, completed_rounds: int) -> Budget | None:
    """The budget after one more restart, None if there is none left."""
    used = 0 if completed_rounds - budget.at_round >= budget.refill_rounds else budget.used
    if used >= budget.allowed:
        return None
    return replace(budget, used=used + 1, at_round=completed_rounds)


def delay_seconds(used: int) -> float:
    """How long to wait before the restart number `used`: short at first, doubling to half a minute."""
    return float(min(0.1 * 2 ** (used - 1), 30.0))
