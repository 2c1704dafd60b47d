"""The operator killed at every point: what it leaves is taken up by the next process, and the outcome is that of the undisturbed run."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from cluster.apiproxy import ApiProxy, Call, Cut, Fault
from cluster.kube import Kube, until
from cluster.replica import Operator
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

CHILDREN = (
    names.SITE_JOB, names.JOB, names.SERVICE, names.CONFIG_MAP, names.SECRET, names.VOLUME_CLAIM, names.DISRUPTION_BUDGET,
    names.NETWORK_POLICY,
)  # fmt: skip
HUB = ("--hub-url", "https://hub.test:8443")  # the same for all processes, as it is part of what the children are
LEADS = "fedjob_operator_leader 1.0"


def is_write(call: Call) -> bool:
    """Whether a call changes something; renewing the Lease does not count."""
    return call.is_write and "/leases" not in call.path


def is_step(call: Call) -> bool:
    """Whether a call is part of a pass: not the Lease's, no list of everything, no stream."""
    return "/leases" not in call.path and not call.is_watch and "/namespaces/" in call.path


def plain(raw: Any, job: Any) -> Any:
    """An object without what differs between two jobs that are the same: names of the test, hashes, times."""
    text = json.dumps(raw).replace(job.namespace, "NAMESPACE").replace(job.name, "JOB")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", text)
    text = re.sub(r"-([sc]\d+)-[a-z0-9]{5}\b", r"-\1-POD", text)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', lambda said: re.sub(r"\b[0-9a-f]{8,64}\b", "HASH", said[0]), text)
    return json.loads(text)


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two outcomes differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [d for key in sorted({*one, *other}) for d in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{path}/{i}")]
    return [] if one == other else [f"{path}: {str(one)[:200]} is not {str(other)[:200]}"]


@dataclass
class Victim:
    """A replica that dies of its calls. dies_of: whether a call, seeing all that came before it, is the last."""

    start: Callable[[], Operator]
    counts: Callable[[Call], bool]
    limit: int
    calls: list[str] = field(default_factory=list)
    ready: bool = True
    operator: Operator | None = None

    def judge(self, call: Call) -> Fault | None:
        """For the proxy: the call that is one too many never arrives."""
        if not self.ready or not self.counts(call):
            return None
        self.calls.append(f"{call.method} {call.path}")
        if len(self.calls) > self.limit and self.operator is not None:
            self.operator.process.kill()
            return Cut()
        return None

    @property
    def dead(self) -> bool:
        """Whether it has died."""
        return self.operator is not None and not self.operator.alive


@dataclass
class Stage:
    """The control plane, the kubelet's hands, and replicas that are killed."""

    admin: Kube
    start: Callable[..., Operator]
    submit: Callable[..., Any]
    kubelet: Any
    proxy: ApiProxy

    def victim(self, counts: Callable[[Call], bool], limit: int, *, ready: bool = True) -> Victim:
        """Start a replica that may make `limit` of those calls."""
        victim = Victim(lambda: self.start(*HUB, url=self.proxy.url), counts, limit, ready=ready)
        self.proxy.judge = victim.judge
        victim.operator = victim.start()
        return victim

    def outcome(self, job: Any) -> Any:
        """All that the operator has made of a job: its status, and each child's labels, owner and spec."""
        found: dict[str, Any] = {"status": job.status}
        for kind in CHILDREN:
            for raw in self.admin.list(kind, job.namespace, f"{names.UID_LABEL}={job.raw['metadata']['uid']}"):
                metadata, spec = raw["metadata"], dict(raw.get("spec") or {})
                for given in ("clusterIP", "clusterIPs"):
                    spec.pop(given, None)
                child = {"labels": metadata["labels"], "owners": metadata["ownerReferences"], "spec": spec}
                if kind is names.SITE_JOB:
                    child["status"] = raw["status"]
                found[f"{kind.name} {metadata['name']}"] = child
        return plain(found, job)

    def settled(self, job: Any) -> bool:
        """Whether the job runs everywhere; whatever pods there are, run."""
        for role in (SERVER, CLIENT):
            for pod in self.kubelet.live(role):
                if pod["status"].get("phase") != "Running":
                    self.kubelet.start(pod)
        status = job.status
        sites = status.get("sites") or ()
        true = {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}
        running = len(sites) == 2 and all(site["state"] == "Running" for site in sites)
        return running and {"ServerReady", "CertificatesReady"} <= true

    def undisturbed(self) -> Any:
        """What becomes of a job in peace."""
        operator, job = (
            self.start(*HUB),
            self.submit("steady"),
        )  # as long a name as the others, as names of children are cut
        until("the job to run", lambda: self.settled(job))
        found = until("the same outcome twice", lambda: (a := self.outcome(job)) == self.outcome(job) and a)
        operator.stop()
        self.remove(job)
        return found

    def check(self, job: Any, reference: Any) -> None:
        """The job comes to the same children and the same status, with one pod each."""
        until("the job to run", lambda: self.settled(job))
        last: list[str] = []

        def same() -> bool:
            last[:] = differences(reference, self.outcome(job))
            return not last

        try:
            until("the undisturbed outcome", same, 15.0)
        except AssertionError:
            raise AssertionError("\n".join(last)) from None
        assert (len(self.kubelet.pods(SERVER)), len(self.kubelet.pods(CLIENT))) == (1, 2)

    def remove(self, job: Any) -> None:
        """Delete a job and wait until its pods are gone."""
        self.admin.delete(names.FEDERATED_JOB, job.namespace, job.name)
        until(
            "its pods to be gone",
            lambda: self.kubelet.bury() or not [*self.kubelet.pods(SERVER), *self.kubelet.pods(CLIENT)],
        )


@pytest.fixture
def stage(admin: Any, start_operator: Any, submit: Any, kubelet: Any, proxy: Any) -> Stage:
    """All of it."""
    return Stage(admin, start_operator, submit, kubelet, proxy)


@pytest.mark.measure("O3")
@pytest.mark.timeout(600)
def test_an_operator_that_is_killed_after_each_of_its_writes(stage: Stage, measured: Any) -> None:
    """Every process makes one write, and is killed when it begins the next: each pair of writes has a crash between."""
    reference = stage.undisturbed()
    job = stage.submit()
    lives = 0
    while _one_life(stage, job):
        lives += 1
        assert lives < 150
    stage.check(job, reference)
    assert lives > 20
    measured(0, "differences", "0", True, kills=lives, between="two writes each, one job")


def _one_life(stage: Stage, job: Any) -> bool:
    """Whether it wrote anything."""
    victim = stage.victim(is_write, 1)
    until("its death, or peace", lambda: victim.dead or (stage.settled(job) and _idle(victim.operator)))
    if victim.operator is not None and not victim.dead:
        victim.operator.kill()
    return bool(victim.calls)


def _idle(operator: Operator | None) -> bool:
    """Whether it leads, and its passes have come to an end."""
    text = operator.scrape() if operator is not None else ""
    return LEADS in text and "fedjob_workqueue_depth 0.0" in text and "fedjob_reconcile_total" in text


@pytest.mark.full
@pytest.mark.measure("O3")
@pytest.mark.timeout(3600)
def test_an_operator_that_is_killed_at_each_of_its_calls(stage: Stage, measured: Any) -> None:
    """A fresh job for each point: the process is killed as it begins its call number n, reads included; another one goes on."""
    reference = stage.undisturbed()
    points = next(point for point in count() if not _dies_at(stage, point, reference))
    assert points > 40
    measured(0, "differences", "0", True, kills=points, between="two calls each, a fresh job for each")


def _dies_at(stage: Stage, point: int, reference: Any) -> bool:
    """One job whose operator may make `point` calls. Whether it needed more."""
    victim = stage.victim(is_step, point, ready=False)
    operator = victim.operator
    assert operator is not None
    until("the operator to lead", lambda: LEADS in operator.scrape())
    victim.ready = True
    job = stage.submit(f"job-{point:02}")
    until("its death, or peace", lambda: victim.dead or (stage.settled(job) and _idle(operator)))
    dead = victim.dead
    operator.kill()
    second = stage.start(*HUB)
    stage.check(job, reference)
    second.stop()
    stage.remove(job)
    return dead


@pytest.mark.measure("O5")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.full)])
def test_another_replica_goes_on_when_the_leader_is_killed(stage: Stage, measured: Any, kills: int) -> None:
    """With the Lease's life that is the default. The clock runs from the SIGKILL to the first write that the job needed."""
    replicas = [_replica(stage, number) for number in range(2)]
    job = stage.submit(failurePolicy={"serverRestarts": 20})
    seconds = [_take_over(stage, job, replicas, number) for number in range(kills)]
    worst = max(seconds)
    measured(
        worst, "s, the slowest", "<= 15", worst <= 15.0,
        seconds=sorted(seconds), median=statistics.median(seconds), kills=kills,
    )  # fmt: skip


