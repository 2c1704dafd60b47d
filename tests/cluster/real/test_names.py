"""Names that are answered late, or not at first: a job waits for them, says so, and completes."""

from __future__ import annotations

import pytest

from cluster.helm import Helm
from cluster.real import federation
from cluster.real.cluster import Cluster
from cluster.real.federation import HOSPITALS, TEAM
from cluster.real.late_names import late_names
from fedjob_operator import names

ROUNDS = 3


@pytest.fixture
def team(cluster: Cluster, hub: Helm) -> Cluster:
    """The cluster, with the operator and three hospitals."""
    return cluster


def test_a_job_whose_names_are_answered_late_waits_says_so_and_completes(team: Cluster) -> None:
    job = federation.steady("late", ROUNDS, 0.0)
    with late_names(team):
        late = federation.submit(team, job)
        late.complete()
    assert late.history() == list(range(ROUNDS))
    for hospital in HOSPITALS:
        labels = f"{names.JOB_LABEL}=late,{names.ROLE_LABEL}={names.CLIENT},{names.SITE_LABEL}={hospital}"
        words = team.plane.kubectl("logs", "--namespace", TEAM, "--selector", labels, "--tail=-1")
        assert "is not resolved yet" in words, words
    assert [site.get("restarts", 0) for site in late.raw["status"]["sites"]] == [
        0,
        0,
        0,
    ]  # nobody gave up and came again
