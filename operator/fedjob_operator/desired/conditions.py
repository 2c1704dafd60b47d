"""Conditions: how a new set follows from the old one, and which changes are worth an event.  PURE"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ..observed import stamp
from ..plan import Event

MAX_MESSAGE = 4096
TRUE: Literal["True"] = "True"
FALSE: Literal["False"] = "False"
UNKNOWN: Literal["Unknown"] = "Unknown"


@dataclass(frozen=True)
class State:
    """What a condition says now. reason: from the table in `reasons`."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def settle(
    before: Iterable[Mapping[str, Any]], states: Mapping[str, State], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions as status has them, in the order of `states`.

    lastTransitionTime moves only when the status of a condition flips, as the API conventions have it.
    """
    known = {condition["type"]: condition for condition in before}
    settled = []
    for kind, state in states.items():
        old = known.get(kind, {})
        same = old.get("status") == state.status
        settled.append(
            {
                "type": kind,
                "status": state.status,
                "reason": state.reason,
                "message": state.message[:MAX_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if same else stamp(now),
            }
        )
    return settled


def transitions(
    before: Iterable[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], good: frozenset[str], quiet: frozenset[str]
) -> tuple[Event, ...]:
    """An event for each condition whose status or reason changed.

    good: types whose False is no bad news, such as Degraded and Failed. quiet: reasons not worth an event.
    """
    known = {condition["type"]: (condition["status"], condition["reason"]) for condition in before}
    events = []
    for condition in after:
        kind, reason = condition["type"], condition["reason"]
        if known.get(kind) == (condition["status"], reason) or reason in quiet:
            continue
        if kind in good and condition["status"] == FALSE:
            continue
        warning = condition["status"] == (TRUE if kind in good else FALSE)
        events.append(Event(reason, condition["message"] or f"{kind} is {condition['status']}", warning))
    return tuple(events)
