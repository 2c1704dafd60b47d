"""How a run has ended, from what its pods say, also those that are no longer there; and what follows for the next run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.desired.runs import Death, death, pause_seconds
from fedjob_operator.names import CLIENT, SERVER
from fedjob_operator.observed import BatchJob, Pod, read_pod
from fedjob_operator.store import Store, place_of

END = datetime(2030, 1, 1, tzinfo=UTC)
JOB = BatchJob("j", "uid-j", 3, "Failed", started_at=END - timedelta(minutes=1), finished_at=END)


def ended(name: str, **fields: Any) -> Pod:
    return Pod(name, f"uid-{name}", 3, phase="Failed", **fields)


def after(*pods: Pod) -> Death:
    return death(JOB, pods, "Client", (), "no limit")


# ---------------------------------------------------------------------------------------------- whose fault it was


def test_a_node_that_crashes_counts_though_the_others_are_told_to_end() -> None:
    crash, told, asked = (
        ended("n0", exit_code=1, words="KeyError"),
        ended("n1", exit_code=143),
        ended("n2", deleted=True),
    )
    end = after(told, crash, asked)
    assert (end.action, end.words) == ("Restart", "pod n0 ended with exit code 1: KeyError")
    assert after(told, asked).action == "Ignore"


def test_a_disruption_of_one_node_excuses_the_others() -> None:
    assert after(ended("n0", exit_code=1), ended("n1", exit_code=137, disrupted=True)).action == "Ignore"


def test_a_pod_that_leaves_for_what_it_uses_has_failed_by_itself() -> None:
    """The kubelet evicts it and calls that no disruption."""
    words = 'Usage of EmptyDir volume "scratch" exceeds the limit "100Gi".'
    raw = pod(SERVER, status={"phase": "Failed", "reason": "Evicted", "message": words})
    end = after(read_pod(raw))
    assert (end.action, words in end.words) == ("Restart", True)


def test_a_scripts_traceback_is_told_by_the_exception_that_it_names() -> None:
    log = "epoch 1\nTraceback (most recent call last):\n  File \"train.py\", line 1, in <module>\nKeyError: 'w'\nbye\n"
    end = {"name": CLIENT, "state": {"terminated": {"exitCode": 1, "message": log}}}
    said = after(read_pod(pod(CLIENT, status={"phase": "Failed", "containerStatuses": [end]})))
    assert said.words.endswith("ended with exit code 1: KeyError: 'w'")


# -------------------------------------------------------------------------------------------------- how long to wait


@pytest.mark.parametrize("fate", [{"exit_code": 143}, {"disrupted": True}, {"deleted": True}])
def test_what_does_not_count_waits_longer_from_run_to_run_unless_it_lasted_long(fate: dict[str, Any]) -> None:
    end = after(ended("p", **fate))
    waits = [pause_seconds(end, BatchJob("j", "u", run, "Failed", END, END), 0, END) for run in (1, 2, 5, 50)]
    assert waits == [0.1, 0.2, 1.6, 30.0]
    lasted = BatchJob("j", "u", 50, "Failed", END - timedelta(hours=1), END)
    assert pause_seconds(end, lasted, 0, END) == 0.1


@pytest.mark.parametrize(("code", "disrupted"), [(143, False), (137, True)])
def test_a_script_that_always_ends_as_if_from_outside_does_not_spin(world: Any, code: int, disrupted: bool) -> None:
    key = world.submit()
    world.up(key)
    world.always_end(200.0, code, disrupted=disrupted)
    assert 10 < max(int(job["metadata"]["labels"][names.RUN_LABEL]) for job in world.jobs(CLIENT)) < 20


# --------------------------------------------------------------------------------------------------- pods that are gone


def job_fails(world: Any, raw: dict[str, Any]) -> None:
    """The Job of a pod that is gone says that it has failed."""
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "BackoffLimitExceeded",
        "lastTransitionTime": world.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    owner = raw["metadata"]["ownerReferences"][0]["uid"]
    job = next(job for job in world.jobs(SERVER) if job["metadata"]["uid"] == owner)
    world.put(names.JOB, "team-a", job["metadata"]["name"], status={"conditions": [condition]})


def vanish(world: Any, status: dict[str, Any] | None = None) -> None:
    """The server's pod goes, in its last state, before its Job says that it has failed."""
    raw = next(raw for raw in world.pods(SERVER) if raw["status"]["phase"] == "Running")
    place = (names.POD.name, "team-a", raw["metadata"]["name"])
    world.objects[place] = {**raw, "status": status or raw["status"]}
    world.remove(place)
    job_fails(world, raw)
    for _ in range(2):
        world.settle()
        world.now += timedelta(seconds=1)


