"""Faults between the operator and the API server: the outcome is that of the undisturbed run, and nobody is asked in a loop.

One test throws dice over all faults of calls, one over all faults of watches; with FULL=1 each fault also stands alone. "Nobody is
asked in a loop" is counted at the proxy: what has failed, but for a conflict, is not tried again within a second, and of one call,
whatever its answers, there are at most one a second and a few more, as what succeeds may have news at once.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from cluster.apiproxy import GONE, HALF_A_LINE, Answer, ApiProxy, Call, Cut, Delay, Fault, Says, Silence, Truncate
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

pytestmark = [pytest.mark.measure("O4"), pytest.mark.timeout(600)]

PATIENCE = 240.0
EXPECTED = Counter({
    "SiteJob": 2, "Job": 3, "Service": 1, "Secret": 3, "PersistentVolumeClaim": 1, "PodDisruptionBudget": 1, "NetworkPolicy": 3,
})  # fmt: skip

CALLS: dict[str, Fault] = {
    "429": Answer(429, "TooManyRequests", retry_after=1),
    "500": Answer(500, "InternalError"),
    "503": Answer(503, "ServiceUnavailable"),
    "409": Answer(409, "Conflict"),
    "reset": Cut(),
    "answer lost": Cut(delivered=True),
    "answer cut": Truncate(300),
    "late": Delay(2.0),
}
WATCHES: dict[str, Fault] = {
    "410": Answer(410, "Expired"),
    "410 in the stream": GONE,
    "500": Answer(500, "InternalError"),
    "500 in the stream": Says(
        '{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is gone"}}\n'
    ),
    "half a line": HALF_A_LINE,
    "cut": Truncate(1500),
    "reset": Cut(),
}


def children(admin: Any, namespace: str) -> Counter[str]:
    """What there is of each kind."""
    kinds = (
        names.SITE_JOB, names.JOB, names.SERVICE, names.SECRET, names.VOLUME_CLAIM, names.DISRUPTION_BUDGET, names.NETWORK_POLICY,
    )  # fmt: skip
    return Counter({kind.name: len(admin.list(kind, namespace)) for kind in kinds})


def comes_up(admin: Any, job: Any, kubelet: Any, until: Any) -> None:
    """The job gets all its children, and runs everywhere."""
    until("the server's pod", lambda: kubelet.live(SERVER), PATIENCE)
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready", PATIENCE)
    until("the clients' pods", lambda: len(kubelet.live(CLIENT)) == 2, PATIENCE)
    kubelet.run(CLIENT, 2)
    until("all sites to run", lambda: all(s["state"] == "Running" for s in job.status["sites"]), PATIENCE)
    until("every child", lambda: children(admin, job.namespace) == EXPECTED, PATIENCE)
    assert (job.status["server"]["run"], job.status["server"]["restarts"], job.status["attempt"]) == (1, 0, 1)
    assert (len(kubelet.pods(SERVER)), len(kubelet.pods(CLIENT))) == (1, 2)


def events_are_few(admin: Any, namespace: str) -> None:
    """Every event is told once."""
    told = [
        (e["involvedObject"]["name"], e["reason"], e["message"])
        for e in admin.list(names.EVENT, namespace)
        if e.get("source", {}).get("component") == "fedjob-operator"
    ]
    assert len(told) == len(set(told)), told


def hasty(calls: list[tuple[float, Call]], failed: set[int]) -> dict[str, float]:
    """Changes of one object that failed and were tried again within a second: what, and after how long.

    failed: numbers of the calls that a fault met, but for conflicts: what has changed meanwhile is decided anew. The Lease is no
    object of a key: who leads renews it at its own pace.
    """
    last: dict[str, float] = {}
    found = {}
    for when, call in calls:
        if call.method not in ("PATCH", "PUT", "DELETE") or "/leases/" in call.path:
            continue
        what = f"{call.method} {call.path}"
        before = last.pop(what, None)
        if before is not None and when - before < 1.0:
            found[what] = when - before
        if call.number in failed:
            last[what] = when
    return found


def loops(calls: list[tuple[float, Call]], window: float = 10.0, spare: int = 6) -> dict[str, int]:
    """Calls that were made more often than once a second: what, and how often within a window. Reads of many pods are one path."""
    moments: defaultdict[str, list[float]] = defaultdict(list)
    for when, call in calls:
        field = re.search(r"metadata.name%3D([^&]+)", call.query)
        moments[f"{call.method} {call.path} {field[1] if field else ''} {call.is_watch}"].append(when)
    most = {
        what: max(sum(begin <= t < begin + window for t in times) for begin in times) for what, times in moments.items()
    }
    return {what: count for what, count in most.items() if count > window + spare}


def paced(tries: list[float]) -> bool:
    """Whether a call was made once a second at most. Each arrives a little later than it was sent, by how much depends on the load."""
    return tries[-1] - tries[0] >= 0.75 * (len(tries) - 1)


@pytest.fixture
def timed(proxy: ApiProxy) -> Callable[[Callable[[Call], Fault | None]], list[tuple[float, Call]]]:
    """Gives the proxy a judge, and returns the list that its calls go to, each with its moment."""

    def judge_by(judge: Callable[[Call], Fault | None]) -> list[tuple[float, Call]]:
        seen: list[tuple[float, Call]] = []

        def note(call: Call) -> Fault | None:
            seen.append((time.monotonic(), call))
            return judge(call)

        proxy.judge = note
        return seen

    return judge_by


def by_lot(faults: list[Fault], share: float, *, watches: bool) -> Callable[[Call], Fault | None]:
    """A judge: a share of the calls (or of the watches) fails, by lot; a fixed step would fall in step with the retries."""
    lots = random.Random(7)

    def judge(call: Call) -> Fault | None:
        fault = lots.choice(faults) if call.is_watch == watches and lots.random() < share else None
        return None if fault == CALLS["409"] and not call.is_write else fault  # nothing is in conflict with a read

    return judge


def under(faults: list[Fault], share: float, watches: bool, **of: Any) -> None:
    """A job comes up, and goes on, under faults."""
    lots, failed = by_lot(faults, share, watches=watches), set[int]()

    def judge(call: Call) -> Fault | None:
        fault = lots(call)
        if fault is not None and fault != CALLS["409"] and not isinstance(fault, Delay):
            failed.add(call.number)
        return fault

    calls = of["timed"](judge)
    operator = of["keep_operator"]("--lease-seconds", "20", "--resync-seconds", "20", url=of["proxy"].url)
    of["until"]("the operator to lead", lambda: operator.leads, PATIENCE)
    job = of["submit"]()
    comes_up(of["admin"], job, of["kubelet"], of["until"])
    of["kubelet"].end(of["kubelet"].live(SERVER)[0], 137, "out of memory")
    of["until"]("the second run", lambda: job.status["server"]["run"] == 2, PATIENCE)
    of["until"]("its pod", lambda: of["kubelet"].live(SERVER), PATIENCE)
    assert hasty(calls, failed) == {}
    assert loops(calls) == {}
    assert len(operator.lives) == 1, "faults that pass are survived without a new process"
    events_are_few(of["admin"], job.namespace)
    assert "fedjob_reconcile_panics_total{" not in operator.now.scrape()


@pytest.fixture
def world(
    admin: Any, keep_operator: Any, submit: Any, kubelet: Any, proxy: Any, timed: Any, until: Any
) -> dict[str, Any]:
    """All that `under` needs."""
    return {"admin": admin, "keep_operator": keep_operator, "submit": submit, "kubelet": kubelet, "proxy": proxy,
            "timed": timed, "until": until}  # fmt: skip


def test_every_fourth_call_fails_in_some_way(world: dict[str, Any]) -> None:
    under(list(CALLS.values()), 0.25, False, **world)


def test_two_of_three_watches_fail_in_some_way(world: dict[str, Any]) -> None:
    under(list(WATCHES.values()), 0.67, True, **world)


@pytest.mark.full
@pytest.mark.parametrize("fault", CALLS)
def test_every_fourth_call_fails(world: dict[str, Any], fault: str) -> None:
    under([CALLS[fault]], 0.25, False, **world)


@pytest.mark.full
@pytest.mark.parametrize("fault", WATCHES)
def test_two_of_three_watches_fail(world: dict[str, Any], fault: str) -> None:
    under([WATCHES[fault]], 0.67, True, **world)


@pytest.mark.full
def test_each_call_takes_five_seconds(world: dict[str, Any]) -> None:
    """Those for the Lease as well; so its life must be longer than three calls."""
    under([Delay(5.0)], 1.0, False, **world)


@pytest.mark.full
def test_watches_that_fall_silent(world: dict[str, Any]) -> None:
    """Each delivers its head, and nothing more: what the lists say is enough."""
    under([Silence(400)], 1.0, True, **world)


@pytest.mark.parametrize("code", [409, 429, 500])
def test_writes_that_always_fail_are_tried_seldom(
    admin: Any, keep_operator: Any, submit: Any, kubelet: Any, proxy: Any, timed: Any, until: Any, code: int
) -> None:
    fails = Answer(code, "Test", retry_after=1 if code == 429 else None)
    broken = False
    calls = timed(lambda call: fails if broken and call.is_write and "/leases" not in call.path else None)
    operator = keep_operator(url=proxy.url)
    until("the operator to lead", lambda: operator.leads)  # who leads has an authority, which is a write too
    broken = True
    job = submit()
    path = names.FEDERATED_JOB.path(job.namespace, job.name) + "/status"

    def tries() -> list[float]:
        return [when for when, call in calls if call.path == path]

    until("five tries", lambda: len(tries()) >= 5, PATIENCE)
    assert paced(tries())
    broken = False
    comes_up(admin, job, kubelet, until)
    assert loops(calls) == {}


def test_watches_that_always_end_at_once_are_asked_for_seldom(
    admin: Any, keep_operator: Any, submit: Any, kubelet: Any, proxy: Any, timed: Any, until: Any
) -> None:
    broken = True
    calls = timed(lambda call: Says("") if broken and call.is_watch else None)
    operator = keep_operator(url=proxy.url)
    until("the operator to lead", lambda: operator.leads)
    job = submit()

    def tries() -> list[float]:
        return [when for when, call in calls if call.is_watch and call.path == names.POD.path("")]

    until("five tries", lambda: len(tries()) >= 5)
    assert paced(tries())
    broken = False
    comes_up(admin, job, kubelet, until)
    assert loops(calls) == {}


def test_an_api_server_that_is_away_for_a_while(
    admin: Any, keep_operator: Any, submit: Any, kubelet: Any, proxy: Any, timed: Any, until: Any
) -> None:
    """Longer than the Lease lives: the operator ends, starts, waits, and goes on where the cluster is."""
    calls = timed(lambda _: None)
    operator = keep_operator(url=proxy.url)
    until("the operator to lead", lambda: operator.leads)
    job = submit()
    (pod,) = kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    with proxy.down():
        kubelet.end(pod, 137, "out of memory")
        until("the operator to end, and to be started again", lambda: len(operator.lives) > 1)
        tries = '"the authority cannot be read yet"'
        until("a few tries of the new process", lambda: operator.now.log.read_text().count(tries) >= 3)
    until("the second run", lambda: job.status["server"]["run"] == 2)
    until("its pod", lambda: kubelet.live(SERVER))
    assert len(kubelet.pods(SERVER)) == 2
    assert loops(calls) == {}


def test_what_is_deleted_while_a_watch_is_away_is_made_again(
    admin: Any, keep_operator: Any, submit: Any, kubelet: Any, proxy: Any, timed: Any, until: Any
) -> None:
    """The watch is told that its version is too old, lists anew, and never hears of the deletion."""
    away = False
    timed(lambda call: Answer(410, "Expired") if away and call.is_watch else None)
    operator = keep_operator(url=proxy.url)
    until("the operator to lead", lambda: operator.leads)
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    away = True
    proxy.cut_all()
    gone = job.status["server"]["job"]
    admin.delete(names.JOB, job.namespace, gone)
    until("its pods to be gone", lambda: kubelet.bury() or not kubelet.pods(SERVER))
    away = False
    until("the Job to be made again", lambda: admin.get(names.JOB, job.namespace, gone), 60.0)
