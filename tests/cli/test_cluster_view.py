"""What people are shown of a job on a cluster: the causes, in the order of its stages, and what to do about each."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from fedjob.cluster import table
from fedjob.cluster.failures import ApiFailure, explained, not_found
from fedjob.cluster.jobs import verdict
from fedjob.cluster.view import lines, obstacles, render


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    """A condition."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


GOOD = [
    condition("Accepted", "True", "Accepted"),
    condition("CertificatesReady", "True", "Issued"),
    condition("Admitted", "True", "Admitted"),
    condition("ServerReady", "True", "Ready"),
    condition("QuorumReached", "True", "Reached"),
    condition("Progressing", "True", "Training"),
    condition("Degraded", "False", "AllSites"),
    condition("Complete", "False", "NotFinished"),
    condition("Failed", "False", "NotFinished"),
]


def job(*changed: dict[str, str], **status: Any) -> dict[str, Any]:
    """A job that trains, with some conditions changed."""
    kinds = {c["type"]: c for c in changed}
    return {
        "metadata": {"name": "digits", "namespace": "team-a"},
        "spec": {"workflow": {"rounds": 10}, "sites": [{"name": "a"}, {"name": "b"}]},
        "status": {
            "state": "Training",
            "conditions": [kinds.get(c["type"], c) for c in GOOD],
            "progress": {"completedRounds": 3, "totalRounds": 10, "etaSeconds": 90, "lastRoundSeconds": "12.5"},
            "metrics": [{"name": "accuracy", "value": "0.91"}],
            "siteSummary": {"text": "1/2"},
            "sites": [
                {"name": "a", "state": "Running", "training": "Training", "examples": 1533},
                {"name": "b", "state": "Starting", "reason": "ImagePull", "message": "x/y:1: not found", "restarts": 2},
            ],
            **status,
        },
    }


def shown(raw: dict[str, Any]) -> str:
    """The view, in a terminal of 120 columns."""
    console = Console(width=120, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render(raw))
    return console.export_text()


def test_a_job_that_is_well_has_nothing_in_its_way() -> None:
    assert obstacles(job()) == []
    assert verdict(job()) is None


def test_the_causes_are_shown_with_what_to_do_and_what_follows_from_them_is_not() -> None:
    refused = job(
        condition("ServerReady", "False", "QuotaExceeded", "exceeded quota: small"),
        condition("QuorumReached", "False", "WaitingForSites", "0 of 2 sites connected"),
        condition("Progressing", "False", "Waiting"),
        state="QuotaExceeded",
    )
    (only,) = obstacles(refused)
    assert only.text == "ServerReady: QuotaExceeded: exceeded quota: small"
    assert "Lower the resources" in only.remedy
    page = shown(refused)
    assert "digits  QuotaExceeded  namespace team-a" in page
    assert "→ Lower the resources, free the quota or have it raised" in page


def test_sites_that_are_missing_are_a_cause_once_the_server_is_there() -> None:
    waiting = job(condition("QuorumReached", "False", "WaitingForSites", "1 of 2 sites connected; missing: b"))
    assert [o.reason for o in obstacles(waiting)] == ["WaitingForSites"]


def test_every_site_says_what_it_does_or_why_it_does_not() -> None:
    page = shown(job())
    rows = {row.split()[0]: row for row in page.splitlines() if row.strip()}
    assert rows["a"].split() == ["a", "Training", "1,533"]
    assert rows["b"].split(maxsplit=3) == ["b", "Starting", "2", "ImagePull: x/y:1: not found"]
    assert "→ b: Check the image's name and spec.trainer.image, and the pull secret." in page
    assert "round 3/10" in page
    assert "accuracy 0.91" in page


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2Jgone\n\x1b]0;title\x07"
    raw = job(condition("Degraded", "True", "SiteFailed", evil))
    raw["status"]["sites"][1]["message"] = evil
    assert "\x1b" not in shown(raw)
    assert "\x07" not in "".join(lines(None, raw))


def test_changes_are_a_line_each_and_no_change_is_none() -> None:
    first, later = job(), job(progress={"completedRounds": 4, "totalRounds": 10})
    assert lines(first, first) == []
    assert lines(None, first)[0] == "Training  round 3/10  sites 1/2  accuracy 0.91  eta 1 min 30 s"
    assert lines(None, first)[1:] == ["site a Training", "site b Starting: ImagePull: x/y:1: not found"]
    assert lines(first, later) == ["Training  round 4/10  sites 1/2  accuracy 0.91"]
    degraded = job(condition("Degraded", "True", "SiteFailed", "b: died"))
    assert lines(first, degraded) == ["Degraded: SiteFailed: b: died"]


def test_the_end_is_what_the_conditions_say() -> None:
    failed = job(condition("Failed", "True", "QuorumNotMet", "round 1: 1 of 2"))
    assert verdict(failed) == (False, "QuorumNotMet: round 1: 1 of 2")
    assert verdict(job(condition("Complete", "True", "RoundsCompleted"))) == (True, "RoundsCompleted")
    assert verdict({"metadata": {}, "spec": {}}) is None


def test_a_table_has_the_columns_that_kubectl_shows() -> None:
    found = {
        "columnDefinitions": [
            {"name": "Name", "priority": 0},
            {"name": "State", "priority": 0},
            {"name": "ETA", "priority": 1},
        ],
        "rows": [
            {"cells": ["digits", "Training", 90], "object": {"metadata": {"namespace": "team-a"}}},
            {"cells": ["a", None, None], "object": {"metadata": {"namespace": "b"}}},
        ],
    }
    assert table.text(table.rows(found, wide=False, namespaces=False)) == "NAME     STATE\ndigits   Training\na"
    wide = table.rows(found, wide=True, namespaces=True)
    assert wide[0] == ["NAMESPACE", "NAME", "STATE", "ETA"]
    assert wide[1] == ["team-a", "digits", "Training", "90"]


SERVER = "https://hub.example:6443"


@pytest.mark.parametrize(
    ("status", "what", "details", "words"),
    [
        (401, "list jobs", {}, "does not know you"),
        (
            403,
            "delete the job digits",
            {},
            "you may not delete the job digits: ask the cluster's administrator for the role edit",
        ),
        (404, "list jobs (federatedjobs.fedjob.dev)", {}, "does not know FederatedJobs: fedjob is not installed there"),
        (404, "send the job", {"name": "team-b", "kind": "namespaces"}, "cannot send the job: said"),
        (422, "send the job", {}, "the cluster refuses to send the job: said"),
        (429, "list jobs", {}, "cannot list jobs now, try again"),
    ],
)
def test_a_refusal_is_one_line_with_its_cause(status: int, what: str, details: dict[str, str], words: str) -> None:
    text = explained(ApiFailure(status, "Reason", "said\nmore", what, details), SERVER)
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("there", "elsewhere", "words"),
    [
        (["digit", "mnist"], [], "no job digits in namespace n; did you mean digit?"),
        (["mnist", "cxr"], [], "no job digits in namespace n; there are cxr, mnist"),
        (["digit"], ["team-b"], "no job digits in namespace n; there is one in team-b: name it with -n"),
        ([], [], "no job digits in namespace n, and no other; fedjob get -A lists those of all namespaces"),
    ],
)
def test_a_name_that_is_not_there_brings_near_ones(there: list[str], elsewhere: list[str], words: str) -> None:
    assert not_found("digits", "n", there, elsewhere) == words
