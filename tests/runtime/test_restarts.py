"""Restart budgets: spent by restarts, refilled by progress."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob.api import FailureRule
from fedjob.restarts import Budget, End, delay_seconds, fitting, spend


def spent(budget: Budget, rounds: list[int]) -> list[bool]:
    """Whether each restart, asked for after so many completed rounds, was granted."""
    granted = []
    for completed in rounds:
        left = spend(budget, completed)
        granted.append(left is not None)
        budget = left or budget
    return granted


@pytest.mark.parametrize(
    ("allowed", "refill", "rounds", "granted"),
    [
        pytest.param(2, 1, [0, 0, 0], [True, True, False], id="as many as allowed in one round, and no more"),
        pytest.param(0, 1, [0], [False], id="none where none is allowed"),
        pytest.param(0, 1, [5], [False], id="progress refills nothing where none is allowed"),
        pytest.param(1, 1, [0, 1, 2, 3], [True] * 4, id="one each round for ever"),
        pytest.param(2, 3, [0, 2, 4], [True, True, False], id="too little progress between them refills nothing"),
        pytest.param(2, 3, [0, 0, 3, 3, 3], [True, True, True, True, False], id="enough progress refills all"),
        pytest.param(1, 2, [0, 1, 1, 2], [True, False, False, True], id="a refusal does not postpone the refill"),
    ],
)
def test_a_budget(allowed: int, refill: int, rounds: list[int], granted: list[bool]) -> None:
    assert spent(Budget(allowed, refill), rounds) == granted


@given(st.integers(0, 9), st.integers(1, 9), st.lists(st.integers(0, 3), max_size=40))
def test_a_job_that_stands_still_ends(allowed: int, refill: int, steps: list[int]) -> None:
    """Without one more completed round, no more restarts are granted than are allowed."""
    rounds = [sum(steps[: i + 1]) for i in range(len(steps))]
    granted = Counter(r for r, g in zip(rounds, spent(Budget(allowed, refill), rounds), strict=True) if g)
    assert all(count <= allowed for count in granted.values())


def test_the_wait_before_a_restart_doubles_to_half_a_minute() -> None:
    assert [delay_seconds(n) for n in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert delay_seconds(9) == 25.6
    assert delay_seconds(10) == delay_seconds(1000) == 30.0


def rule(name: str, role: str = "Client", **fits: Any) -> FailureRule:
    """A rule that ends the job."""
    return FailureRule.model_validate({"name": name, "role": role, "action": "FailJob", **fits})


RULES = [
    rule("server", "Server", onExitCodes={"values": [70, 137]}),
    rule("data", onExitCodes={"values": [42, 43]}),
    rule("memory", onReasons=["OOMKilled"]),
    rule("unknown", onExitCodes={"operator": "NotIn", "values": [1, 137]}),
]


@pytest.mark.parametrize(
    ("role", "ends", "name"),
    [
        pytest.param("Client", [End(42)], "data", id="a code that is listed"),
        pytest.param("Server", [End(42)], "", id="a rule is for one role"),
        pytest.param("Client", [End(1), End(43)], "data", id="one of several processes is enough"),
        pytest.param("Client", [End(1)], "", id="NotIn leaves out what it lists"),
        pytest.param("Client", [End(2)], "unknown", id="NotIn fits any other code"),
        pytest.param("Client", [End(0), End(None)], "", id="neither success nor an unknown end has a code"),
        pytest.param("Client", [End(137, frozenset({"OOMKilled"}))], "memory", id="a cause"),
        pytest.param("Client", [End(42, frozenset({"OOMKilled"}))], "data", id="the first rule that fits"),
        pytest.param("Client", [], "", id="no process, no rule"),
    ],
)
def test_the_first_rule_that_fits_decides(role: str, ends: list[End], name: str) -> None:
    found = fitting(RULES, role, ends)
    assert (found.name if found else "") == name
