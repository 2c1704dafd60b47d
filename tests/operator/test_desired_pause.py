"""A job that is suspended and goes on, told as stories."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER


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
