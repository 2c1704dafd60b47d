"""Why sites gave no answer, as people read it."""

from __future__ import annotations

import pytest

from fedjob.causes import cause, grouped

SPENT = "ValueError: BOOM (3 restarts used up)"


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (f"PeerLost: RestartBudgetExhausted: {SPENT}", SPENT),
        ("ScriptFailed: ValueError: first\nsecond", "ValueError: first second"),
        ("NotFinite: 'w' holds NaN", "NotFinite: 'w' holds NaN"),
        ("PeerLost", "PeerLost"),
        ("no answer", "no answer"),
    ],
)
def test_the_words_that_follow_from_the_cause_are_left_out(why: str, said: str) -> None:
    assert cause(why) == said


def test_a_cause_of_any_length_keeps_its_type_and_is_cut() -> None:
    said = cause("ScriptFailed: ValueError: " + "y" * 10_000_000)
    assert said.startswith("ValueError: yyy")
    assert said.endswith("…")
    assert len(said) <= 400


def test_sites_of_one_cause_share_a_clause_and_the_cause_of_the_most_comes_first() -> None:
    lost = f"PeerLost: RestartBudgetExhausted: {SPENT}"
    whys = [("a", "Declined: no data"), ("b", lost), ("c", lost)]
    assert grouped(whys) == f"b, c: {SPENT}; a: Declined: no data"


def test_however_many_sites_and_causes_there_are_the_text_stays_short() -> None:
    same = grouped((f"s{n:02d}", "no answer") for n in range(64))
    assert same == "s00, s01, s02, s03 and 60 more: no answer"
    each = grouped((f"s{n}", f"cause {n}") for n in range(9))
    assert each.endswith("; s4: cause 4; and 4 more sites for other causes")
