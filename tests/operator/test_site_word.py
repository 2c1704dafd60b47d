"""The site's word, told as stories: what is refused, denied, not approved yet or stopped has no pods, no code, no certificate."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.names import CLIENT

RULE: dict[str, Any] = {
    "name": "trial",
    "images": [{"repository": "fedjob-runtime"}],
    "inlineCode": "Allow",
    "approval": "Automatic",
}
MANUAL = {**RULE, "approval": "Manual"}


def policy(world: Any, *rules: dict[str, Any], **more: Any) -> None:
    """The site's administrator changes its policy."""
    world.put(names.SITE_POLICY, "team-a", "default", spec={"rules": list(rules), **more})


def assignments(world: Any) -> list[dict[str, Any]]:
    """The SiteJobs."""
    return [raw for (kind, *_), raw in world.objects.items() if kind == names.SITE_JOB.name]


def conditions(world: Any) -> set[tuple[str, str, str]]:
    """What the SiteJobs say, all of them together: type, status, reason."""
    found = [(raw.get("status") or {}).get("conditions") or () for raw in assignments(world)]
    return {(c["type"], c["status"], c["reason"]) for told in found for c in told}


def accepted(world: Any) -> set[tuple[str, str]]:
    """Status and reason of Accepted."""
    return {(status, reason) for kind, status, reason in conditions(world) if kind == "Accepted"}


def of_the_sites(world: Any) -> set[tuple[str, str, str]]:
    """Everything that SiteJobs own, and the Secrets issued for them."""
    uids = {raw["metadata"]["uid"] for raw in assignments(world)}
    owned = {
        place
        for place, raw in world.objects.items()
        if any(owner["uid"] in uids for owner in raw["metadata"].get("ownerReferences") or ())
        and place[0] != names.POD.name
    }
    held = {raw["metadata"]["name"] for raw in assignments(world)}
    return owned | {(names.SECRET.name, *place) for place in world.store.certificates if place[1] in held}


def say(world: Any, decision: str, digest: str = "") -> None:
    """A person decides on each assignment, as its status tells them; digest: another one than the one told there."""
    for raw in assignments(world):
        (told,) = [c["message"] for c in raw["status"]["conditions"] if c["type"] == "Accepted"]
        approval = {"decision": decision, "digest": digest or told.partition("digest: ")[2].partition("}")[0]}
        place = raw["metadata"]["namespace"], raw["metadata"]["name"]
        world.put(names.SITE_JOB, *place, spec={**raw["spec"], "approval": approval})


def bring_up(world: Any, **spec: Any) -> Any:
    """The server is ready, so nothing but the site's word keeps the scripts back."""
    key = world.submit(**spec)
    world.up(key)
    assert {raw["spec"]["suspend"] for raw in assignments(world)} == {False}
    return key


ROUTES = [
    pytest.param([], {}, ("False", "Refused"), id="no rule"),
    pytest.param([{**RULE, "images": []}], {}, ("False", "Refused"), id="refused"),
    pytest.param([RULE], {"floor": {"exchange": {"maxRounds": 1}}}, ("False", "Refused"), id="refused by the floor"),
    pytest.param([RULE], {"suspend": True}, ("False", "SiteSuspended"), id="stopped"),
    pytest.param([MANUAL], {}, ("Unknown", "NeedsApproval"), id="not approved yet"),
]


@pytest.mark.parametrize(("rules", "more", "says"), ROUTES)
def test_without_the_sites_yes_there_is_no_pod_no_code_and_no_certificate(
    world: Any, rules: list[dict[str, Any]], more: dict[str, Any], says: tuple[str, str]
) -> None:
    policy(world, *rules, **more)
    bring_up(world, failurePolicy={"onQuorumLost": "Wait"})
    assert accepted(world) == {says}
    assert of_the_sites(world) == set()
    assert world.pods(CLIENT) == []


def test_without_a_policy_there_is_no_pod_no_code_and_no_certificate(world: Any) -> None:
    world.remove((names.SITE_POLICY.name, "team-a", "default"))
    bring_up(world)
    assert accepted(world) == {("Unknown", "NoPolicy")}
    assert of_the_sites(world) == set()