def crashed(code: int, words: str) -> dict[str, Any]:
    end = {"exitCode": code, "message": words, "finishedAt": "2030-01-01T00:00:00Z"}
    return {"phase": "Failed", "containerStatuses": [{"name": SERVER, "state": {"terminated": end}}]}


def test_the_last_words_of_a_pod_that_is_gone_before_its_job_has_failed_are_kept(world: Any) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 1})
    world.up(key)
    vanish(world, crashed(70, "out of luck"))
    server = world.status(key)["server"]
    assert (server["run"], server["counted"], "exit code 70: out of luck" in server["lastTermination"]) == (2, 1, True)


def test_a_pod_that_was_deleted_alive_does_not_count(world: Any) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 0})
    world.up(key)
    vanish(world)
    server = world.status(key)["server"]
    assert (server["run"], server["counted"]) == (2, 0)
    assert "was deleted before it had ended" in server["lastTermination"]


def test_an_operator_that_was_started_since_takes_a_failed_job_without_pods_for_one_whose_pod_was_deleted(
    world: Any,
) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 0})
    world.up(key)
    (raw,) = world.pods(SERVER)
    world.remove((names.POD.name, "team-a", raw["metadata"]["name"]))
    job_fails(world, raw)
    world.store = Store()
    for (kind, _, _), found in world.objects.items():
        world.store.see(kind, found)
    for _ in range(2):
        world.settle()
        world.now += timedelta(seconds=1)
    server = world.status(key)["server"]
    assert (server["run"], server["counted"]) == (2, 0)


def test_a_server_that_concluded_and_is_gone_has_still_given_its_verdict(world: Any) -> None:
    key = world.submit()
    world.up(key)
    vanish(world, crashed(1, json.dumps({"reason": "NoInitialModel", "message": "no site offered one"})))
    assert world.condition(key, "Failed") == ("True", "NoInitialModel")


def test_pods_that_a_queue_takes_back_are_not_remembered(world: Any) -> None:
    key = world.submit()
    world.up(key)
    raw = world.pods(SERVER)[0]
    job = world.jobs(SERVER)[0]["metadata"]["name"]
    world.put(names.JOB, "team-a", job, spec={"suspend": True})
    world.remove((names.POD.name, "team-a", raw["metadata"]["name"]))
    world.put(names.JOB, "team-a", job, spec={"suspend": False})
    seen = world.store.job(key)
    assert seen is not None
    assert seen.pods == ()


def test_what_is_remembered_of_pods_goes_with_their_job(world: Any) -> None:
    key = world.submit()
    world.up(key)
    raw = world.pods(SERVER)[0]
    world.remove((names.POD.name, "team-a", raw["metadata"]["name"]))
    remembered = world.store.job(key)
    assert remembered is not None
    assert [pod.uid for pod in remembered.pods] == [raw["metadata"]["uid"]]
    job = world.jobs(SERVER)[0]
    world.remove((names.JOB.name, "team-a", job["metadata"]["name"]))
    world.put(names.JOB, "team-a", job["metadata"]["name"], metadata=job["metadata"])
    forgotten = world.store.job(key)
    assert forgotten is not None
    assert forgotten.pods == ()


# --------------------------------------------------------------------------------------------------- what a pod says


def pod(role: str, **parts: Any) -> dict[str, Any]:
    metadata = {"name": "p", "uid": "uid-p", "labels": {names.ROLE_LABEL: role, names.RUN_LABEL: "3"}}
    return {"metadata": {**metadata, **parts.pop("metadata", {})}, **parts}


