"""What becomes of a FederatedJob, told as stories: the user, the kubelet and the operator take turns."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fedjob.api.reasons import JOB_CONDITIONS
from fedjob_operator import names
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


def test_a_spec_that_no_longer_reads_takes_nothing_from_a_running_job(world: Any) -> None:
    key = world.submit(failurePolicy={"refillOnRounds": 1})
    world.up(key)
    world.end_pod(world.script("a"), 70)
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
