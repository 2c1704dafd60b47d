"""Jobs that run, and an operator that has nothing to do: it writes nothing. Counted in the API server's own audit log."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from fedjob.records import JobRef, Progress, SiteStatus, Status
from fedjob_operator import names
from fedjob_operator.hub import reports
from fedjob_operator.names import CLIENT, PROGRESS_MANAGER, SERVER

WRITES = ("create", "update", "patch", "delete")


@pytest.mark.measure("O1")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("jobs", "seconds", "resync"), [(5, 40.0, 15.0), pytest.param(100, 600.0, 300.0, marks=pytest.mark.full)]
)
def test_nothing_is_written_while_nothing_happens(
    plane: Any, admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any, measured: Any,
    jobs: int, seconds: float, resync: float,
) -> None:  # fmt: skip
    """Resyncs with the lists fall into the window."""
    operator = start_operator("--resync-seconds", str(resync))
    made = [submit(f"job-{number}") for number in range(jobs)]
    kubelet.run_all(SERVER, jobs)
    kubelet.run_all(CLIENT, 2 * jobs)
    for job in made:
        until("its sites to run", lambda job=job: _all_run(job), 300.0)
        _report(admin, job)
    for job in made:
        job.wait("QuorumReached", "True", "Reached")
    until("an empty queue", lambda: _passes(operator) == _passes(operator))
    since = datetime.now(UTC).isoformat()
    began = time.monotonic()
    until("the window to be over", lambda: time.monotonic() - began >= seconds, seconds + 60.0)
    calls = Counter(
        (event["verb"], event["objectRef"]["resource"])
        for event in plane.audit("operator")
        if event["requestReceivedTimestamp"] >= since and "objectRef" in event
    )
    writes = {f"{verb} {kind}": n for (verb, kind), n in calls.items() if verb in WRITES and kind != "leases"}
    leases = sum(n for (verb, kind), n in calls.items() if verb in WRITES and kind == "leases")
    lists = sum(n for (verb, _), n in calls.items() if verb == "list")
    measured(
        sum(writes.values()), "writes", "0", met=not writes,
        jobs=jobs, window_seconds=seconds, lease_renewals=leases, lists=lists, calls=sum(calls.values()),
    )  # fmt: skip
    assert writes == {}
    assert leases > 0
    assert lists > 0


def _all_run(job: Any) -> bool:
    sites = job.status.get("sites") or ()
    return len(sites) == 2 and all(site["state"] == "Running" for site in sites)


def _report(admin: Any, job: Any) -> None:
    """What the job's server reports: the first round is over, every site trains."""
    sites = tuple(SiteStatus(site["name"], state="Training", examples=100) for site in job.raw["spec"]["sites"])
    told = Status(
        job=JobRef(job.name, job.raw["metadata"]["uid"], 1),
        state="Running",
        progress=Progress(1, 1, 3),
        metrics={},
        sites=sites,
    )
    status = reports.manifest(job.raw, told, datetime.now(UTC))["status"]
    admin.apply(names.FEDERATED_JOB, job.namespace, job.name, PROGRESS_MANAGER, "/status", status=status)


def _passes(operator: Any) -> float:
    """Passes so far, a moment after the last look."""
    time.sleep(0.5)
    lines = [line for line in operator.scrape().splitlines() if line.startswith("fedjob_reconcile_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