@pytest.mark.parametrize(
    ("decision", "digest", "says"),
    [
        pytest.param("Denied", "", ("False", "Denied"), id="denied"),
        pytest.param("Approved", "0" * 64, ("Unknown", "NeedsApproval"), id="a yes to something else"),
        pytest.param("Denied", "0" * 64, ("Unknown", "NeedsApproval"), id="a no to something else"),
    ],
)
def test_a_persons_word_holds_for_what_it_was_given_for(
    world: Any, decision: str, digest: str, says: tuple[str, str]
) -> None:
    policy(world, MANUAL)
    bring_up(world, failurePolicy={"onQuorumLost": "Wait"})
    say(world, decision, digest)
    world.settle()
    assert accepted(world) == {says}
    assert of_the_sites(world) == set()


def test_a_yes_lets_the_scripts_run_and_a_change_takes_it_back(world: Any) -> None:
    policy(world, MANUAL)
    key = bring_up(world)
    say(world, "Approved")
    world.settle()
    assert len(world.jobs(CLIENT)) == 2
    world.edit(key, model={"exchange": {"params": "Diff"}})  # what leaves the site is part of what was approved
    world.settle()
    assert accepted(world) == {("Unknown", "NeedsApproval")}
    assert world.jobs(CLIENT) == []


STOPS = [
    pytest.param({"rules": [RULE], "suspend": True}, ("False", "SiteSuspended"), id="stop everything now"),
    pytest.param({"rules": []}, ("False", "Refused"), id="no rule fits any more"),
    pytest.param({"rules": [MANUAL]}, ("Unknown", "NeedsApproval"), id="a person is to be asked"),
]


@pytest.mark.parametrize(("spec", "says"), STOPS)
def test_a_script_that_runs_loses_its_pods_with_the_sites_yes(
    world: Any, spec: dict[str, Any], says: tuple[str, str]
) -> None:
    key = bring_up(world, failurePolicy={"onQuorumLost": "Wait"})
    assert len(world.jobs(CLIENT)) == 2
    world.put(names.SITE_POLICY, "team-a", "default", spec=spec)
    world.settle()
    assert world.jobs(CLIENT) == []
    assert accepted(world) == {says}
    assert ("Running", "False", "NotStarted") in conditions(world)
    world.now += timedelta(hours=1)
    world.settle()
    assert world.jobs(CLIENT) == [], "and none starts while the word stands"
    policy(world, RULE)
    world.orphans_die()
    world.settle()
    assert len(world.jobs(CLIENT)) == 2
    assert world.condition(key, "Failed")[0] == "False"


def test_a_rule_may_be_for_some_data_alone(world: Any) -> None:
    volumes = [{"name": "xrays", "claim": "x"}, {"name": "labs", "claim": "l"}]
    policy(world, {**RULE, "data": ["xrays"]}, data=volumes)
    bring_up(
        world,
        sites=[{"name": "a", "data": "labs"}, {"name": "b", "data": "xrays"}],
        workflow={"type": "FedAvg", "rounds": 3, "quorum": 1},
    )
    told = {raw["spec"]["site"]: raw["status"]["conditions"][0] for raw in assignments(world)}
    assert (told["a"]["reason"], "data labs is not among xrays" in told["a"]["message"]) == ("Refused", True)
    assert told["b"]["reason"] == "Accepted"
    assert [job["metadata"]["labels"][names.SITE_LABEL] for job in world.jobs(CLIENT)] == ["b"]


def test_a_pause_of_the_job_takes_the_pods_of_an_accepted_site_and_says_so(world: Any) -> None:
    key = bring_up(world)
    world.edit(key, suspend=True)
    world.end_pod(world.pods(names.SERVER)[0], 143)
    world.settle()
    assert world.jobs(CLIENT) == []
    assert accepted(world) == {("True", "Accepted")}
    assert ("Running", "False", "Suspended") in conditions(world)


def test_what_has_ended_is_not_taken_away_with_the_word(world: Any) -> None:
    """A Job that is over keeps the log of its pod."""
    bring_up(world, failurePolicy={"onQuorumLost": "Wait"})
    world.end_pod(world.script("a"), 0)
    world.settle()
    policy(world, RULE, suspend=True)
    world.settle()
    left = [job["metadata"]["labels"][names.SITE_LABEL] for job in world.jobs(CLIENT)]
    assert left == ["a"]
    assert ("Finished", "True", "Succeeded") in conditions(world), "and its end stays known"
