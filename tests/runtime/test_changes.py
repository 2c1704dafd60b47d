"""What is said of a job that differs from the one that a run began with."""

from __future__ import annotations

import pytest

from fedjob.api import FederatedJob, loads
from fedjob.changes import Change, changes

JOB = """
apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata: {name: digits}
spec:
  workflow: {rounds: 4}
  trainer: {command: [python, train.py], env: [{name: LR, value: "0.1"}], files: {train.py: "pass"}}
  sites: [{name: a}, {name: b}]
"""


def job() -> FederatedJob:
    return loads(JOB)


def found(before: str, after: str, completed: int = 2) -> list[Change]:
    return changes(job(), loads(JOB.replace(before, after)), completed)


def test_the_same_job_has_no_changes() -> None:
    assert changes(job(), job(), 2) == []


def test_more_rounds_say_how_many_are_left() -> None:
    assert [c.text for c in found("rounds: 4", "rounds: 6")] == [
        "spec.workflow.rounds: 4 -> 6: 2 are complete, 4 are left"
    ]


@pytest.mark.parametrize(("rounds", "refused"), [(1, True), (2, False), (3, False)])
def test_fewer_rounds_than_are_complete_are_refused(rounds: int, refused: bool) -> None:
    (change,) = found("rounds: 4", f"rounds: {rounds}")
    assert change.refused is refused
    assert ("2 rounds are complete already and cannot be undone" in change.text) is refused


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("{name: b}", "{name: c}", "spec.sites[b]: present -> none: takes no part any more"),
        ("{name: b}", "{name: c}", "spec.sites[c]: none -> present: takes part from now on"),
        ("0.1", "0.2", "spec.trainer.env[LR].value: 0.1 -> 0.2: applies from now on"),
        ('"pass"', '"import os"', "spec.trainer.files.train.py: 4 characters -> 9 characters: applies from now on"),
        ("{name: b}", "{name: b, required: true}", "spec.sites[b].required: False -> True: applies from now on"),
    ],
)
def test_each_change_is_a_line_with_both_values(before: str, after: str, line: str) -> None:
    assert any(c.text.startswith(line) and not c.refused for c in found(before, after))


@pytest.mark.parametrize("model", ["exchange: {params: Diff}", "initial: {path: m.safetensors}"])
def test_what_the_runs_model_was_made_with_cannot_change(model: str) -> None:
    assert any(c.refused for c in found("  sites:", f"  model: {{{model}}}\n  sites:"))
