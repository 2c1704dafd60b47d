"""Many jobs at once where a quota holds the pods of a few: they take turns, each says what it waits for, and nobody has to see to it."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.helm import ROOT, Helm
from cluster.kube import until
from cluster.real import cgroups, federation, installation
from cluster.real.cluster import Cluster
from cluster.real.federation import HOSPITALS, TEAM
from cluster.real.installation import SYSTEM
from fedjob_operator import names
from fedjob_operator.names import FEDERATED_JOB, POD

ROUNDS = 1
AT_ONCE = 4
ALL_SECONDS = 3000.0
MOST_WRITES = 60  # of the operator for one job, whatever the number of jobs
QUOTA = "few-pods"


@pytest.fixture
def crowded(cluster: Cluster, hub: Helm) -> Iterator[Cluster]:
    """The team's namespace has a quota for a server and a client of as many jobs as the hub lets run."""
    chart, place = str(ROOT / "charts" / "fedjob"), ("--namespace", SYSTEM)
    hub.run("upgrade", "fedjob", chart, *place, "--reuse-values", "--set", f"jobsAtOnce={AT_ONCE}", "--wait")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": QUOTA, "namespace": TEAM}}
    cluster.apply({**quota, "spec": {"hard": {"pods": str(2 * AT_ONCE)}}})
    yield cluster
    cluster.plane.kubectl("delete", "federatedjobs", "--namespace", TEAM, "--selector", "test=queue", "--wait=false")
    cluster.plane.kubectl("delete", "resourcequota", "--namespace", TEAM, QUOTA)
    hub.run("upgrade", "fedjob", chart, *place, "--reuse-values", "--set", "jobsAtOnce=0", "--wait")


@pytest.mark.measure("C5")
@pytest.mark.timeout(ALL_SECONDS + 600)
@pytest.mark.parametrize("number", [8, pytest.param(200, marks=pytest.mark.full)])
def test_many_jobs_take_turns_and_all_complete(crowded: Cluster, measured: Any, number: int) -> None:
    began, before = time.monotonic(), _writes(crowded)
    crowded.apply(*(_job(f"queued-{i:03}") for i in range(number)))
    seen: Counter[str] = Counter()

    def all_over() -> bool:
        jobs = crowded.admin.list(FEDERATED_JOB, TEAM, "test=queue")
        states = [_stand(job) for job in jobs]
        assert len(jobs) == number, "a job is lost"
        assert states.count("Failed") == 0, [job["status"] for job in jobs if _stand(job) == "Failed"]
        assert number - states.count("waits") - states.count("Complete") <= AT_ONCE, states
        seen.update(states)
        return states.count("Complete") == number

    until("all jobs to be complete", all_over, ALL_SECONDS)
    took, writes = time.monotonic() - began, _writes(crowded) - before
    assert seen["waits"], "none ever waited"
    assert writes / number <= MOST_WRITES
    detail = {
        "jobs": number, "at_once": AT_ONCE, "seconds": round(took), "writes_per_job": round(writes / number, 1),
        **_usage(crowded), "load": Path("/proc/loadavg").read_text().split()[:3],
    }  # fmt: skip
    measured(number, "jobs at once, all complete", str(number), True, **detail)


def _job(name: str) -> dict[str, Any]:
    small = {"limits": {"memory": "256Mi"}, "requests": {"cpu": "5m", "memory": "64Mi"}}
    spec = {
        "workflow": {"rounds": ROUNDS},
        "trainer": {"files": {"train.py": federation.TINY}, "resources": small},
        "sites": [{"name": HOSPITALS[0]}],
    }
    metadata = {"name": name, "namespace": TEAM, "labels": {"test": "queue"}}
    return {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": metadata, "spec": spec}


def _stand(job: Any) -> str:
    """Complete, Failed, waits (and says for what), or runs."""
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or ()}
    for end in ("Complete", "Failed"):
        if conditions.get(end, {}).get("status") == "True":
            return end
    admitted = conditions.get("Admitted", {})
    if not conditions or admitted.get("status") == "False":
        assert admitted.get("reason") in (None, "WaitingForTurn"), admitted
        assert not conditions or f"{AT_ONCE} jobs of a namespace run at a time" in admitted["message"]
        return "waits"
    return "runs"


def _writes(cluster: Cluster) -> float:
    """Calls of the operator that write, since its pods began, without those that keep its Lease."""
    return sum(
        float(number)
        for text in _of_operators(cluster, _metrics)
        for labels, number in re.findall(r"fedjob_api_requests_total{([^}]*)} (\S+)", text)
        if 'verb="GET"' not in labels and 'resource="leases"' not in labels
    )


def _usage(cluster: Cluster) -> dict[str, float]:
    """What the operator's busiest pod has used: CPU seconds, and MiB at its peak."""
    return max(_of_operators(cluster, _used), key=lambda used: used["operator_cpu_seconds"])


def _of_operators(cluster: Cluster, read: Callable[[Cluster, Any], Any]) -> list[Any]:
    pods = cluster.admin.list(POD, SYSTEM, installation.SELECTOR)
    stay = [p for p in pods if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]]
    return [read(cluster, pod) for pod in stay]


def _metrics(cluster: Cluster, pod: Any) -> str:
    place = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:{names.METRICS_PORT}/proxy/metrics"
    return cluster.plane.kubectl("get", "--raw", place)


def _used(cluster: Cluster, pod: Any) -> dict[str, float]:
    node = cluster.node(pod["spec"]["nodeName"])
    ticks, peak = 0, 0
    for pid in cgroups.pids(node.namespace, pod["metadata"]["uid"]):
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        [high] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        peak = max(peak, int(high))
    return {"operator_cpu_seconds": round(ticks / os.sysconf("SC_CLK_TCK"), 1), "operator_mib": round(peak / 1024)}
