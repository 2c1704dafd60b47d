"""What the hub makes of what its sites say, row by row: standing, restarts that are forgiven, hope and quorum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedjob.api import JobSpec
from fedjob_operator.desired import sites
from fedjob_operator.desired.conditions import State
from fedjob_operator.desired.job import read
from fedjob_operator.desired.server import Verdict
from fedjob_operator.desired.sites import SiteView
from fedjob_operator.observed import Observed, Site, SiteJob

A = SiteJob("a", "n", "fj-a", "uid-a", ("True", "Accepted", ""), ("True", "Running", ""), ("False", "NotFinished", ""))


def spec(**changes: Any) -> JobSpec:
    """A spec of the sites a and b."""
    body = {
        "workflow": {"type": "FedAvg", "rounds": 9, "quorum": 2},
        "trainer": {"files": {"train.py": ""}},
        "sites": [{"name": "a"}, {"name": "b", "required": True}],
        "failurePolicy": {"refillOnRounds": 5},
        **changes,
    }
    metadata = {"name": "j", "namespace": "n"}
    return read({"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": metadata, "spec": body}).spec


SPEC = spec()


def view(site_job: SiteJob | None = A, before: dict[str, Any] | None = None, rounds: int = 0, **seen: Any) -> SiteView:
    """What is seen of a."""
    status = {"sites": [{"name": "a", **(before or {})}]}
    there = (site_job,) if site_job is not None else ()
    return sites.views(
        SPEC, Observed(job={"metadata": {"namespace": "n"}, "status": status}, site_jobs=there, **seen), rounds
    )[0]


@pytest.mark.parametrize(
    ("said", "state", "reason", "out"),
    [
        ({}, "Running", "Running", False),
        ({"running": ("False", "Pending", "m")}, "Starting", "Pending", False),
        ({"running": ("Unknown", "", "")}, "Starting", "", False),
        ({"accepted": ("Unknown", "NeedsApproval", "m")}, "Assigned", "NeedsApproval", False),
        ({"accepted": ("Unknown", "", "")}, "Assigned", "", False),
        ({"accepted": ("False", "Refused", "m")}, "Refused", "Refused", True),
        ({"accepted": ("False", "Denied", "m")}, "Refused", "Denied", True),
        ({"accepted": ("False", "SiteSuspended", "m")}, "Waiting", "SiteSuspended", False),
        ({"accepted": ("False", "DataNotFound", "m")}, "Waiting", "DataNotFound", False),
        ({"finished": ("True", "Succeeded", "")}, "Finished", "Succeeded", False),
        ({"finished": ("True", "RestartBudgetExhausted", "m")}, "Failed", "RestartBudgetExhausted", True),
        (
            {"finished": ("True", "SiteFailedByRule", "m"), "accepted": ("False", "Refused", "")},
            "Failed",
            "SiteFailedByRule",
            True,
        ),
    ],
)
def test_where_a_site_stands(said: dict[str, Any], state: str, reason: str, out: bool) -> None:
    found = view(replace(A, **said))
    assert (found.state, found.reason, found.out) == (state, reason, out)


def test_a_site_without_an_assignment_is_being_assigned_and_one_that_is_refused_says_why() -> None:
    assert view(None) == SiteView("a", False, "Assigning")
    refused = {"unassigned": {"a": "quota"}}
    waits = replace(A, running=("False", "Pending", ""))
    for site_job in (None, waits):
        found = view(site_job, **refused)
        assert (found.state, found.reason, found.message) == ("Assigning", "Forbidden", "quota")
    assert view(A, **refused).state == "Running", "what runs there runs on"
    assert view(replace(A, finished=("True", "Succeeded", "")), **refused).state == "Finished"
    assert view(replace(A, accepted=("False", "Denied", "")), **refused).state == "Refused"


@pytest.mark.parametrize(
    ("training", "running", "connected"),
    [("Training", "True", True), ("Waiting", "True", True), ("Lost", "True", False), (None, "True", False), ("Training", "False", False)],
)  # fmt: skip
def test_a_site_is_connected_if_its_script_runs_and_the_server_hears_it(
    training: str | None, running: str, connected: bool
) -> None:
    site_job = replace(A, running=(running, "", ""))
    assert view(site_job, {"training": training} if training else {}).connected is connected


@pytest.mark.parametrize(
    ("restarts", "before", "rounds", "forgiven", "at_round"),
    [
        (0, {}, 7, 0, 0),
        (1, {}, 7, 0, 7),  # a new one: counted from now
        (2, {"restarts": 1, "restartRound": 1}, 9, 0, 9),
        (1, {"restarts": 1, "restartRound": 2}, 6, 0, 2),
        (1, {"restarts": 1, "restartRound": 2}, 7, 1, 2),
        (3, {"restarts": 3, "restartRound": 2, "forgiven": 1}, 7, 3, 2),
        (3, {"restarts": 3, "restartRound": 2, "forgiven": 3}, 99, 3, 2),
        (4, {"restarts": 3, "restartRound": 2, "forgiven": 3}, 99, 3, 99),
    ],
)
def test_restarts_are_forgiven_once_enough_rounds_went_by_since_the_last(
    restarts: int, before: dict[str, int], rounds: int, forgiven: int, at_round: int
) -> None:
    found = view(replace(A, restarts=restarts), before, rounds)
    assert (found.restarts, found.forgiven, found.at_round) == (restarts, forgiven, at_round)


def test_what_the_assignment_says_is_forgiven_stays_so_though_the_status_has_lost_it() -> None:
    found = view(replace(A, restarts=2, forgiven=2), {"restarts": 2})
    assert found.forgiven == 2


def test_a_site_that_cannot_be_seen_is_as_it_was() -> None:
    places = {"a": Site("a", True, "far"), "b": Site("b", True)}
    before = {
        "state": "Running",
        "restarts": 2,
        "forgiven": 1,
        "restartRound": 3,
        "training": "Training",
        "message": "m",
    }
    found = view(A, before, sites=places, forbidden={"far": "words"})
    assert found == SiteView("a", False, "Running", "SiteForbidden", "words", 2, 1, 3, out=False, connected=True)
    for state, out in (("Failed", True), ("Refused", True), ("Finished", False)):
        over = view(A, {"state": state, "reason": "r", "message": "m"}, sites=places, forbidden={"far": "words"})
        assert (over.state, over.reason, over.message, over.out) == (state, "r", "m", out)
    new = view(A, {}, sites=places, forbidden={"far": "words"})
    assert (new.state, new.reason, new.connected) == ("Assigning", "SiteForbidden", False)


GOOD, OUT = SiteView("a", False, "Running", connected=True), SiteView("b", False, "Failed", "R", "m", out=True)


def test_a_job_is_hopeless_without_a_required_site_or_below_its_quorum() -> None:
    assert sites.hopeless(SPEC, [GOOD, replace(GOOD, name="b")]) is None
    assert sites.hopeless(SPEC, [GOOD, OUT]) == Verdict(
        False, "QuorumUnreachable", "1 of 2 sites are left, 2 needed; b: R: m"
    )
    required = replace(OUT, required=True)
    assert sites.hopeless(SPEC, [GOOD, required]) == Verdict(False, "RequiredSiteFailed", "b: R: m")
    lower = spec(workflow={"type": "FedAvg", "rounds": 9, "quorum": 1})
    assert sites.hopeless(lower, [GOOD, OUT]) is None


def test_a_rule_of_the_job_ends_it() -> None:
    by_rule = replace(OUT, reason="JobFailedByRule")
    assert sites.ended_by_rule([GOOD, by_rule]) == Verdict(False, "FailedByRule", "b: m")
    assert sites.ended_by_rule([GOOD, OUT]) is None


def test_degraded_says_who_is_out_and_whether_all_were_refused() -> None:
    refused = replace(OUT, name="c", state="Refused")
    assert sites.degraded([GOOD]) == State("False", "AllSites")
    assert sites.degraded([GOOD, refused]) == State("True", "SiteRefused", "c: R: m")
    assert sites.degraded([OUT, refused]) == State("True", "SiteFailed", "b: R: m; c: R: m")


def test_a_quorum_is_reached_with_enough_and_every_required_one() -> None:
    away = SiteView("c", False, "Starting", "Pending", "x" * 200)
    two = [GOOD, replace(GOOD, name="b")]
    assert sites.quorum(SPEC, two) == State("True", "Reached", "2 of 2 sites connected, 2 needed")
    said = f"2 of 3 sites connected, 2 needed; missing: c (Pending: {'x' * 120})"
    assert sites.quorum(SPEC, [*two, away]) == State("True", "Reached", said)
    assert sites.quorum(SPEC, [*two, replace(away, required=True)]).status == "False"
    bare = SiteView("c", False, "Starting")
    said = "1 of 2 sites connected, 2 needed; missing: c (Starting)"
    assert sites.quorum(SPEC, [GOOD, bare]) == State("False", "WaitingForSites", said)


def test_a_list_is_cut_at_eight() -> None:
    assert sites.named(map(str, range(8))) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert sites.named(map(str, range(10))) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


def test_admission_names_the_first_thing_that_is_missing() -> None:
    a, b = Site("a", True, allowed=("n",)), Site("b", True, allowed=("m", "n"))
    rows: list[tuple[dict[str, Site], str, str]] = [
        ({"a": a}, "SiteNotFound", "b: no FederatedSite of this name"),
        (
            {"a": replace(a, approved=False), "b": replace(b, allowed=())},
            "SiteNotApproved",
            "a: not approved (spec.approved of the FederatedSite)",
        ),
        (
            {"a": a, "b": replace(b, allowed=("m",))},
            "SiteNotAllowed",
            "b: takes no jobs of namespace n (spec.allowedNamespaces of the FederatedSite)",
        ),
    ]
    assert sites.admission(SPEC, "n", {"a": a, "b": b}) is None
    for there, reason, says in rows:
        assert sites.admission(SPEC, "n", there) == State("False", reason, says)
