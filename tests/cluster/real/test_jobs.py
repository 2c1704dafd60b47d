"""The promise of the project, on real kubelets: a job applied to a cluster gives the model that `fedjob run` gives, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.helm import Helm
from cluster.real import federation, installation
from cluster.real.cluster import Cluster
from fedjob_operator.names import CLIENT, SERVER

ROUNDS = 10
STEADY_ROUNDS = 30


@pytest.fixture
def team(cluster: Cluster, hub: Helm) -> Cluster:
    """The cluster, with the operator and three hospitals."""
    return cluster


@pytest.mark.measure("C1")
def test_the_file_of_the_example_gives_the_same_bytes_to_kubectl_under_restricted_pod_security_and_to_a_local_run(
    team: Cluster, tmp_path: Path
) -> None:
    expected = federation.local_model(federation.EXAMPLE, tmp_path)
    job = federation.applied(team, federation.EXAMPLE)
    job.complete()
    assert job.completed_rounds == ROUNDS
    assert job.model() == expected


@pytest.mark.measure("C2")
def test_servers_scripts_and_the_operator_are_killed_and_the_model_has_the_same_bytes(
    team: Cluster, tmp_path: Path
) -> None:
    """Each is struck in the middle of the job, some by a deletion, some by SIGKILL; every round is told once."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(federation.steady("steady", STEADY_ROUNDS, 0.0)))
    expected = federation.local_model(tmp_path / "job.yaml", tmp_path)
    job = federation.submit(team, federation.steady("steady", STEADY_ROUNDS, 2.0))
    job.round_reached(2)
    job.delete_pod(SERVER)
    job.round_reached(4)
    job.strike(CLIENT, "hospital-b")
    job.round_reached(6)
    _kill_the_operator(team)
    job.strike(SERVER)
    job.round_reached(8)
    job.delete_pod(CLIENT, "hospital-c")
    job.complete()
    assert job.model() == expected
    assert job.history() == list(range(STEADY_ROUNDS))


def _kill_the_operator(team: Cluster) -> None:
    """All replicas at once, without a word."""
    place = ("--namespace", installation.SYSTEM, "--selector", installation.SELECTOR)
    team.plane.kubectl("delete", "pod", *place, "--grace-period=0", "--force")
