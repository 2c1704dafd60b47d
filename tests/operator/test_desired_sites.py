"""A job's sites: approved, refused, moved, taken out; each has a SiteJob, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fedjob_operator import names
from fedjob_operator.cluster import ApiError
from fedjob_operator.names import CLIENT, SERVER


def test_an_approval_starts_a_waiting_job(world: Any) -> None:
    world.add_site("b", approved=False)
    key = world.submit()
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "SiteNotApproved")
    world.add_site("b")
    world.settle()
    assert world.condition(key, "Accepted") == ("True", "Accepted")
    assert len(world.jobs(SERVER)) == 1


def test_a_refusal_of_a_required_site_ends_the_job(world: Any) -> None:
    key = world.submit(sites=[{"name": "a"}, {"name": "b", "required": True}])
    world.put(names.SITE_POLICY, "team-a", "default", spec={"rules": []})
    world.settle()
    assert world.condition(key, "Failed") == ("True", "RequiredSiteFailed")


def test_what_a_site_said_of_an_older_spec_ends_no_job(world: Any) -> None:
    """Paused, given an image that the site refuses, given another one, resumed: the site has not judged that one yet."""
    key = world.submit(sites=[{"name": "a", "required": True}, {"name": "b"}])
    world.up(key)
    world.edit(key, suspend=True)
    world.now += timedelta(days=1)
    world.settle()
    assigned = (raw for raw in world.objects.values() if raw["kind"] == names.SITE_JOB.name)
    mine = next(raw for raw in assigned if raw["spec"]["site"] == "a")
    place = (names.SITE_JOB.name, key.namespace, mine["metadata"]["name"])
    refused = {"type": "Accepted", "status": "False", "reason": "Refused", "message": "no rule"}
    status = world.objects[place]["status"]
    others = [c for c in status["conditions"] if c["type"] != "Accepted"]
    world.put(names.SITE_JOB, place[1], place[2], status={**status, "conditions": [refused, *others]})
    world.edit(key, suspend=False, trainer={"files": {"train.py": "pass"}})
    for _ in range(3):
        world.one_pass(key)
    assert world.condition(key, "Failed")[0] == "False"
    world.settle()
    assert world.condition(key, "Degraded")[0] == "False"


def test_a_site_whose_assignment_is_refused_says_so_and_the_others_train(world: Any) -> None:
    words = 'PATCH sitejobs: 404 NotFound: namespaces "nowhere" not found'
    key = world.submit(workflow={"type": "FedAvg", "rounds": 3, "quorum": 1})
    world.settle()
    place = next(p for p, raw in world.objects.items() if p[0] == names.SITE_JOB.name and raw["spec"]["site"] == "b")
    world.remove(place)
    world.store.unassigned[key] = {"b": words}
    world.one_pass(key)
    entry = next(site for site in world.status(key)["sites"] if site["name"] == "b")
    assert (entry["state"], entry["reason"], entry["message"]) == ("Assigning", "Forbidden", words)
    quorum = next(c for c in world.status(key)["conditions"] if c["type"] == "QuorumReached")
    assert f"b (Forbidden: {words}" in quorum["message"]
    assert world.condition(key, "Failed")[0] == "False"
    del world.store.unassigned[key]
    world.settle()
    assert next(site for site in world.status(key)["sites"] if site["name"] == "b")["reason"] != "Forbidden"


def test_what_a_write_meets_that_only_a_person_can_change_is_a_refusal() -> None:
    def refused(status: int, what: str) -> bool:
        return ApiError(status, "", "", what).refused

    assert all(refused(status, "PATCH sitejobs") for status in (400, 401, 403, 404, 422))
    assert refused(404, "POST jobs")
    assert not any(refused(status, "GET pods") for status in (400, 404))
    assert not any(refused(status, "PATCH services") for status in (0, 409, 429, 500, 503))


def test_a_site_that_fails_for_good_degrades_the_job(world: Any) -> None:
    key = world.submit(failurePolicy={"siteRestarts": 0})
    world.up(key)
    victim = world.script("b")
    world.end_pod(victim, 1, "ValueError: bad data")
    world.settle()
    assert world.condition(key, "Degraded") == ("True", "SiteFailed")
    assert world.condition(key, "Failed")[0] == "False"
    entry = next(site for site in world.status(key)["sites"] if site["name"] == "b")
    assert "bad data" in entry["message"]


def test_a_site_taken_out_of_the_job_loses_its_assignment(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.edit(key, sites=[{"name": "a"}])
    world.settle()
    assert [job["metadata"]["labels"][names.SITE_LABEL] for job in world.jobs(CLIENT)] == ["a"]


def test_the_only_site_of_a_job_loses_its_assignment_with_its_approval(world: Any) -> None:
    key = world.submit(sites=[{"name": "a"}])
    world.up(key)
    assert len(world.jobs(CLIENT)) == 1
    world.add_site("a", approved=False)
    world.settle()
    assert world.jobs(CLIENT) == []


def test_a_site_whose_place_has_moved_leaves_no_assignment_behind(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.add_site("a", namespace="elsewhere")
    world.settle()
    placed = {place[1] for place in world.objects if place[0] == names.SITE_JOB.name and "-a-" in place[2]}
    assert placed == {"elsewhere"}


def test_a_new_authority_and_a_new_image_of_the_hub_stop_no_script_that_a_person_has_approved(world: Any) -> None:
    rule = {"name": "asks", "images": [{"repository": "fedjob-runtime"}], "inlineCode": "Allow", "approval": "Manual"}
    world.put(names.SITE_POLICY, "team-a", "default", spec={"rules": [rule]})
    key = world.submit()
    world.settle()
    world.approve_all()
    world.up(key)
    before = {job["metadata"]["name"] for job in world.jobs(CLIENT)}
    assert len(before) == 2
    world.upgrade_the_hub("fedjob-runtime:next")
    world.settle()
    assert {job["metadata"]["name"] for job in world.jobs(CLIENT)} == before
    assert world.status(key)["runtimeImage"] == "fedjob-runtime:test"


def test_an_assignment_that_the_hub_has_not_made_gets_no_certificate(world: Any) -> None:
    """Its maker could speak for another site of the job."""
    key = world.submit()
    world.up(key)
    mine = next(
        raw for (kind, _, _), raw in world.objects.items() if kind == names.SITE_JOB.name and raw["spec"]["site"] == "b"
    )
    world.put(
        names.SITE_POLICY,
        "team-b",
        "default",
        spec=world.objects[(names.SITE_POLICY.name, "team-a", "default")]["spec"],
    )
    forged = {**mine["spec"], "site": "a"}
    uid = world.objects[(names.FEDERATED_JOB.name, "team-a", "digits")]["metadata"]["uid"]
    for name in ("mine", names.site_job("digits", uid, "a")):
        world.put(names.SITE_JOB, "team-b", name, spec=forged, metadata={"labels": {}})
    world.settle()
    assert not [place for place in world.store.certificates if place[0] == "team-b"]
    assert not [job for job in world.jobs(CLIENT) if job["metadata"]["namespace"] == "team-b"]
    told = world.objects[(names.SITE_JOB.name, "team-b", "mine")]["status"]["conditions"]
    assert ("Accepted", "NotAssigned") in {(c["type"], c["reason"]) for c in told}


def test_no_script_starts_again_once_the_job_is_over_whatever_pods_may_stay(world: Any) -> None:
    key = world.submit(cleanPodPolicy="None", startDeadlineSeconds=60, activeDeadlineSeconds=600)
    world.up(key)
    world.now += timedelta(seconds=700)
    world.settle()
    world.now += timedelta(seconds=120)
    world.settle()
    before = {job["metadata"]["name"] for job in world.jobs(CLIENT)}
    for pod in world.pods(CLIENT):
        world.end_pod(pod, 1)
    world.settle()
    world.now += timedelta(hours=1)
    world.settle()
    assert {job["metadata"]["name"] for job in world.jobs(CLIENT)} == before
