"""The promise of the project, on real kubelets: a job applied to a cluster gives the model that `fedjob run` gives, byte for byte."""

from __future__ import annotations

import pytest

from cluster.kube import until
from cluster.real import federation, installation
from cluster.real.cluster import Cluster
from cluster.real.federation import Submitted
from cluster.real.images import Images
from fedjob_operator.names import CLIENT, POD, SERVER

ROUNDS = 10


@pytest.fixture(scope="module")
def team(cluster: Cluster, images: Images) -> Cluster:
    """The cluster, with the operator and three hospitals."""
    installation.install(cluster, images)
    federation.found(cluster, images)
    return cluster


@pytest.fixture(scope="module")
def expected(images: Images, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the model that the same job gives as processes of this machine."""
    return federation.local_model(federation.example(images, "mnist", ROUNDS), tmp_path_factory.mktemp("local"))


@pytest.mark.measure("C1")
def test_the_example_completes_under_restricted_pod_security_with_the_bytes_of_a_local_run(
    team: Cluster, images: Images, expected: str
) -> None:
    job = federation.submit(team, federation.example(images, "mnist", ROUNDS))
    job.complete()
    assert job.completed_rounds == ROUNDS
    assert job.model() == expected


@pytest.mark.measure("C2")
def test_pods_and_the_operator_are_killed_and_the_model_is_the_same(
    team: Cluster, images: Images, expected: str
) -> None:
    """The server's pod, a hospital's pod, the operator's: each is deleted while the job runs."""
    job = federation.submit(team, federation.example(images, "mnist-killed", ROUNDS))
    job.round_reached(1)
    _delete(job, SERVER)
    job.round_reached(3)
    _delete(job, CLIENT, "hospital-b")
    job.round_reached(5)
    team.plane.kubectl(
        "delete",
        "pod",
        "--namespace",
        installation.SYSTEM,
        "--selector",
        installation.SELECTOR,
        "--wait=false",
    )
    job.complete()
    assert job.completed_rounds == ROUNDS
    assert job.model() == expected


def _delete(job: Submitted, role: str, site: str = "") -> None:
    """Delete a pod of the job at once, as a lost node would, and wait for the next one."""
    (pod,) = job.pods(role, site)
    name = pod["metadata"]["name"]
    job.kube.call("DELETE", POD.path(federation.TEAM, name), {"gracePeriodSeconds": 0})
    others = lambda: [p for p in job.pods(role, site) if p["metadata"]["uid"] != pod["metadata"]["uid"]]  # noqa: E731
    until(f"another {role}", others)
