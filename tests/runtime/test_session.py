"""A session by itself: no network, a journal that an earlier process has left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fedjob import wire_pb2 as wire
from fedjob.errors import PeerFailed
from fedjob.journal import Journal
from fedjob.peers import Offer, Task
from fedjob.roster import Site, absences, silence
from fedjob.session import Interrupted, Limits, Session

FIRST, SECOND = ["Offer", 0], ["Offer", 1]
LOST_SECONDS = 300.0


def restarted(folder: Path, *events: tuple[float, str, Sequence[object]]) -> Session:
    """A session whose predecessor wrote these events: (running time of the round, event, ask). Asks last 90 s."""
    written = Journal(folder / "round-000000")
    for at, event, ask in events:
        written._since -= at - written.elapsed_seconds()
        why = {"site": "a", "reason": "Declined", "message": "no"} if event == "out" else {}
        written.append(event, ask=list(ask), **why)
    written.close()
    return begun(folder)


def begun(folder: Path) -> Session:
    """A session with the state in this folder."""
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


def connect(session: Session, site: str) -> Callable[[], None]:
    """A process of a site comes; returns what cuts its life line."""

    def push(_: object) -> None: ...

    session.reception.attend(site, 1, push)
    return lambda: session.reception.lost(site, push)


def lost(session: Session, seconds: float) -> set[str]:
    """Sites that a round does without, so many seconds from now."""
    away = [site for site in session.sites() if site.push is None]
    return set(absences(away, time.monotonic() + seconds, LOST_SECONDS)[1])


@pytest.mark.parametrize("stays", [True, False])
def test_an_outage_of_all_sites_is_no_sites_own_and_the_first_that_is_back_does_not_close_the_round_alone(
    stays: bool, tmp_path: Path
) -> None:
    session = Session("abc", frozenset(), Limits(6000.0, 0.0, LOST_SECONDS, 600.0, 6000.0), tmp_path)
    cuts = [connect(session, site) for site in "abc"]
    for cut in cuts[int(stays) :]:
        cut()
    for site in session._ledger.sites.values():
        site.gone_since -= 1000.0  # so long ago
    away = {"b", "c"} if stays else {"a", "b", "c"}
    assert lost(session, 0.0) == away
    connect(session, "b")
    assert lost(session, 0.0) == (away - {"b"} if stays else set())
    assert lost(session, 31.0) == away - {"b"}
    connect(session, "c")
    assert lost(session, 31.0) == (set() if stays else {"a"})


def test_a_site_that_gives_no_answer_is_named_with_what_its_script_said_last(tmp_path: Path) -> None:
    """It was started again, and is there as the round closes."""
    session = Session("a", frozenset(), Limits(0.2, 0.0, LOST_SECONDS, 600.0, 6000.0), tmp_path)

    def push(event: wire.Downward) -> None:
        if event.HasField("task"):
            session.reception.farewell("a", push, "ScriptFailed", "KeyError: 'test_loader'", False)
            session.reception.lost("a", push)
            connect(session, "a")

    session.reception.attend("a", 1, push)
    with pytest.raises(PeerFailed, match=r"^a: PeerLost: KeyError: 'test_loader' \(no answer when the round closed\)$"):
        session.ask("a", Offer())
    (missing,) = session.outcome("Offer")[2]
    assert (missing.reason, missing.message) == (
        "DeadlineExceeded",
        "KeyError: 'test_loader' (no answer when the round closed)",
    )
    with pytest.raises(PeerFailed, match=r"^a: PeerLost: no answer when the round closed$"):
        session.ask("a", Offer())  # this time it has said nothing


def test_a_site_that_is_lost_is_named_with_what_its_script_said_last() -> None:
    site = Site("a", said="ScriptFailed: KeyError: 'x'")
    assert absences([site], 9.0, 5.0)[1] == {"a": "PeerLost: KeyError: 'x' (no live process for 5 s)"}


@pytest.mark.parametrize("process", ["same", "next", "one after a kill between the state and the end of the round"])
def test_an_answer_whose_verdict_was_lost_is_accepted_again_when_its_round_is_over(
    tmp_path: Path, process: str
) -> None:
    session = restarted(tmp_path)
    _, round_0 = session._ledger.number(Offer())
    round_0.append("accepted", ask=["Train", 0], site="a", upload="sent")
    if process != "one after a kill between the state and the end of the round":
        session.finish_round()
    if process != "same":
        session = begun(tmp_path)
        session.go_on_from(1)
    session._ledger.number(Task("Train", 1, {}))

    def verdict(site: str, upload: str, kind: str = "Train", number: int = 0) -> str:
        announced = wire.Announce(key=wire.Key(kind=kind, round=number, ask=0), attempt=1, upload=upload)
        said = session.reception.begin(site, announced)
        assert isinstance(said, wire.Verdict)
        return said.reason or f"accepted: {said.accepted}"

    assert verdict("a", "sent") == "accepted: True"
    assert verdict("a", "another") == verdict("b", "sent") == verdict("a", "sent", "Evaluate") == "PastRound"
    assert [path.name for path in tmp_path.glob("round-*")] == ["round-000001"]


def test_a_site_leaves_as_it_has_heard_of_the_end_and_is_not_lost() -> None:
    site = Site("a", push=lambda _: None, told=True, state="Training")
    site.lose(1.0)
    assert site.state == "Left"


def test_a_site_that_has_the_model_and_sends_nothing_is_told_what_it_does_not_call() -> None:
    site = Site("a", push=lambda _: None)
    site.fetch(1.0, 0, 0)
    assert silence(site) == "no answer when the round closed"
    site.fetch(1.0, 8, 8)
    assert silence(site).endswith("the script has received the model, and has not called fedjob.send() since")