def _replica(stage: Stage, number: int) -> Operator:
    return stage.start(*HUB, url=stage.proxy.url, identity=f"replica-{number}")


def _take_over(stage: Stage, job: Any, replicas: list[Operator], number: int) -> float:
    """Kill the leader, and give the other one something to do. Seconds until its first write."""
    until("the job to run", lambda: stage.settled(job))
    leader = until("a leader", lambda: next((r for r in replicas if LEADS in r.scrape()), None))
    until("the other to stand by", lambda: all('"listening"' in r.log.read_text() for r in replicas))
    run = job.status["server"]["run"]
    written: list[tuple[float, str]] = []

    def judge(call: Call) -> None:
        if is_write(call) and f"/namespaces/{job.namespace}/" in call.path:
            written.append((time.monotonic(), call.path))

    stage.proxy.judge = judge
    killed = time.monotonic()
    leader.kill()
    stage.kubelet.end(stage.kubelet.live(SERVER)[0], 143)  # its node is lost too
    until("the next run of the server", lambda: job.status["server"]["run"] == run + 1)
    when, path = written[0]
    assert path == names.FEDERATED_JOB.path(job.namespace, job.name) + "/status"
    replicas.remove(leader)
    replicas.append(_replica(stage, number + 2))
    return round(when - killed, 2)
