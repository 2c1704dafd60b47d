"""What the server tells people of itself."""

from __future__ import annotations

import threading
from pathlib import Path

from fedjob.departures import JOB_OVER, Departures
from fedjob.limits import Limits
from fedjob.progress import Story, status
from fedjob.records import Condition, JobRef, to_json
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
