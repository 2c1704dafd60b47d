"""What the operator tells of jobs that are over: all of it for ten minutes, and that one has failed for a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.metrics import JobCollector
from fedjob_operator.store import Store

HOUR = timedelta(hours=1)


def told(verdict: str, ago: timedelta) -> set[str]:
    """Types of the conditions that are told of a job that ended so long ago."""
    ended = f"{datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%SZ}"
    kinds = {"Accepted": "True", "Complete": "False", "Failed": "False", verdict: "True"}
    conditions = [{"type": kind, "status": status, "reason": "R"} for kind, status in kinds.items()]
    raw: dict[str, Any] = {
        "apiVersion": names.FEDERATED_JOB.api_version,
        "kind": names.FEDERATED_JOB.name,
        "metadata": {"name": "digits", "namespace": "team-a", "uid": "u", "resourceVersion": "1"},
        "spec": {"sites": [], "workflow": {"rounds": 3}},
        "status": {"completionTime": ended, "conditions": conditions},
    }
    store = Store()
    store.see(names.FEDERATED_JOB.name, raw)
    families = {family.name: family for family in JobCollector(store, {}).collect()}
    return {sample.labels["type"] for sample in families["fedjob_job_condition"].samples}


@pytest.mark.parametrize(
    ("verdict", "ago", "kinds"),
    [
        ("Failed", HOUR / 12, {"Accepted", "Complete", "Failed"}),
        ("Complete", HOUR / 12, {"Accepted", "Complete", "Failed"}),
        ("Failed", HOUR, {"Failed"}),
        ("Failed", 23 * HOUR, {"Failed"}),
        ("Complete", HOUR, set()),
        ("Failed", 25 * HOUR, set()),
    ],
)
def test_conditions_of_a_job_that_is_over(verdict: str, ago: timedelta, kinds: set[str]) -> None:
    assert told(verdict, ago) == kinds
