"""Crashes and faults between the operator and the API server: the outcome is that of the undisturbed run."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import pytest

from cluster.apiproxy import Answer, Call, Cut, Fault
from cluster.kube import PATIENCE_SECONDS
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER


def is_write(call: Call) -> bool:
    """Whether a call changes something; renewing the Lease does not count."""
    return call.is_write and "/leases" not in call.path


def children(admin: Any, namespace: str) -> Counter[str]:
    """What there is of each kind."""
    kinds = (
        names.SITE_JOB, names.JOB, names.SERVICE, names.SECRET, names.VOLUME_CLAIM, names.DISRUPTION_BUDGET, names.NETWORK_POLICY,
    )  # fmt: skip
    return Counter({kind.name: len(admin.list(kind, namespace)) for kind in kinds})


EXPECTED = Counter({
    "SiteJob": 2, "Job": 3, "Service": 1, "Secret": 3, "PersistentVolumeClaim": 1, "PodDisruptionBudget": 1, "NetworkPolicy": 3,
})  # fmt: skip


@pytest.mark.measure("O3")
@pytest.mark.timeout(900)
def test_an_operator_that_is_killed_after_each_of_its_writes(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, proxy: Any, until: Any
) -> None:
    """Every process makes one write, and is killed when it begins the next: each pair of writes has a crash between."""
    job = submit()
    writes: list[str] = []
    killed = 0
    for _ in range(120):
        mine: list[str] = []
        running: list[Any] = []

        def judge(call: Call, mine: list[str] = mine, running: list[Any] = running) -> Fault | None:
            if not is_write(call):
                return None
            mine.append(f"{call.method} {call.path}")
            if len(mine) > 1:
                running[0].kill()
                return Cut()
            return None

        proxy.judge = judge
        operator = start_operator("--hub-url", "https://hub.test:8443", url=proxy.url)  # the same for all processes
        running.append(operator)
        deadline, leads = time.monotonic() + PATIENCE_SECONDS, False
        while operator.process.poll() is None and time.monotonic() < deadline:
            if not leads and "fedjob_operator_leader 1.0" in operator.scrape():
                deadline, leads = (
                    time.monotonic() + 6.0,
                    True,
                )  # nothing written for so long: there is nothing left to write
            for role, count in ((SERVER, 1), (CLIENT, 2)):
                if len(kubelet.live(role)) >= count:
                    kubelet.run(role, count)
            time.sleep(0.1)
        writes += mine[:1]
        if operator.process.poll() is None:
            operator.kill()
            if not mine and job.condition("ServerReady") == ("True", "Ready"):
                break
        else:
            killed += 1
    assert killed > 20
    assert children(admin, job.namespace) == EXPECTED
    assert job.status["server"]["run"] == 1
    assert len(kubelet.pods(SERVER)) == 1
    assert len(kubelet.pods(CLIENT)) == 2
    assert all(site["state"] == "Running" for site in job.status["sites"])


@pytest.mark.measure("O4")
@pytest.mark.parametrize("fault", [Answer(500)], ids=str)
def test_faulty_calls_delay_a_job_and_change_nothing(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, proxy: Any, until: Any, fault: Fault
) -> None:
    """Every fourth call fails, by lot: a fixed step would fall in step with the retries."""
    lots = random.Random(7)

    def judge(call: Call) -> Fault | None:
        known = "fedjob.dev" in call.path or "/namespaces/" in call.path
        return fault if known and lots.random() < 0.25 and not call.is_watch and "/leases" not in call.path else None

    proxy.judge = judge
    operator = start_operator(url=proxy.url)
    until("the operator to lead", lambda: "fedjob_operator_leader 1.0" in operator.scrape())
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready", 120.0)
    kubelet.run(CLIENT, 2)
    until("all sites to run", lambda: all(s["state"] == "Running" for s in job.status["sites"]), 120.0)
    until("every child", lambda: children(admin, job.namespace) == EXPECTED, 120.0)
    assert job.status["server"]["run"] == 1
    assert "fedjob_reconcile_panics_total{" not in operator.scrape()
