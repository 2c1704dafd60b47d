"""What `make e2e` says of a measure: met only if something ran, and all of it went well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.measures import Tally, table, write

GOOD: dict[str, Any] = {"value": 3, "unit": "writes", "goal": "≤ 5", "met": True, "detail": {"jobs": 100}}


def tally(*outcomes: str, figures: tuple[dict[str, Any], ...] = ()) -> Tally:
    made = Tally()
    for number, outcome in enumerate(outcomes):
        made.add(f"test_{number}", outcome, 1.5, list(figures))
    return made


@pytest.mark.parametrize(
    ("made", "met", "value"),
    [
        pytest.param(tally("passed"), True, 0, id="every test passed"),
        pytest.param(tally("passed", "failed"), False, 1, id="a test failed"),
        pytest.param(tally("passed", "skipped"), False, 0, id="what was skipped shows nothing"),
        pytest.param(tally(), False, 0, id="nothing ran"),
        pytest.param(tally("passed", figures=(GOOD,)), True, 3, id="a figure meets its goal"),
        pytest.param(tally("failed", figures=(GOOD,)), False, 3, id="a figure of a test that failed"),
        pytest.param(tally("passed", figures=({**GOOD, "met": False},)), False, 3, id="a figure misses its goal"),
    ],
)
def test_a_measure_is_met_if_all_of_it_went_well(made: Tally, met: bool, value: int) -> None:
    entry = made.entry()
    assert (entry["met"], entry["value"]) == (met, value)
    assert entry.keys() == {"value", "unit", "goal", "met", "peers", "detail"}


def test_what_another_run_wrote_of_other_measures_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "build" / "e2e.json"
    write(file, {"O6": tally("passed"), "O1": tally("failed")})
    write(file, {"O1": tally("passed", figures=(GOOD,))})
    found = json.loads(file.read_text())
    assert list(found) == ["O1", "O6"]
    assert found["O1"]["met"]
    assert found["O1"]["detail"]["jobs"] == 100


def test_a_line_for_people_says_what_was_not_met() -> None:
    lines = table({"O6": tally("passed"), "O1": tally("failed")})
    assert lines == [
        "O1: NOT MET: 1 failed tests (goal 0); 0 tests passed in 2 s",
        "O6: met: 0 failed tests (goal 0); 1 tests passed in 2 s",
    ]
