"""The promise of the project, on real kubelets: a job applied to a cluster gives the model that `fedjob run` gives, byte for byte."""

from __future__ import annotations

import pytest

from cluster.helm import Helm
from cluster.real import federation
from cluster.real.cluster import Cluster
from cluster.real.images import Images

ROUNDS = 10


@pytest.fixture
def team(cluster: Cluster, hub: Helm) -> Cluster:
    """The cluster, with the operator and three hospitals."""
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
