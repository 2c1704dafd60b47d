"""When a round closes.  PURE

One question, asked again after every event: with these answers, at this time, does the round wait, close, or fail?
Time is running time since the ask; it comes from the journal, never from the wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .causes import grouped
from .peers import Close


@dataclass(frozen=True)
class Rule:
    """What completes a round.

    quorum: fewest answers; 0: whoever answers, and nobody is required. required: sites that must be among them, of those asked.
    deadline_seconds: past it, stragglers are left out. wait_seconds: how much longer to wait when that is too few; above 0,
    lost sites are waited for as well.
    """

    quorum: int
    deadline_seconds: float
    close: Close = "Deadline"
    required: frozenset[str] = frozenset()
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Asked:
    """One round's asks: who was asked, who has answered, who will not, and who is lost and may come back (site -> reason).

    silent: what to say of a site that is there and gives no answer.
    """

    sites: frozenset[str]
    answered: frozenset[str] = frozenset()
    out: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def absent(self) -> Mapping[str, str]:
        """Everybody whose answer is not to be expected now, and why."""
        return {**self.lost, **self.out}


@dataclass(frozen=True)
class Wait:
    """Nothing to decide before an event, or before `until_seconds` of running time."""

    until_seconds: float


@dataclass(frozen=True)
class Closed:
    """The round is complete with the answers there are."""


@dataclass(frozen=True)
class NotMet:
    """Too few answers, and no more can come. message: who is missing and why."""

    message: str


def decide(rule: Rule, asked: Asked, elapsed_seconds: float) -> Wait | Closed | NotMet:
    """The state of a round in which `asked` has happened after `elapsed_seconds`."""
    required = rule.required & asked.sites if rule.quorum else frozenset()
    enough = len(asked.answered) >= rule.quorum and required <= asked.answered
    pending = asked.sites - asked.answered - set(asked.absent)
    if enough and (rule.close == "Quorum" or not pending):
        return Closed()
    hoped = asked.answered | (asked.sites - set(asked.out if rule.wait_seconds > 0 else asked.absent))
    if len(hoped) < rule.quorum or not required <= hoped:
        return NotMet(_missing(rule, asked, required))
    if elapsed_seconds < rule.deadline_seconds:
        return Wait(rule.deadline_seconds)
    if enough:
        return Closed()
    last = rule.deadline_seconds + rule.wait_seconds
    return Wait(last) if elapsed_seconds < last else NotMet(_missing(rule, asked, required))


def _missing(rule: Rule, asked: Asked, required: frozenset[str]) -> str:
    reasons = grouped(
        (s, asked.absent.get(s, asked.silent.get(s, "no answer"))) for s in sorted(asked.sites - asked.answered)
    )
    need = f"{rule.quorum} of {len(asked.sites)} answers needed"
    if required - asked.answered:
        need += f", {', '.join(sorted(required - asked.answered))} required"
    return f"{need}, {len(asked.answered)} came ({reasons})"
