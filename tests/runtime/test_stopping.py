"""When a job ends before its last round."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob.api import StopWhen
from fedjob.stopping import reached, unsent


def rule(**fields: Any) -> StopWhen:
    return StopWhen(metric="m", **fields)


@pytest.mark.parametrize(
    ("when", "values", "why"),
    [
        pytest.param(None, [1.0], "", id="no rule, no end"),
        pytest.param(rule(value=0.9), [], "", id="no value yet"),
        pytest.param(rule(value=0.9), [0.5, 0.89], "", id="not good enough yet"),
        pytest.param(rule(value=0.9), [0.5, 0.9], "m is 0.9, at least 0.9", id="exactly good enough"),
        pytest.param(rule(value=0.9), [0.95, 0.5], "", id="it was good enough and is no longer: only the last counts"),
        pytest.param(rule(value=0.1, goal="Minimize"), [0.5, 0.05], "m is 0.05, at most 0.1", id="low enough"),
        pytest.param(rule(value=0.1, goal="Minimize"), [0.05, 0.5], "", id="too high again"),
        pytest.param(rule(patience_rounds=2), [0.5, 0.6, 0.6], "", id="one round without a better value"),
        pytest.param(rule(patience_rounds=2), [0.5, 0.6, 0.6, 0.55], "m has not improved on 0.6 for 2 rounds",
                     id="an equal value is no improvement"),
        pytest.param(rule(patience_rounds=2), [0.5, 0.6, 0.5, 0.61], "", id="a better value ends the count"),
        pytest.param(rule(patience_rounds=1, goal="Minimize"), [0.5, 0.6], "m has not improved on 0.5 for 1 rounds",
                     id="higher is no improvement where low is good"),
        pytest.param(rule(value=0.9, patience_rounds=1), [0.5, 0.4], "m has not improved on 0.5 for 1 rounds",
                     id="of two conditions one is enough"),
    ],
)  # fmt: skip
def test_a_rule(when: StopWhen | None, values: list[float], why: str) -> None:
    assert reached(when, values) == why


VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(VALUES, st.floats(-1e6, 1e6), st.integers(1, 5))
def test_minimizing_is_maximizing_the_negative(values: list[float], value: float, patience: int) -> None:
    up = reached(rule(value=value, patience_rounds=patience), values)
    down = reached(rule(value=-value, patience_rounds=patience, goal="Minimize"), [-v for v in values])
    assert bool(up) == bool(down)


@given(VALUES, st.integers(1, 5))
def test_patience_never_ends_a_job_in_its_first_rounds_nor_at_its_best(values: list[float], patience: int) -> None:
    if reached(rule(patience_rounds=patience), values):
        assert len(values) > patience
        assert max(values[-patience:]) <= max(values[:-patience])


@pytest.mark.parametrize(
    ("when", "sent", "said"),
    [
        pytest.param(None, [], "", id="no rule"),
        pytest.param(rule(value=1.0), ["loss", "m"], "", id="it was sent"),
        pytest.param(rule(value=1.0), [], "; sites sent none, FLModel(metrics={…})", id="nothing was sent"),
        pytest.param(rule(value=1.0), ["loss", "auc"], "; sites sent auc, loss", id="others were sent"),
        pytest.param(rule(value=1.0), ["loss", "mm", "M"], " (did you mean mm?); sites sent M, loss, mm",
                     id="one with a name much like it"),
        pytest.param(rule(value=1.0), list("987654321"), "; sites sent 1, 2, 3, 4, 5, 6, 7, 8", id="very many"),
        pytest.param(rule(value=1.0), ["m\n"], " (did you mean m ?); sites sent m ", id="a name that would break the line"),
    ],
)  # fmt: skip
def test_a_metric_that_no_site_sends_is_named_with_those_that_they_do(
    when: StopWhen | None, sent: list[str], said: str
) -> None:
    whole = f"no site sent the metric m that spec.workflow.stopWhen.metric names{said}; without it all 5 rounds are run"
    assert unsent(when, sent, 5) == (said and whole)
