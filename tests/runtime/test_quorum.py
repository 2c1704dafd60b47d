"""When a round closes: rows for the cases that have a name, laws for all others."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.quorum import Asked, Closed, NotMet, Rule, Wait, decide

ABC = frozenset("abc")
RULE = Rule(quorum=2, deadline_seconds=60.0)


WAITING = replace(RULE, wait_seconds=30.0)


def asked(answered: str = "", out: str = "", lost: str = "") -> Asked:
    gone = dict.fromkeys(out, "PeerLost: its process ended")
    return Asked(ABC, frozenset(answered), gone, dict.fromkeys(lost, "PeerLost: no live process"))


@pytest.mark.parametrize(
    ("rule", "state", "seconds", "expected"),
    [
        pytest.param(RULE, asked(), 0, Wait(60.0), id="nobody has answered: wait until the deadline"),
        pytest.param(RULE, asked("ab"), 59, Wait(60.0), id="the quorum is there, one is missing: wait for it"),
        pytest.param(RULE, asked("abc"), 1, Closed(), id="all have answered: close"),
        pytest.param(RULE, asked("ab"), 60, Closed(), id="the quorum at the deadline: close without the straggler"),
        pytest.param(RULE, asked("ab", out="c"), 1, Closed(), id="the last one is lost: close at once"),
        pytest.param(replace(RULE, close="Quorum"), asked("ab"), 1, Closed(), id="Quorum closes with the second answer"),
        pytest.param(replace(RULE, close="Quorum"), asked("a"), 1, Wait(60.0), id="Quorum waits for the second answer"),
        pytest.param(
            replace(RULE, close="Quorum", required=frozenset("c")), asked("ab"), 1, Wait(60.0),
            id="Quorum waits for a required site",
        ),
        pytest.param(
            replace(RULE, required=frozenset("d")), asked("ab"), 60, Closed(),
            id="a required site that this round did not ask is not waited for",
        ),
        pytest.param(
            WAITING, asked("a"), 60, Wait(90.0),
            id="too few at the deadline: wait as long as the policy says",
        ),
        pytest.param(
            RULE, asked("a", lost="bc"), 1,
            NotMet("2 of 3 answers needed, 1 came (b, c: no live process)"),
            id="too many are lost, and the policy is to fail: not met at once",
        ),
        pytest.param(
            WAITING, asked("a", lost="bc"), 1, Wait(60.0), id="too many are lost, and the policy is to wait for them"
        ),
        pytest.param(
            WAITING, asked("a", lost="bc"), 60, Wait(90.0), id="lost sites are waited for past the deadline too"
        ),
        pytest.param(
            WAITING, asked("a", lost="bc"), 90,
            NotMet("2 of 3 answers needed, 1 came (b, c: no live process)"),
            id="but not for ever",
        ),
        pytest.param(
            WAITING, asked("a", out="bc"), 1,
            NotMet("2 of 3 answers needed, 1 came (b, c: its process ended)"),
            id="whatever the policy, sites that left for good are not waited for",
        ),
        pytest.param(
            WAITING, asked("ab", lost="c"), 1, Closed(), id="with the quorum there, a lost site is not waited for"
        ),
        pytest.param(
            replace(WAITING, required=frozenset("c")), asked("ab", lost="c"), 1, Wait(60.0),
            id="unless it is required",
        ),
        pytest.param(
            WAITING, asked("ab"), 75, Closed(),
            id="the quorum comes after the deadline: close at once",
        ),
        pytest.param(
            RULE, asked("a"), 60,
            NotMet("2 of 3 answers needed, 1 came (b, c: no answer)"),
            id="too few at the deadline and no more waiting: not met",
        ),
        pytest.param(
            RULE, asked("a", out="bc"), 1,
            NotMet("2 of 3 answers needed, 1 came (b, c: its process ended)"),
            id="no more can come: not met long before the deadline",
        ),
        pytest.param(RULE, asked("a", out="b"), 1, Wait(60.0), id="as many as are needed may still come: wait for them"),
        pytest.param(
            replace(RULE, quorum=1, required=frozenset("ac")), asked("a", out="b"), 1, Wait(60.0),
            id="only the required ones may still come: wait for them",
        ),
        pytest.param(
            replace(RULE, quorum=1, close="Quorum", required=frozenset("a")), asked("a"), 1, Closed(),
            id="the quorum is there, and is the required ones: close",
        ),
        pytest.param(
            replace(RULE, quorum=4), asked("ab"), 1, NotMet("4 of 3 answers needed, 2 came (c: no answer)"),
            id="more are needed than were asked: not met at once",
        ),
        pytest.param(
            replace(RULE, required=frozenset("c")), asked("ab", out="c"), 1,
            NotMet("2 of 3 answers needed, c required, 2 came (c: its process ended)"),
            id="a required site is lost: not met, though the quorum is there",
        ),
    ],
)  # fmt: skip
def test_a_round(rule: Rule, state: Asked, seconds: float, expected: Wait | Closed | NotMet) -> None:
    assert decide(rule, state, seconds) == expected


SITES = st.frozensets(st.sampled_from("abcde"))
RULES = st.builds(
    Rule,
    quorum=st.integers(1, 6),
    deadline_seconds=st.floats(0, 100),
    close=st.sampled_from(["Deadline", "Quorum"]),
    required=SITES,
    wait_seconds=st.floats(0, 100),
)
ASKED = st.builds(
    lambda sites, answered, out, lost: Asked(
        sites,
        sites & answered,
        dict.fromkeys((sites & out) - answered, "Declined: no"),
        dict.fromkeys((sites & lost) - answered - out, "PeerLost: no live process"),
    ),
    st.frozensets(st.sampled_from("abcde"), min_size=1), SITES, SITES, SITES,
)  # fmt: skip
TIMES = st.one_of(st.floats(0, 250), st.sampled_from([0.0, 100.0, 200.0]))
LAW = settings(max_examples=300, deadline=None)


@LAW
@given(RULES, ASKED, TIMES)
def test_a_round_never_waits_past_its_last_moment(rule: Rule, state: Asked, seconds: float) -> None:
    step = decide(rule, state, seconds)
    if isinstance(step, Wait):
        assert seconds < step.until_seconds <= rule.deadline_seconds + rule.wait_seconds


@LAW
@given(RULES, ASKED, TIMES)
def test_a_closed_round_has_its_quorum_and_its_required_sites(rule: Rule, state: Asked, seconds: float) -> None:
    if decide(rule, state, seconds) == Closed():
        assert len(state.answered) >= rule.quorum
        assert rule.required & state.sites <= state.answered


@LAW
@given(RULES, ASKED, TIMES)
def test_with_nobody_left_to_answer_a_round_never_waits(rule: Rule, state: Asked, seconds: float) -> None:
    done = replace(state, out=dict.fromkeys(state.sites - state.answered, "PeerLost: gone"), lost={})
    assert not isinstance(decide(rule, done, seconds), Wait)


@LAW
@given(RULES, ASKED, TIMES, SITES)
def test_more_answers_never_undo_a_close(rule: Rule, state: Asked, seconds: float, more: frozenset[str]) -> None:
    later = replace(state, answered=state.answered | (state.sites & more))
    if decide(rule, state, seconds) == Closed():
        assert decide(rule, later, seconds) == Closed()


@LAW
@given(RULES, ASKED, TIMES, TIMES)
def test_time_alone_never_undoes_a_close(rule: Rule, state: Asked, seconds: float, more: float) -> None:
    if decide(rule, state, seconds) == Closed():
        assert decide(rule, state, seconds + more) == Closed()


@LAW
@given(RULES, ASKED, TIMES)
def test_without_a_policy_to_wait_a_lost_site_is_like_one_that_left(rule: Rule, state: Asked, seconds: float) -> None:
    rule = replace(rule, wait_seconds=0.0)
    assert decide(rule, state, seconds) == decide(rule, replace(state, out=state.absent, lost={}), seconds)


@LAW
@given(RULES, ASKED, TIMES)
def test_a_policy_to_wait_never_fails_a_round_sooner_nor_keeps_one_open(
    rule: Rule, state: Asked, seconds: float
) -> None:
    hasty, patient = (decide(replace(rule, wait_seconds=s), state, seconds) for s in (0.0, 30.0))
    assert not isinstance(patient, NotMet) or isinstance(hasty, NotMet)
    assert (hasty == Closed()) == (patient == Closed())


@LAW
@given(RULES, ASKED, TIMES)
def test_a_round_is_not_met_only_if_it_lacks_something(rule: Rule, state: Asked, seconds: float) -> None:
    """And it says of each site without an answer why there is none."""
    step = decide(rule, state, seconds)
    if isinstance(step, NotMet):
        assert len(state.answered) < rule.quorum or not rule.required & state.sites <= state.answered
        assert " more: " in step.message or all(
            re.search(rf"[(; ]{site}[,:]", step.message) for site in state.sites - state.answered
        )


def test_a_round_that_needs_nobody_takes_whoever_answers() -> None:
    """Required sites as well: what they did not send is a line of the record, not the end of the job."""
    rule = Rule(quorum=0, deadline_seconds=60.0, required=frozenset("a"))
    assert decide(rule, Asked(frozenset("ab")), 0.0) == Wait(60.0)
    assert decide(rule, Asked(frozenset("ab"), frozenset("b"), {"a": "BadWeight"}), 0.0) == Closed()
    assert decide(rule, Asked(frozenset("ab"), out={"a": "BadWeight"}, lost={"b": "PeerLost"}), 0.0) == Closed()
    assert decide(rule, Asked(frozenset("ab")), 60.0) == Closed()


def test_a_site_that_is_there_and_silent_is_told_from_one_that_left() -> None:
    state = Asked(frozenset("abc"), out={"a": "Declined: no"}, silent={"a": "not seen", "b": "b trains since 9:00"})
    assert decide(Rule(quorum=2, deadline_seconds=60.0), state, 60.0) == NotMet(
        "2 of 3 answers needed, 0 came (a: Declined: no; b: b trains since 9:00; c: no answer)"
    )


def test_lost_sites_are_waited_for_however_short_the_policy_says() -> None:
    assert decide(replace(RULE, wait_seconds=0.5), asked("a", lost="bc"), 1) == Wait(60.0)
