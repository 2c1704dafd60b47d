"""A session by itself: no network, a journal that an earlier process has left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fedjob.errors import PeerFailed
from fedjob.journal import Journal
from fedjob.peers import Offer
from fedjob.session import Interrupted, Limits, Session

FIRST, SECOND = ["Offer", 0], ["Offer", 1]


def restarted(folder: Path, *events: tuple[float, str, Sequence[object]]) -> Session:
    """A session whose predecessor wrote these events: (running time of the round, event, ask). Asks last 90 s."""
    journal = Journal(folder / "round-000000")
    for at, event, ask in events:
        journal._since -= at - journal.elapsed_seconds()
        why = {"site": "a", "reason": "Declined", "message": "no"} if event == "out" else {}
        journal.append(event, ask=list(ask), **why)
    journal.close()
    return Session("ab", frozenset(), Limits(90.0, 0.0, 600.0, 600.0, 6000.0), folder)


@pytest.mark.parametrize(
    ("events", "over"),
    [
        pytest.param([(100.0, "out", FIRST)], False, id="asked for the first time, long after the round began"),
        pytest.param([(100.0, "out", FIRST), (100.0, "asked", SECOND), (160.0, "tick", [])], False, id="for a minute"),
        pytest.param([(100.0, "out", FIRST), (100.0, "asked", SECOND), (195.0, "tick", [])], True, id="for too long"),
    ],
)
def test_each_ask_has_its_own_clock_which_survives_a_restart(
    events: list[tuple[float, str, list[object]]], over: bool, tmp_path: Path
) -> None:
    session = restarted(tmp_path, *events)
    with pytest.raises(PeerFailed, match="Declined"):
        session.ask("a", Offer())
    session.interrupt()  # whoever still waits for an answer stops
    with pytest.raises(PeerFailed if over else Interrupted):
        session.ask("b", Offer())
