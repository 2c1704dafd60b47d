"""The runs of a job's server: when another begins, what counts as a restart, and nodes that are silent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.names import SERVER


def test_a_server_that_dies_is_started_again_as_a_new_run(world: Any) -> None:
    key = world.submit()
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], 137)
    world.next_run(timedelta(seconds=1))
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


def test_what_was_forgiven_stays_so_though_the_status_has_lost_it(world: Any) -> None:
    key = world.submit(failurePolicy={"refillOnRounds": 1})
    world.up(key)
    world.end_pod(world.script("a"), 70)
    world.now += timedelta(seconds=5)
    world.settle()
    world.report(key, completed=2)
    world.settle()
    status = world.status(key)
    bare = [{k: v for k, v in site.items() if k != "forgiven"} for site in status["sites"]]
    world.put(names.FEDERATED_JOB, key.namespace, key.name, status={**status, "sites": bare})
    world.settle()
    assert next(s for s in world.status(key)["sites"] if s["name"] == "a")["forgiven"] == 1
