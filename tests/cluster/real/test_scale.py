"""One job with many sites, each a pod of this node: how long they take to come, and what a round takes."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.helm import Helm
from cluster.real import federation
from cluster.real.cluster import Cluster
from cluster.real.installation import SYSTEM
from fedjob.records import HISTORY_FILE, read_history
from fedjob_operator import names

ROUNDS = 20
COME_SECONDS = 600.0


@pytest.mark.measure("C5")
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("number", [8, pytest.param(64, marks=pytest.mark.full)])
def test_many_sites_train_as_pods_of_one_job(cluster: Cluster, hub: Helm, measured: Any, number: int) -> None:
    sites = [f"clinic-{i:02}" for i in range(number)]
    spec = {"approved": True, "allowedNamespaces": [federation.TEAM]}
    cluster.apply(*(_site(name, spec) for name in sites))
    began = time.time()
    job = federation.submit(cluster, _job(f"crowd-{number}", sites))
    job.complete(COME_SECONDS + federation.JOB_SECONDS)
    took = time.time() - began
    written = job.run / HISTORY_FILE
    history = read_history(written)
    assert [len(record.contributors) for record in history] == [number] * ROUNDS
    came = written.stat().st_mtime - sum(record.seconds for record in history) - began  # until the first round
    detail = {
        "sites": number, "rounds": ROUNDS, "connected_seconds": round(came, 1), "complete_seconds": round(took, 1),
        "round_ms": round(1000 * statistics.median(record.seconds for record in history), 1),
        "load": Path("/proc/loadavg").read_text().split()[:3],
    }  # fmt: skip
    measured(number, "sites as pods, all in every round", str(number), True, **detail)


def _site(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": SYSTEM}
    return {"apiVersion": names.API_VERSION, "kind": "FederatedSite", "metadata": metadata, "spec": spec}


def _job(name: str, sites: list[str]) -> dict[str, Any]:
    small = {"limits": {"memory": "256Mi"}, "requests": {"cpu": "5m", "memory": "64Mi"}}
    spec = {
        "workflow": {"rounds": ROUNDS, "quorum": len(sites)},
        "trainer": {"files": {"train.py": federation.TINY}, "resources": small},
        "sites": [{"name": site} for site in sites],
        "startDeadlineSeconds": int(COME_SECONDS),
    }
    return {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": {"name": name}, "spec": spec}
