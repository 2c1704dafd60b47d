"""What becomes of a FederatedJob, told as stories: the user, the kubelet and the operator take turns."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fedjob.api.reasons import JOB_CONDITIONS
from fedjob_operator import names
from fedjob_operator.cluster import ApiError
from fedjob_operator.names import CLIENT, SERVER

COMPLETE = json.dumps({"reason": "RoundsCompleted", "message": ""})


def test_every_condition_is_there_after_the_first_pass(world: Any) -> None:
    key = world.submit()
    world.one_pass(key)
    assert [c["type"] for c in world.status(key)["conditions"]] == list(JOB_CONDITIONS)
    assert world.status(key)["observedGeneration"] == 1


def test_a_job_gets_a_server_first_and_clients_once_it_is_ready(world: Any) -> None:
    key = world.submit()
    world.settle()
    assert len(world.jobs(SERVER)) == 1
    assert world.jobs(CLIENT) == []
    world.start_pods()
    world.settle()
    assert len(world.jobs(CLIENT)) == 2
    assert world.condition(key, "ServerReady") == ("True", "Ready")
    world.start_pods()
    world.report(key)
    world.settle()
    assert world.condition(key, "QuorumReached") == ("True", "Reached")
    assert world.condition(key, "Progressing") == ("True", "Training")
    assert world.status(key)["state"] == "Training"
    assert world.status(key)["siteSummary"]["text"] == "2/2"


def test_the_bring_up_of_two_sites_takes_a_bounded_number_of_calls(world: Any) -> None:
    key = world.submit()
    world.up(key)
    assert len(world.writes) <= 40


def test_nothing_is_written_when_nothing_changes(world: Any) -> None:
    key = world.submit()
    world.up(key)
    before = list(world.writes)
    for _ in range(20):
        world.now += timedelta(seconds=30)
        world.settle()
    assert world.writes == before


def test_the_servers_verdict_completes_the_job_and_stays(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], 0, COMPLETE)
    world.settle()
    assert world.condition(key, "Complete") == ("True", "RoundsCompleted")
    for job in world.jobs(SERVER):
        world.remove((names.JOB.name, "team-a", job["metadata"]["name"]))
    world.now += timedelta(days=2)
    world.settle()
    assert world.condition(key, "Complete") == ("True", "RoundsCompleted")
    assert world.jobs(SERVER) == []


def test_a_stop_condition_is_a_complete_job_that_says_why(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], 0, json.dumps({"reason": "accuracy is 0.9, at least 0.8", "message": ""}))
    world.settle()
    assert world.condition(key, "Complete") == ("True", "EarlyStopped")


def test_a_server_that_dies_is_started_again_as_a_new_run(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], 137)
    world.settle()
    world.now += timedelta(seconds=1)
    world.settle()
    world.start_pods()
    world.settle()
    status = world.status(key)
    assert (status["server"]["run"], status["server"]["restarts"], status["attempt"]) == (2, 1, 1)
    assert "137" in status["server"]["lastTermination"]
    assert len(world.live_servers()) == 1


def test_a_dying_server_uses_up_its_budget_and_the_message_has_its_last_words(world: Any) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 2})
    for _ in range(4):
        world.settle()
        world.start_pods()
        for pod in world.pods(SERVER):
            if pod["status"]["phase"] == "Running":
                world.end_pod(pod, 70, "Traceback: out of luck")
        world.now += timedelta(seconds=40)
    world.settle()
    assert world.condition(key, "Failed") == ("True", "RestartBudgetExhausted")
    failed = next(c for c in world.status(key)["conditions"] if c["type"] == "Failed")
    assert "out of luck" in failed["message"]
    assert world.status(key)["server"]["run"] == 3


def test_completed_rounds_refill_the_budget(world: Any) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 1})
    for completed in range(4):
        world.settle()
        world.start_pods()
        world.settle()
        world.report(key, completed=completed)
        world.end_pod(next(p for p in world.pods(SERVER) if p["status"]["phase"] == "Running"), 70)
        world.settle()
        world.now += timedelta(seconds=40)
    world.settle()
    assert world.status(key)["server"]["restarts"] == 4
    assert world.condition(key, "Failed")[0] == "False"


@pytest.mark.parametrize(("code", "disrupted"), [(137, True), (143, False)])
def test_an_end_from_outside_does_not_count(world: Any, code: int, disrupted: bool) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 0})
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], code, disrupted=disrupted)
    world.settle()
    world.now += timedelta(seconds=1)
    world.settle()
    assert world.status(key)["server"]["run"] == 2
    assert world.condition(key, "Failed")[0] == "False"


def test_no_new_run_while_a_pod_of_the_old_one_may_live(world: Any) -> None:
    """A node that does not answer: its Job has failed, its pod is not known to have ended."""
    key = world.submit()
    world.up(key)
    pod = world.pods(SERVER)[0]
    world.end_pod(pod, 137)
    conditions = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    lost = {"phase": "Running", "conditions": conditions}
    metadata = {**pod["metadata"], "deletionTimestamp": "2030-01-01T00:01:00Z"}
    world.put(names.POD, "team-a", pod["metadata"]["name"], metadata=metadata, status=lost)
    world.now += timedelta(minutes=10)
    world.settle()
    assert world.status(key)["server"]["run"] == 1
    assert world.condition(key, "ServerReady") == ("False", "NodeLost")
    world.remove((names.POD.name, "team-a", pod["metadata"]["name"]))
    world.settle()
    assert world.status(key)["server"]["run"] == 2


@pytest.mark.parametrize("leaving", [False, True])
@pytest.mark.parametrize("was_ready", [True, False])
def test_a_pod_of_a_silent_node_is_told_by_the_node(world: Any, was_ready: bool, leaving: bool) -> None:
    """As Kubernetes writes them: readiness is taken without a reason, later the pod is asked to leave."""
    key = world.submit()
    world.up(key)
    pod = world.pods(SERVER)[0]
    of_the_kubelet = {} if was_ready else {"reason": "ContainersNotReady"}
    conditions = [
        {"type": "Ready", "status": "False", **of_the_kubelet},
        {"type": "ContainersReady", "status": str(was_ready), **of_the_kubelet},
    ]
    if leaving:
        pod["metadata"]["deletionTimestamp"] = "2030-01-01T00:01:00Z"
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"})
    status = {"phase": "Running", "conditions": conditions}
    name = pod["metadata"]["name"]
    world.put(names.POD, "team-a", name, metadata=pod["metadata"], spec={"nodeName": "worker-7"}, status=status)
    world.settle()
    state, reason = world.condition(key, "ServerReady")
    found = next(c for c in world.status(key)["conditions"] if c["type"] == "ServerReady")
    assert state == "False"
    if was_ready or leaving:
        assert (reason, found["message"]) == ("NodeLost", f"pod {name}: node worker-7 does not answer")
    else:
        assert reason == "Pending"
    assert world.status(key)["server"]["run"] == 1


def test_a_job_that_somebody_deletes_comes_back_once_its_pod_is_gone(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.remove((names.JOB.name, "team-a", world.jobs(SERVER)[0]["metadata"]["name"]))
    world.settle()
    assert world.jobs(SERVER) == []
    world.orphans_die()
    world.settle()
    assert world.status(key)["server"]["run"] == 1
    assert len(world.jobs(SERVER)) == 1


def test_suspend_lets_the_round_end_then_takes_every_pod_and_resume_begins_a_new_attempt(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.edit(key, suspend=True)
    world.settle()
    assert world.condition(key, "Admitted") == ("False", "Suspending")
    assert len(world.live_servers()) == 1
    world.end_pod(world.pods(SERVER)[0], 143)
    world.settle()
    world.orphans_die()
    assert world.condition(key, "Admitted") == ("False", "Suspended")
    assert world.jobs(CLIENT) == []
    world.now += timedelta(days=3)
    world.edit(key, suspend=False)
    world.settle()
    world.start_pods()
    world.settle()
    status = world.status(key)
    assert (status["attempt"], status["server"]["run"], status["server"]["restarts"]) == (2, 2, 0)
    assert status["suspendedSeconds"] == 3 * 86_400
    world.start_pods()
    world.settle()
    assert len(world.jobs(CLIENT)) == 2
    assert all(job["metadata"]["labels"][names.RUN_LABEL] == "2" for job in world.jobs(CLIENT))


def test_a_pause_that_is_called_off_before_the_server_has_stopped_is_no_new_attempt(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.edit(key, suspend=True)
    world.settle()
    world.edit(key, suspend=False)
    world.settle()
    assert (world.status(key)["attempt"], world.status(key)["server"]["run"]) == (1, 1)
    world.end_pod(world.pods(SERVER)[0], 143)  # it had heard of the pause
    world.now += timedelta(seconds=1)
    world.settle()
    assert (world.status(key)["attempt"], world.status(key)["server"]["run"]) == (1, 2)
    assert world.condition(key, "Failed")[0] == "False"


def test_a_round_that_does_not_end_is_cut_off(world: Any) -> None:
    key = world.submit(workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    world.up(key)
    world.edit(key, suspend=True)
    world.settle()
    world.now += timedelta(seconds=200)
    world.settle()
    assert world.jobs(SERVER) == []
    assert world.condition(key, "Admitted") == ("False", "Suspended")


def test_a_job_made_suspended_has_no_children_and_no_clock(world: Any) -> None:
    key = world.submit(suspend=True)
    world.settle()
    assert world.jobs(SERVER) == []
    world.now += timedelta(days=30)
    world.edit(key, suspend=False)
    world.settle()
    status = world.status(key)
    assert (status["attempt"], status["server"]["run"]) == (1, 1)
    assert world.condition(key, "Failed")[0] == "False"


def test_a_job_that_never_starts_fails_with_the_reason_why(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=60)
    world.settle()
    waiting = {
        "name": "server",
        "image": "nowhere/x",
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
    }
    world.add_pod(world.jobs(SERVER)[0], {"phase": "Pending", "containerStatuses": [waiting]})
    world.settle()
    assert world.condition(key, "ServerReady") == ("False", "ImagePull")
    world.now += timedelta(seconds=61)
    world.settle()
    assert world.condition(key, "Failed") == ("True", "StartDeadlineExceeded")
    failed = next(c for c in world.status(key)["conditions"] if c["type"] == "Failed")
    assert "no such image" in failed["message"]
    assert world.jobs(SERVER) == []  # cleanPodPolicy: Running


def test_the_active_deadline_stops_a_job_whose_server_cannot(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=60, activeDeadlineSeconds=600)
    world.up(key)
    world.now += timedelta(seconds=661)
    world.settle()
    assert world.condition(key, "Failed") == ("True", "DeadlineExceeded")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"sites": [{"name": "nowhere"}]}, "SiteNotFound", id="a site that is not registered"),
        pytest.param(
            {"model": {"initial": {"path": "model.safetensors"}}}, "Unsupported", id="a file of the user's machine"
        ),
        pytest.param(
            {"workflow": {"type": "FedAvg", "rounds": 3, "quorum": 5}}, "Invalid", id="a quorum above the sites"
        ),
    ],
)
def test_a_job_that_cannot_run_says_why_and_has_no_children(world: Any, change: dict[str, Any], reason: str) -> None:
    key = world.submit(**change)
    world.settle()
    assert world.condition(key, "Accepted") == ("False", reason)
    assert world.jobs(SERVER) == []
    assert not any(kind == names.SITE_JOB.name for kind, _, _ in world.objects)


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


def test_a_spec_that_no_longer_reads_takes_nothing_from_a_running_job(world: Any) -> None:
    key = world.submit(failurePolicy={"refillOnRounds": 1})
    world.up(key)
    world.end_pod(next(p for p in world.pods(CLIENT) if p["metadata"]["labels"][names.SITE_LABEL] == "a"), 70)
    world.now += timedelta(seconds=5)
    world.settle()
    world.start_pods()
    world.report(key, completed=2)
    world.settle()
    before = world.status(key)
    assert next(s for s in before["sites"] if s["name"] == "a")["forgiven"] == 1
    world.edit(key, startDeadlineSeconds=-1)
    world.settle()
    told = world.status(key)
    assert world.condition(key, "Accepted") == ("False", "Invalid")
    assert (told["sites"], told["siteSummary"]) == (before["sites"], before["siteSummary"])
    assert told["server"] == before["server"]
    kept = ("ServerReady", "QuorumReached", "Progressing", "Degraded")
    assert {kind: world.condition(key, kind) for kind in kept} == {
        c["type"]: (c["status"], c["reason"]) for c in before["conditions"] if c["type"] in kept
    }


def test_what_was_forgiven_stays_so_though_the_status_has_lost_it(world: Any) -> None:
    key = world.submit(failurePolicy={"refillOnRounds": 1})
    world.up(key)
    world.end_pod(next(p for p in world.pods(CLIENT) if p["metadata"]["labels"][names.SITE_LABEL] == "a"), 70)
    world.now += timedelta(seconds=5)
    world.settle()
    world.report(key, completed=2)
    world.settle()
    status = world.status(key)
    bare = [{k: v for k, v in site.items() if k != "forgiven"} for site in status["sites"]]
    world.put(names.FEDERATED_JOB, key.namespace, key.name, status={**status, "sites": bare})
    world.settle()
    assert next(s for s in world.status(key)["sites"] if s["name"] == "a")["forgiven"] == 1


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
    victim = next(p for p in world.pods(CLIENT) if p["metadata"]["labels"][names.SITE_LABEL] == "b")
    world.end_pod(victim, 1, "ValueError: bad data")
    world.settle()
    assert world.condition(key, "Degraded") == ("True", "SiteFailed")
    assert world.condition(key, "Failed")[0] == "False"
    entry = next(site for site in world.status(key)["sites"] if site["name"] == "b")
    assert "bad data" in entry["message"]


@pytest.mark.parametrize("policy", ["Running", "All", "None"])
@pytest.mark.parametrize("ending", ["complete", "deadline"])
def test_the_clean_up_is_as_asked_on_every_way_to_the_end(world: Any, policy: str, ending: str) -> None:
    key = world.submit(cleanPodPolicy=policy, startDeadlineSeconds=60, activeDeadlineSeconds=600)
    world.up(key)
    if ending == "complete":
        world.end_pod(world.pods(SERVER)[0], 0, COMPLETE)
    else:
        world.now += timedelta(seconds=700)
    world.settle()
    world.now += timedelta(seconds=120)
    world.settle()
    finished_server = ending == "complete"
    assert len(world.jobs(SERVER)) == {"Running": finished_server, "All": 0, "None": 1}[policy]
    assert len(world.jobs(CLIENT)) == {"Running": 0, "All": 0, "None": 2}[policy]


def test_a_finished_job_is_deleted_after_its_time(world: Any) -> None:
    key = world.submit(ttlSecondsAfterFinished=100)
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], 0, COMPLETE)
    world.settle()
    world.now += timedelta(seconds=99)
    world.settle()
    assert world.status(key)
    world.now += timedelta(seconds=2)
    world.settle()
    assert (names.FEDERATED_JOB.name, "team-a", "digits") not in world.objects


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


def test_a_pause_between_two_runs_of_the_server_waits_for_no_round(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], 1)
    world.settle()
    world.now += timedelta(minutes=5)
    world.settle()  # the next run has no pod that answers yet
    world.edit(key, suspend=True)
    world.settle()
    assert world.condition(key, "Admitted") == ("False", "Suspended")
    assert world.condition(key, "ServerReady")[0] == "False"


def test_a_removed_child_is_made_again_and_a_changed_one_is_mended(world: Any) -> None:
    key = world.submit()
    world.up(key)
    services = [place for place in world.objects if place[0] == names.SERVICE.name]
    world.remove(services[0])
    raw = world.objects[next(place for place in world.objects if place[0] == names.NETWORK_POLICY.name)]
    by_hand = {"manager": "kubectl-edit", "operation": "Update", "time": "2030-01-01T00:00:00Z"}
    metadata = {**raw["metadata"], "resourceVersion": str(world.version + 1), "managedFields": [by_hand]}
    raw = {**raw, "metadata": metadata, "spec": {}}
    world.store.listed(names.NETWORK_POLICY.name, [raw])
    world.writes.clear()
    world.settle()
    assert world.writes.count("apply Service") == 1
    assert world.writes.count("apply NetworkPolicy") >= 1


def test_certificates_are_renewed_at_two_thirds_of_their_life(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=10_000_000, activeDeadlineSeconds=10_000_000)
    world.up(key)
    world.writes.clear()
    world.now += timedelta(days=7 * 0.5)
    world.settle()
    assert "issue" not in world.writes
    world.now += timedelta(days=7 * 0.3)
    world.settle()
    assert world.writes.count("issue") == 3  # the server's and two sites'
    assert world.condition(key, "CertificatesReady") == ("True", "Issued")


def test_a_certificate_is_renewed_while_a_long_round_comes_to_its_end_before_a_pause(world: Any) -> None:
    long = {"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 600_000}
    key = world.submit(workflow=long, startDeadlineSeconds=10_000_000, activeDeadlineSeconds=10_000_000)
    world.up(key)
    world.report(key, completed=1)
    world.edit(key, suspend=True)
    world.settle()
    assert world.condition(key, "Admitted") == ("False", "Suspending")
    world.writes.clear()
    world.now += timedelta(days=7 * 0.78)
    world.settle()
    assert world.condition(key, "Admitted") == ("False", "Suspending")
    assert world.writes.count("issue") == 3  # the server's and two sites'


def test_a_certificate_is_said_to_be_missing_only_while_there_is_none(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=10_000_000, activeDeadlineSeconds=10_000_000)
    world.up(key)
    world.now += timedelta(days=7 * 0.78)
    world.one_pass(key)  # which issues a new one
    assert world.condition(key, "CertificatesReady") == ("True", "Issued")
    world.store.certificates.clear()  # a new process has not looked yet
    world.one_pass(key)
    assert world.condition(key, "CertificatesReady") == ("False", "Issuing")


def test_a_deleted_job_is_left_to_the_garbage_collector(world: Any) -> None:
    key = world.submit()
    world.up(key)
    raw = world.objects[(names.FEDERATED_JOB.name, "team-a", "digits")]
    metadata = {**raw["metadata"], "deletionTimestamp": "2030-01-01T00:01:00Z"}
    world.put(names.FEDERATED_JOB, "team-a", "digits", metadata=metadata)
    world.writes.clear()
    world.one_pass(key)
    assert world.writes == []


def test_a_server_that_could_be_reached_from_outside_is_not_promised(world: Any) -> None:
    key = world.submit(server={"exposure": {"type": "LoadBalancer"}})
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "Unsupported")
    told = next(c for c in world.status(key)["conditions"] if c["type"] == "Accepted")["message"]
    assert told == "spec.server.exposure.type: got LoadBalancer, allowed: ClusterIP, as every site is in this cluster"
    assert world.jobs(SERVER) == []
    world.edit(key, server={"exposure": {"type": "ClusterIP"}})
    world.settle()
    assert world.condition(key, "Accepted") == ("True", "Accepted")


def claim_of(world: Any) -> dict[str, Any]:
    """The spec of the one volume claim."""
    return next(dict(raw["spec"]) for (kind, *_), raw in world.objects.items() if kind == names.VOLUME_CLAIM.name)


@pytest.mark.parametrize("suspend", [False, True])
def test_a_volume_grows_also_while_the_job_is_paused(world: Any, suspend: bool) -> None:
    key = world.submit()
    world.up(key)
    if suspend:
        world.edit(key, suspend=True)
        world.settle()
        world.now += timedelta(hours=3)
        world.settle()
        assert world.condition(key, "Admitted") == ("False", "Suspended")
    world.edit(key, server={"storage": {"size": "100Gi"}})
    world.settle()
    assert claim_of(world)["resources"]["requests"]["storage"] == "100Gi"


def test_a_volume_keeps_its_storage_class_when_the_installations_changes(world: Any) -> None:
    world.settings = replace(world.settings, storage_class="fast")
    key = world.submit()
    world.up(key)
    assert world.status(key)["server"]["storageClassName"] == "fast"
    world.settings = replace(world.settings, storage_class="slow")
    before = len(world.writes)
    world.settle()
    assert claim_of(world)["storageClassName"] == "fast"
    assert world.writes[before:] == []
    world.submit("named", server={"storage": {"storageClassName": "mine"}})
    world.settle()
    claims = [
        raw["spec"]["storageClassName"] for (kind, *_), raw in world.objects.items() if kind == names.VOLUME_CLAIM.name
    ]
    assert sorted(claims) == ["fast", "mine"]
