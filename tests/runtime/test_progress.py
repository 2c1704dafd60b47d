"""What the server tells people of itself."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fedjob.departures import JOB_OVER, Departures
from fedjob.limits import Limits
from fedjob.progress import Story, status
from fedjob.records import Condition, FinalModel, JobRef, to_json
from fedjob.session import Session


def test_a_condition_is_in_the_status_from_when_it_is_set_until_it_is_cleared(tmp_path: Path) -> None:
    session = Session("a", frozenset(), Limits(1.0, 0.0, 1.0, 1.0, 1.0), tmp_path)
    story = Story(JobRef("digits"), total_rounds=3)
    session.conditions.set(Condition("DiskFull", "NoSpaceLeft", "12 MiB left"))
    session.conditions.set(Condition("ClockSkew", "Ahead", "an hour"))
    session.conditions.set(Condition("DiskFull", "NoSpaceLeft", "11 MiB left"))
    assert to_json(status(story, session))["conditions"] == [
        {"type": "ClockSkew", "reason": "Ahead", "message": "an hour"},
        {"type": "DiskFull", "reason": "NoSpaceLeft", "message": "11 MiB left"},
    ]
    session.conditions.clear("DiskFull")
    session.conditions.clear("DiskFull")
    assert status(story, session).conditions == (Condition("ClockSkew", "Ahead", "an hour"),)


def test_conditions_are_set_from_any_thread(tmp_path: Path) -> None:
    session = Session("a", frozenset(), Limits(1.0, 0.0, 1.0, 1.0, 1.0), tmp_path)
    start = threading.Barrier(4)

    def change(number: int) -> None:
        start.wait(10)
        for _ in range(200):
            session.conditions.set(Condition(f"C{number}", "R", ""))
            assert len(session.conditions.now()) >= 1
            session.conditions.clear(f"C{number}")
        session.conditions.set(Condition(f"C{number}", "R", ""))

    threads = [threading.Thread(target=change, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [c.type for c in session.conditions.now()] == ["C0", "C1", "C2", "C3"]


def test_a_server_that_is_started_again_still_says_why_a_site_left(tmp_path: Path) -> None:
    for site, why in (("a", "ScriptEnded: by itself"), ("b", JOB_OVER)):
        Departures(tmp_path, 1).add(site, why)
    session = Session("ab", frozenset(), Limits(1.0, 0.0, 1.0, 1.0, 1.0), tmp_path)
    sites = status(Story(JobRef("digits"), total_rounds=3), session).sites
    assert [(site.state, site.message) for site in sites] == [("Left", "ScriptEnded: by itself"), ("Left", "")]


class _Clocked(Session):
    """A session that has been in its round for so long."""

    seconds = 0.0

    def round_seconds(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("completed", "at", "elapsed", "model", "eta"),
    [
        pytest.param(2, 2, 3.0, FinalModel(), 17.0, id="what is left of this round, and the next"),
        pytest.param(2, 1, 10.0, FinalModel(), 20.0, id="a round that is complete takes nothing off the next"),
        pytest.param(2, 2, 15.0, FinalModel(), 10.0, id="a slow round takes nothing off the next"),
        pytest.param(3, 3, 12.0, FinalModel(), None, id="a slow last round"),
        pytest.param(4, 3, 0.0, FinalModel(), None, id="the final evaluation"),
        pytest.param(2, 2, 0.0, FinalModel("d", 1), None, id="the final evaluation, after a stop condition held"),
    ],
)
def test_the_eta_is_of_the_rounds_that_are_left(
    tmp_path: Path, completed: int, at: int, elapsed: float, model: FinalModel, eta: float | None
) -> None:
    session = _Clocked("a", frozenset(), Limits(1.0, 0.0, 1.0, 1.0, 1.0), tmp_path)
    session.seconds, session._ledger.round = elapsed, at
    story = Story(JobRef("digits"), 4, completed, "Running", round_seconds=[10.0] * completed, model=model)
    assert status(story, session).progress.eta_seconds == eta
