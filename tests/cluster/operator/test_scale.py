"""Many jobs at once: how long until the operator has nothing left to do, and what it and the control plane spend on it.

The API server writes its audit log, the test plays the kubelets, and all share the machine's cores: their CPU is told beside the figure.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.controlplane import ControlPlane
from cluster.kube import Kube
from cluster.replica import Operator
from fedjob_operator import names
from fedjob_operator.names import Kind

SITES = 4
MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int) -> float:
    """The most memory that a process ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / MIB


@dataclass
class Crowd:
    """Jobs of one namespace, and their kubelets."""

    plane: ControlPlane
    admin: Kube
    namespace: str
    sites: list[str]
    said: dict[str, str] = field(default_factory=dict)

    def submit(self, jobs: int) -> None:
        """Make the jobs, as fast as the API server takes them."""
        spec = {
            "workflow": {"type": "FedAvg", "rounds": 3},
            "trainer": {"files": {"train.py": "print()"}},
            "sites": [{"name": name} for name in self.sites],
        }
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda n: self.admin.create(names.FEDERATED_JOB, self.namespace, f"job-{n}", spec=spec), range(jobs)
                )
            )

    def count(self, kind: Kind) -> int:
        """How many objects of a kind there are, without reading them all."""
        page = self.admin.call("GET", kind.path(self.namespace), limit="1")
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount") or 0)

    def follow(self, events: Iterable[Any]) -> None:
        """Know what the operator says of each job, by a watch: lists of thousands, time and again, would be much of the load."""
        for event in events:
            raw = event["object"]
            sites = {site["state"] for site in (raw.get("status") or {}).get("sites") or ()}
            self.said[raw["metadata"]["name"]] = "/".join(sorted(sites)) or "none"

    def run_pods(self, events: Iterable[Any]) -> None:
        """Let pods run as they come."""
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "PodScheduled")]
        body = {"status": {"phase": "Running", "conditions": ready}}
        with ThreadPoolExecutor(4) as pool:
            for event in events:
                if event["type"] == "ADDED":
                    pod = event["object"]["metadata"]["name"]
                    pool.submit(self.admin.patch, names.POD, self.namespace, pod, body, "/status")

    def states(self) -> dict[str, int]:
        """Jobs by what the operator says of their sites."""
        return dict(collections.Counter(self.said.copy().values()))


@dataclass
class Spent:
    """CPU of the operator, of the control plane's processes, and of this test, from now on."""

    pids: dict[str, int]
    before: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The start."""
        self.before = {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    def so_far(self) -> dict[str, float]:
        """CPU seconds by process."""
        return {name: round(cpu_seconds(pid) - self.before[name], 1) for name, pid in self.pids.items()}


def spending(plane: ControlPlane, operator: Operator) -> Spent:
    """Who spends."""
    pids = {Path(next(iter(p.args))).name: p.pid for p in plane.processes.started}  # type: ignore[arg-type]
    return Spent({"operator": operator.pid, **pids, "test": os.getpid()})


@pytest.fixture
def crowd(plane: ControlPlane, admin: Kube, namespace: str) -> Crowd:
    """Four sites that are open to the test's namespace, which has a policy."""
    sites = [f"{letter}-{namespace}"[:63].rstrip("-") for letter in "abcd"]
    for site in sites[2:]:  # the first two are there
        admin.create(
            names.FEDERATED_SITE, "fedjob-system", site, spec={"approved": True, "allowedNamespaces": [namespace]}
        )
    return Crowd(plane, admin, namespace, sites)


def _calls(operator: Operator) -> dict[str, int]:
    """What the operator has asked of the API server: calls by verb and resource."""
    found: dict[str, int] = {}
    for line in operator.scrape().splitlines():
        if line.startswith("fedjob_api_requests_total{"):
            labels = dict(part.split("=", 1) for part in line[line.index("{") + 1 : line.index("}")].split(","))
            what = f"{json.loads(labels['verb'])} {json.loads(labels['resource'])}"
            found[what] = found.get(what, 0) + int(float(line.rsplit(" ", 1)[1]))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _beside(watches: contextlib.ExitStack, crowd: Crowd, kind: Kind, read: Callable[[Iterable[Any]], None]) -> None:
    """Read a watch in a thread, for as long as `watches` lasts."""
    events = watches.enter_context(crowd.admin.watching(kind, crowd.namespace))
    threading.Thread(target=read, args=(events,), daemon=True).start()


@pytest.mark.measure("O2")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("jobs", [10, pytest.param(int(os.environ.get("JOBS", "1000")), marks=pytest.mark.full)])
def test_many_jobs_come_up(
    plane: ControlPlane, crowd: Crowd, start_operator: Callable[..., Operator], until: Any, measured: Any, jobs: int
) -> None:
    """First all jobs are placed: each has a server's Job, and four SiteJobs that its sites have judged and that wait for it.

    Without a node that is all that there is to do. Then the test lets all pods run, and the operator has the rest to do.
    """
    operator = start_operator()
    until("the operator to lead", lambda: "fedjob_operator_leader 1.0" in operator.scrape())
    spent, began = spending(plane, operator), time.monotonic()
    with contextlib.ExitStack() as watches:
        watch = functools.partial(_beside, watches, crowd)
        watch(names.FEDERATED_JOB, crowd.follow)
        crowd.submit(jobs)
        created = time.monotonic() - began
        until("every SiteJob", lambda: crowd.count(names.SITE_JOB) == SITES * jobs, 900.0)
        until("every server", lambda: crowd.count(names.JOB) == jobs, 900.0)
        until("the sites' word", lambda: crowd.states() == {"Starting": jobs}, 900.0)
        placed, placed_cpu, placed_calls = time.monotonic() - began, spent.so_far(), _calls(operator)
        watch(names.POD, crowd.run_pods)
        until("every client", lambda: crowd.count(names.JOB) == (1 + SITES) * jobs, 900.0)
        until("every job to run", lambda: crowd.states() == {"Running": jobs}, 900.0)
        ran, memory = time.monotonic() - began, memory_mib(operator.pid)
    detail = {
        "jobs": jobs, "sites": SITES, "created_seconds": round(created, 1), "placed_seconds": round(placed, 1),
        "running_seconds": round(ran, 1), "operator_mib": round(memory, 1), "cpu_seconds_placed": placed_cpu,
        "cpu_seconds_running": spent.so_far(), "load": Path("/proc/loadavg").read_text().split()[:3],
        "calls_placed": placed_calls, "calls": _calls(operator),
    }  # fmt: skip
    if jobs >= 1000:
        measured(
            round(placed, 1),
            "s until all is placed",
            "<= 120, <= 250 MiB",
            placed <= 120.0 and memory <= 250.0,
            **detail,
        )
    else:
        measured(jobs, "jobs come up", str(jobs), True, **detail)
    assert "fedjob_reconcile_panics_total{" not in operator.scrape()
