"""From a server's report to the status: what is allowed there, and what is news."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fedjob.api import JobStatus
from fedjob.records import Condition, FinalModel, JobRef, Progress, SiteStatus, Status
from fedjob_operator.hub.reports import is_news, manifest, without_metrics

JOB = {"metadata": {"namespace": "n", "name": "digits", "uid": "u", "resourceVersion": "7"}, "spec": {}}
NOW = datetime(2030, 1, 1, tzinfo=UTC)
REPORT = Status(
    job=JobRef("digits", "u", 2),
    state="Running",
    progress=Progress(3, 3, 10, last_round_seconds=1.5, eta_seconds=60.4),
    metrics={"loss": float("nan"), "accuracy": 0.25},
    sites=(SiteStatus("a", state="Training", examples=12.0), SiteStatus("b", message="x" * 5000)),
)


FULL = Condition("DiskFull", "NoSpace", "/state: No space left on device; waiting for room: server" + "x" * 5000)


def after(report: Status) -> dict[str, Any]:
    return {**JOB, "status": manifest(JOB, report, NOW)["status"]}


def test_a_report_is_what_the_model_of_the_status_allows() -> None:
    for report in (
        REPORT,
        Status(job=JobRef("digits", "u")),
        replace(REPORT, reason="loss is 0.1, at most 0.2", state="Complete"),
        replace(REPORT, model=FinalModel("0" * 64, 12)),
        replace(REPORT, conditions=(FULL, Condition("Odd"))),
        replace(REPORT, reason="3rd", conditions=(Condition("No room"), Condition("Odd", "two words"))),
        replace(REPORT, reason="ünfit"),
        replace(REPORT, metrics={"my metric": 1.0, "": 2.0, "x" * 500: 3.0, "a\x00b\u2003c": 4.0}),
    ):
        told = manifest(JOB, report, NOW)
        status = JobStatus.model_validate_json(json.dumps(told["status"]))
        assert status.progress is not None
        assert told["metadata"]["resourceVersion"] == "7"


def test_the_same_report_again_is_no_news_and_neither_is_a_new_estimate() -> None:
    assert is_news(JOB, manifest(JOB, REPORT, NOW))
    assert not is_news(after(REPORT), manifest(JOB, REPORT, NOW))
    later = replace(REPORT, progress=replace(REPORT.progress, eta_seconds=55.0), updated_at=99.0)
    assert not is_news(after(REPORT), manifest(after(REPORT), later, NOW + timedelta(minutes=1)))


def test_a_round_a_site_or_a_metric_is_news() -> None:
    for changed in (
        replace(REPORT, progress=replace(REPORT.progress, completed_rounds=4)),
        replace(REPORT, sites=(replace(REPORT.sites[0], state="Answered"), REPORT.sites[1])),
        replace(REPORT, metrics={"accuracy": 0.5}),
        replace(REPORT, model=FinalModel("0" * 64, 12)),
    ):
        assert is_news(after(REPORT), manifest(JOB, changed, NOW))


def test_a_metric_keeps_what_can_be_shown_of_its_name() -> None:
    told = manifest(JOB, replace(REPORT, metrics={"my metric": 1.0, "loss": 2.0}), NOW)
    assert told["status"]["metrics"] == [{"name": "loss", "value": "2"}, {"name": "my_metric", "value": "1"}]
    rest = without_metrics(told)["status"]
    assert (rest["metrics"], rest["progress"], rest["sites"]) == (
        [],
        told["status"]["progress"],
        told["status"]["sites"],
    )


def test_what_hinders_the_server_is_told_and_so_is_its_end() -> None:
    hindered = replace(REPORT, conditions=(FULL,))
    told = manifest(after(REPORT), hindered, NOW)
    assert is_news(after(REPORT), told)
    [condition] = told["status"]["progress"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("DiskFull", "NoSpace")
    assert not is_news(after(hindered), manifest(after(hindered), hindered, NOW))
    over = manifest(after(hindered), REPORT, NOW)
    assert is_news(after(hindered), over)
    assert "conditions" not in over["status"]["progress"]


def test_the_time_of_a_round_is_that_of_the_first_report_of_it() -> None:
    later = NOW + timedelta(minutes=1)
    same = manifest(after(REPORT), REPORT, later)["status"]["progress"]["lastRoundTime"]
    assert same == after(REPORT)["status"]["progress"]["lastRoundTime"] == "2030-01-01T00:00:00Z"
    next_round = replace(REPORT, progress=replace(REPORT.progress, completed_rounds=4))
    assert manifest(after(REPORT), next_round, later)["status"]["progress"]["lastRoundTime"] == "2030-01-01T00:01:00Z"
    none_yet = replace(REPORT, progress=replace(REPORT.progress, completed_rounds=0))
    assert "lastRoundTime" not in manifest(JOB, none_yet, NOW)["status"]["progress"]
