"""Jobs of one namespace that take turns: never more at once than the hub lets, the oldest first, and none forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedjob_operator import names
from fedjob_operator.desired import job as hub
from fedjob_operator.names import SERVER
from fedjob_operator.routes import Key
from fedjob_operator.settings import Settings

SETTINGS = Settings("fedjob-system", "fedjob-runtime:test", "test", hub_url="https://hub.test:8443", jobs_at_once=2)


@pytest.fixture
def turns(world: Any) -> Any:
    """A world whose hub lets two jobs of a namespace run."""
    return with_turns(world)


def with_turns(world: Any) -> Any:
    world.store.jobs_at_once = 2
    world.plan = lambda key: plan(world, key)
    return world


def plan(world: Any, key: Key) -> Any:
    seen = world.store.job(key)
    return hub.desired_state(seen, world.now, SETTINGS, world.trust)


def submit(world: Any, name: str, **spec: Any) -> Key:
    key: Key = world.submit(name, **spec)
    place = (names.FEDERATED_JOB, key.namespace, key.name)
    world.put(*place, metadata={"creationTimestamp": f"2030-01-01T00:00:{len(hubs(world)):02}Z"})
    return key


def hubs(world: Any) -> list[Key]:
    return [key for key in world.store.all_keys() if key.controller == "hub"]


def settle(world: Any) -> None:
    """Passes until none writes anything."""
    while any(world.one_pass(key) for key in hubs(world)):
        pass


def running(world: Any) -> list[str]:
    return sorted(raw["metadata"]["labels"][names.JOB_LABEL] for raw in world.jobs(SERVER) if not world.finished(raw))


def end(world: Any, name: str) -> None:
    """The server of a job ends well."""
    world.start_pods()
    for pod in world.pods(SERVER):
        if pod["metadata"]["labels"][names.JOB_LABEL] == name and pod["status"]["phase"] == "Running":
            world.end_pod(pod, 0, '{"reason": "RoundsCompleted", "message": ""}')


def test_the_oldest_run_and_the_others_say_what_they_wait_for(turns: Any) -> None:
    keys = [submit(turns, name) for name in ("a1", "a2", "a3", "a4")]
    for key in reversed(keys):  # whoever is looked at first
        turns.one_pass(key)
    settle(turns)
    assert running(turns) == ["a1", "a2"]
    raw = turns.objects[(names.FEDERATED_JOB.name, *("team-a", "a4"))]
    assert raw["status"]["state"] == "WaitingForTurn"
    assert "startTime" not in raw["status"]  # its deadline has not begun
    admitted = next(c for c in raw["status"]["conditions"] if c["type"] == "Admitted")
    assert (admitted["status"], admitted["reason"]) == ("False", "WaitingForTurn")
    assert admitted["message"].startswith("2 jobs of a namespace run at a time (jobsAtOnce of the hub)")


def test_who_waits_writes_nothing_when_others_end_and_the_next_one_is_called(turns: Any) -> None:
    keys = [submit(turns, name) for name in ("a1", "a2", "a3", "a4")]
    settle(turns)
    end(turns, "a1")
    settle(turns)
    assert running(turns) == ["a2", "a3"]
    before = turns.version
    assert turns.one_pass(keys[3]) == 0
    assert turns.version == before
    raw = turns.objects[(names.FEDERATED_JOB.name, "team-a", "a2")]
    gone = turns.store.gone(names.FEDERATED_JOB.name, raw)
    assert keys[3] in gone  # a deletion calls the next one as well


def test_a_job_that_is_refused_or_paused_holds_nobody_up(turns: Any) -> None:
    submit(turns, "a1", sites=[{"name": "nowhere"}])
    submit(turns, "a2", suspend=True)
    submit(turns, "a3")
    submit(turns, "a4")
    settle(turns)
    assert running(turns) == ["a3", "a4"]


def test_a_job_that_was_paused_takes_its_place_again_only_when_there_is_one(turns: Any) -> None:
    first = submit(turns, "a1")
    for name in ("a2", "a3"):
        submit(turns, name)
    settle(turns)
    turns.edit(first, suspend=True)
    settle(turns)
    assert running(turns) == ["a2", "a3"]
    turns.edit(first, suspend=False)
    settle(turns)
    assert running(turns) == ["a2", "a3"]
    end(turns, "a2")
    settle(turns)
    assert running(turns) == ["a1", "a3"]


def test_without_a_bound_all_run(world: Any) -> None:
    for name in ("a1", "a2", "a3"):
        submit(world, name)
    settle(world)
    assert running(world) == ["a1", "a2", "a3"]
    assert replace(SETTINGS, jobs_at_once=0).jobs_at_once == Settings("n", "i", "t").jobs_at_once


STEPS = st.lists(st.tuples(st.sampled_from(["submit", "pass", "end"]), st.integers(0, 9)), max_size=60)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # of a class: each example makes its own world
@given(STEPS)
def test_never_more_than_the_bound_run_and_all_end(empty_world: Any, steps: list[tuple[str, int]]) -> None:
    world = empty_world()
    for site in ("a", "b"):
        world.add_site(site)
    with_turns(world)
    for what, which in steps:
        keys = hubs(world)
        if what == "submit" and len(keys) < 10:
            submit(world, f"job-{len(keys)}")
        elif what == "pass" and keys:
            world.one_pass(keys[which % len(keys)])
        elif what == "end" and (now := running(world)):
            end(world, now[which % len(now)])
        assert len(running(world)) <= 2
    for _ in range(12):
        settle(world)
        assert len(running(world)) <= 2
        for name in running(world):
            end(world, name)
    states = {raw["status"]["state"] for raw in world.store.raws(names.FEDERATED_JOB.name)}
    assert states <= {"Complete"}