def end(name: str, code: int, message: str = "", at: str = "2030-01-01T00:00:10Z") -> dict[str, Any]:
    terminated = {"exitCode": code, "message": message, "reason": "Error", "finishedAt": at}
    return {"name": name, "state": {"terminated": terminated}}


def test_the_end_of_another_container_is_not_the_servers() -> None:
    made = {"phase": "Failed", "initContainerStatuses": [end("initial-model", 0)], "message": "The node had no room."}
    assert (read_pod(pod(SERVER, status=made)).exit_code, read_pod(pod(SERVER, status=made)).words) == (
        None,
        "The node had no room.",
    )
    unmade = {"phase": "Failed", "initContainerStatuses": [end("initial-model", 2, "no module train")]}
    seen = read_pod(pod(SERVER, status=unmade))
    assert (seen.exit_code, seen.words) == (None, "container initial-model ended with exit code 2: no module train")
    sidecar = {"phase": "Failed", "containerStatuses": [end("proxy", 0), end(CLIENT, 3, "lost")]}
    assert (read_pod(pod(CLIENT, status=sidecar)).exit_code, read_pod(pod(CLIENT, status=sidecar)).words) == (3, "lost")


def test_a_server_that_fails_before_it_ran_is_not_complete(world: Any) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 0})
    world.up(key)
    vanish(world, {"phase": "Failed", "initContainerStatuses": [end("initial-model", 0)]})
    assert world.condition(key, "Complete")[0] == "False"
    assert world.condition(key, "Failed") == ("True", "RestartBudgetExhausted")


def test_a_long_verdict_is_read_before_anything_is_cut() -> None:
    said = json.dumps({"reason": "QuorumNotMet", "message": "missing: " + "x" * 1990})
    seen = read_pod(pod(SERVER, status={"phase": "Failed", "containerStatuses": [end(SERVER, 1, said)]}))
    assert (seen.verdict, seen.words[:9], len(seen.words)) == ("QuorumNotMet", "missing: ", 1999)


@pytest.mark.parametrize(
    ("asked", "grace", "deleted"), [("00:00:30", 30, True), ("00:00:45", 30, False), ("00:00:11", 0, False)]
)
def test_a_pod_was_deleted_if_it_was_asked_to_leave_before_it_ended(asked: str, grace: int, deleted: bool) -> None:
    metadata = {"deletionTimestamp": f"2030-01-01T{asked}Z", "deletionGracePeriodSeconds": grace}
    status = {"phase": "Failed", "containerStatuses": [end(CLIENT, 137)]}
    assert read_pod(pod(CLIENT, metadata=metadata, status=status)).deleted is deleted


def test_that_a_pod_was_deleted_alive_is_not_forgotten_when_its_last_write_moves_the_time() -> None:
    """The kubelet's deletion without grace dates it anew, after the end of the process."""
    asked = {"deletionTimestamp": "2030-01-01T00:00:10Z", "deletionGracePeriodSeconds": 5}
    moved = {"deletionTimestamp": "2030-01-01T00:00:11Z", "deletionGracePeriodSeconds": 0}
    leaving = read_pod(pod(CLIENT, metadata=asked, status={"phase": "Running"}))
    crashed = {"phase": "Failed", "containerStatuses": [end(CLIENT, 137)]}
    last = read_pod(pod(CLIENT, metadata=moved, status=crashed))
    assert not last.deleted
    assert last.after(leaving).deleted
    assert last.after(last.after(leaving)).deleted
    assert last.after(read_pod(pod(CLIENT, status=crashed))) == last, "it had ended before"
    assert last.after(replace(leaving, uid="another")) == last
    raws = [pod(CLIENT, metadata=metadata, status=status) for metadata, status in (({}, {"phase": "Running"}),
            (asked, {"phase": "Running"}), (moved, crashed))]  # fmt: skip
    store = Store()
    for version, raw in enumerate(raws, start=1):
        raw["metadata"] |= {"namespace": "n", "resourceVersion": str(version)}
        store.see(names.POD.name, raw)
    seen = store._objects[place_of(names.POD.name, raws[-1])].record
    assert isinstance(seen, Pod)
    assert seen.deleted
