"""Laws of the decisions, over histories that nobody would think of: users, kubelets and crashes in any order."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedjob.api import JobStatus, SiteJobSpec, SiteJobStatus
from fedjob.api.reasons import JOB_CONDITIONS, SITE_JOB_CONDITIONS
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

COMPLETE = json.dumps({"reason": "RoundsCompleted", "message": ""})

# What may happen, each with a number from 0 to 9 that picks a victim, an exit code or a place to crash.
HAPPENINGS = (
    "pods start", "everybody's pass", "a server ends", "a client ends", "a pod is evicted", "a job is deleted", "orphans die", "suspend", "resume",
    "report", "time passes", "pass", "crash in a pass", "approval is withdrawn", "approval is given", "restart of the operator",
)  # fmt: skip
histories = st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 9)), min_size=8, max_size=40)


def happen(world: Any, key: Any, what: str, n: int) -> None:
    """One thing happens."""
    alive = [p for p in (*world.pods(SERVER), *world.pods(CLIENT)) if p["status"]["phase"] == "Running"]
    servers = [p for p in alive if p["metadata"]["labels"][names.ROLE_LABEL] == SERVER]
    clients = [p for p in alive if p not in servers]
    jobs = [*world.jobs(SERVER), *world.jobs(CLIENT)]
    keys = world.store.all_keys()
    if what == "pods start":
        world.start_pods()
    elif what == "a server ends" and servers:
        code = (0, 1, 2, 70, 137, 143)[n % 6]
        world.end_pod(servers[n % len(servers)], code, COMPLETE if code == 0 else "")
    elif what == "a client ends" and clients:
        world.end_pod(clients[n % len(clients)], (0, 1, 137)[n % 3])
    elif what == "a pod is evicted" and alive:
        world.end_pod(alive[n % len(alive)], 137, disrupted=True)
    elif what == "a job is deleted" and jobs:
        metadata = jobs[n % len(jobs)]["metadata"]
        world.remove((names.JOB.name, metadata["namespace"], metadata["name"]))
    elif what == "orphans die":
        world.orphans_die()
    elif what in ("suspend", "resume"):
        world.edit(key, suspend=what == "suspend")
    elif what == "report" and servers:
        world.report(key, completed=n % 3)
    elif what == "time passes":
        world.now += timedelta(seconds=(1, 5, 40, 300)[n % 4])
    elif what == "everybody's pass":
        for one in keys:
            world.one_pass(one)
    elif what == "pass":
        world.one_pass(keys[n % len(keys)])
    elif what == "crash in a pass":
        world.one_pass(keys[n % len(keys)], crash_after=n)
    elif what in ("approval is withdrawn", "approval is given"):
        world.add_site("b", approved=what == "approval is given")
    elif what == "restart of the operator":
        restart(world)


def restart(world: Any) -> None:
    """A new process: nothing but what the cluster has. Secrets are read again by name."""
    store = type(world.store)()
    for (kind, _, _), raw in world.objects.items():
        store.see(kind, raw)
    store.certificates = dict(world.store.certificates)
    world.store = store


@pytest.fixture
def fresh(empty_world: Any) -> Any:
    """Makes a world with a job."""

    def make(**spec: Any) -> tuple[Any, Any]:
        world = empty_world()
        world.add_site("a")
        world.add_site("b")
        world.allow_all()
        key = world.submit(**spec)
        world.settle()
        world.start_pods()
        return world, key

    return make


shared = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@shared
@given(history=histories)
def test_never_two_live_servers_and_never_a_second_life(fresh: Any, history: list[tuple[str, int]]) -> None:
    world, key = fresh(failurePolicy={"serverRestarts": 2})
    ended = ""
    for what, n in history:
        happen(world, key, what, n)
        assert len(world.live_servers()) <= 1
        status = world.status(key)
        over = [
            c["type"]
            for c in status.get("conditions") or ()
            if c["type"] in ("Complete", "Failed") and c["status"] == "True"
        ]
        assert len(over) <= 1
        assert not ended or over == [ended]  # the end is the end
        ended = over[0] if over else ""


@shared
@given(history=histories)
def test_every_history_settles_and_a_settled_world_is_left_alone(fresh: Any, history: list[tuple[str, int]]) -> None:
    world, key = fresh()
    for what, n in history:
        happen(world, key, what, n)
    world.add_site("b")
    world.orphans_die()
    world.settle()
    before = list(world.writes)
    restart(world)
    world.settle()
    assert world.writes == before


@shared
@given(history=histories)
def test_once_people_and_nodes_behave_the_job_runs_or_has_ended(fresh: Any, history: list[tuple[str, int]]) -> None:
    world, key = fresh()
    for what, n in history:
        happen(world, key, what, n)
    world.add_site("b")
    world.edit(key, suspend=False)
    for _ in range(6):
        world.orphans_die()
        world.now += timedelta(seconds=40)
        world.settle()
        world.start_pods()
    world.settle()
    ended = any(c["status"] == "True" for c in world.status(key)["conditions"] if c["type"] in ("Complete", "Failed"))
    assert ended or world.condition(key, "ServerReady") == ("True", "Ready")
    if not ended:
        run = max(int(job["metadata"]["labels"][names.RUN_LABEL]) for job in world.jobs(SERVER))
        assert world.status(key)["server"]["run"] == run


@shared
@given(history=histories)
def test_counted_restarts_stay_within_the_budget(fresh: Any, history: list[tuple[str, int]]) -> None:
    world, key = fresh(failurePolicy={"serverRestarts": 2, "refillOnRounds": 100})
    for what, n in history:
        happen(world, key, what, n)
        server = world.status(key).get("server") or {}
        assert server.get("counted", 0) <= 2


@shared
@given(history=histories)
def test_status_says_only_what_the_table_of_reasons_has(fresh: Any, history: list[tuple[str, int]]) -> None:
    world, key = fresh()
    for what, n in history:
        happen(world, key, what, n)
        for (kind, _, _), raw in world.objects.items():
            table = {names.FEDERATED_JOB.name: JOB_CONDITIONS, names.SITE_JOB.name: SITE_JOB_CONDITIONS}.get(kind, {})
            for condition in (raw.get("status") or {}).get("conditions") or () if table else ():
                assert condition["reason"] in table[condition["type"]].reasons


@shared
@given(history=histories)
def test_what_is_written_is_what_the_models_allow(fresh: Any, history: list[tuple[str, int]]) -> None:
    world, key = fresh()
    for what, n in history:
        happen(world, key, what, n)
    models = {names.FEDERATED_JOB.name: (None, JobStatus), names.SITE_JOB.name: (SiteJobSpec, SiteJobStatus)}
    for (kind, _, _), raw in world.objects.items():
        spec, status = models.get(kind, (None, None))
        if spec is not None:
            spec.model_validate_json(json.dumps(raw["spec"]))
        if status is not None and raw.get("status"):
            status.model_validate_json(json.dumps(raw["status"]))


@pytest.mark.parametrize("crash_after", range(16))
def test_a_crash_between_any_two_calls_of_the_first_passes_is_mended(empty_world: Any, crash_after: int) -> None:
    """The same children and the same status as without the crash."""

    def outcome(crash: int | None) -> tuple[set[Any], Any]:
        world = empty_world()
        world.add_site("a")
        world.add_site("b")
        world.allow_all()
        key = world.submit()
        for turn in range(3):
            for one in world.store.all_keys():
                world.one_pass(one, crash_after=crash if crash is not None and turn == 0 else None)
            restart(world)
        world.settle()
        world.start_pods()
        world.settle()
        states = [(c["type"], c["status"], c["reason"]) for c in world.status(key)["conditions"]]
        objects = {place for place in world.objects if place[0] != names.POD.name}
        return objects, (len(world.live_servers()), states, world.status(key)["server"]["run"])

    assert outcome(crash_after) == outcome(None)
