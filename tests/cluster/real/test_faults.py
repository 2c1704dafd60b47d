"""A job on a real cluster under a seeded schedule of faults: it ends by itself, with the bytes of an undisturbed run.

SEED=… strikes as a run with that seed did; FULL=1 adds longer schedules and longer outages.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm import ROOT, Helm
from cluster.kube import until
from cluster.real import cgroups, federation
from cluster.real.cluster import Cluster
from cluster.real.federation import GATE, HOSPITALS, TEAM, Submitted
from cluster.real.installation import SYSTEM
from cluster.real.strikes import CERTIFICATE_SECONDS, STRIKES, Blow, Stage, schedule
from cluster.real.volumes import Gate, held_by, small_disk
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

SEED = 20261124
ROUND_SECONDS = 0.3
DISK_MEBIBYTES = 64
TEST_SECONDS = 1800
ROLES = (SERVER, CLIENT)


@pytest.fixture(scope="module")
def team(cluster: Cluster, hub: Helm) -> Iterator[Cluster]:
    """The cluster with the operator and three hospitals, whose certificates live for a minute while these tests run."""
    chart = str(ROOT / "charts" / "fedjob")

    def upgrade(arguments: str) -> None:
        options = ("--reset-then-reuse-values", "--set-json", f"extraArgs={arguments}", "--wait", "--timeout", "180s")
        hub.run("upgrade", "fedjob", chart, "--namespace", SYSTEM, *options)

    upgrade(f'["--certificate-seconds={CERTIFICATE_SECONDS}"]')
    yield cluster
    upgrade("[]")


def test_a_schedule_is_a_function_of_its_seed_and_holds_every_strike() -> None:
    for seed in range(20):
        blows = schedule(seed, 5)
        assert blows == schedule(seed, 5)
        assert {blow.strike for blow in blows[: len(STRIKES)]} == set(STRIKES)
        assert len(blows) == len(STRIKES) + 5
        assert all(earlier.at + 1 < later.at for earlier, later in pairwise(blows))
    assert schedule(1, 0) != schedule(2, 0)


@pytest.mark.measure("C2")
@pytest.mark.timeout(TEST_SECONDS)
@pytest.mark.parametrize(
    ("seed", "more", "outage_seconds"),
    [
        pytest.param(int(os.environ.get("SEED", SEED)), 0, 20.0, id="each-once"),
        *(pytest.param(seed, 10, 60.0, marks=pytest.mark.full, id=f"longer-{seed}") for seed in (1, 2, 3)),
    ],
)
def test_a_job_under_faults_ends_with_the_bytes_of_an_undisturbed_run(
    team: Cluster, tmp_path: Path, measured: Any, seed: int, more: int, outage_seconds: float
) -> None:
    """Every round is told once, the pods that a strike spares live on, and nothing is left over."""
    blows = schedule(seed, more)
    rounds = blows[-1].at + 3
    job = federation.steady(f"struck-{seed}", rounds, ROUND_SECONDS)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    expected = federation.local_model(tmp_path / "job.yaml", tmp_path)
    print(f"SEED={seed}")  # noqa: T201 - shown when the test fails
    folder = team.layout.folder / GATE
    folder.mkdir(exist_ok=True)
    gate = Gate(folder)
    gate.let(0)
    before = volumes(team)
    with held_by(team, TEAM, GATE, folder), small_disk(team, "small", DISK_MEBIBYTES) as disk:
        struck = federation.submit(team, federation.gated(job, f"{DISK_MEBIBYTES}Mi"))
        try:
            stage = Stage(struck, gate, disk, random.Random(seed), outage_seconds)
            seconds = {f"{blow.at} {blow.strike}": _strike(stage, blow) for blow in blows}
            gate.let(rounds)
            struck.complete()
            assert struck.model() == expected, struck.story()
            assert struck.history() == list(range(rounds)), struck.story()
            assert struck.completed_rounds == rounds
            _nothing_is_left_over(struck)
        finally:
            struck.delete()
    assert volumes(team) <= before
    measured(len(blows), "faults", f"{len(STRIKES)} or more, the same bytes", True, seed=seed, seconds=seconds)


def volumes(cluster: Cluster) -> set[str]:
    """Names of the volumes that there are."""
    return {volume["metadata"]["name"] for volume in cluster.admin.call("GET", "/api/v1/persistentvolumes")["items"]}


def _strike(stage: Stage, blow: Blow) -> float:
    """Strike in an open round, and see the next one begin; returns the seconds that it took."""
    job, strike = stage.job, STRIKES[blow.strike]
    stage.gate.let(blow.at)
    job.round_reached(blow.at)
    before, runs = {role: (job.uids(role), job.restarts(role)) for role in ROLES}, job.runs()
    print(blow)  # noqa: T201 - shown when the test fails
    began = time.monotonic()
    stage.gate.let(blow.at + blow.running)
    strike.act(stage)
    stage.gate.let(max(stage.gate.held, blow.at + 1))
    job.round_reached(blow.at + 1)
    took = round(time.monotonic() - began, 1)
    for role, (uids, restarts) in before.items():
        if role in strike.ends:
            assert job.uids(role) != uids
            if strike.excused:
                until("the new run to be told", lambda: job.runs() > runs)
                assert job.restarts(role) == restarts, "the script is blamed for what somebody did to its pod"
            else:
                _is_told(job, role, restarts)
        else:
            assert job.uids(role) == uids, f"{blow.strike} has ended a {role}"
    return took


def _is_told(job: Submitted, role: str, restarts: int) -> None:
    until(f"the job to tell of the {role}'s end", lambda: job.restarts(role) > restarts)


def _nothing_is_left_over(job: Submitted) -> None:
    """Of a job that is complete: no pod that runs, no process of one, one volume, no Jobs of runs long past."""
    labels = f"{names.JOB_LABEL}={job.name}"
    until("every pod to end", lambda: not job.uids(SERVER) | job.uids(CLIENT))
    pods = job.kube.list(names.POD, TEAM, labels)
    for node in job.cluster.nodes:
        alive = {pod["metadata"]["uid"]: cgroups.pids(node.namespace, pod["metadata"]["uid"]) for pod in pods}
        assert not any(alive.values()), alive
    assert len(job.kube.list(names.VOLUME_CLAIM, TEAM, labels)) == 1
    jobs = job.kube.list(names.JOB, TEAM, labels)
    until(
        "every Job to end",
        lambda: not any(one["status"].get("active") for one in job.kube.list(names.JOB, TEAM, labels)),
    )
    runs = Counter(one["metadata"]["labels"].get(names.SITE_LABEL, SERVER) for one in jobs)
    assert set(runs) == {SERVER, *HOSPITALS}
    assert max(runs.values()) <= 2, "the last run and the one before it"
