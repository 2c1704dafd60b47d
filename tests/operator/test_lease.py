"""Leadership, with the API server's rule of versions and a clock of our own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedjob_operator import lease
from fedjob_operator.lease import Leadership, LeadershipLost


class _ConflictError(Exception):
    conflict = True


class _AwayError(Exception):
    conflict = False

    def __str__(self) -> str:
        return "away"


class _Server:
    """One Lease, with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        if self.away:
            raise _AwayError
        assert (kind.name, namespace, name) == ("Lease", "system", "fedjob-operator")
        return self.lease

    async def create(self, manifest: Any) -> Any:
        if self.lease is not None:
            raise _ConflictError
        return self._keep(manifest)

    async def replace(self, manifest: Any) -> Any:
        if self.away:
            raise _AwayError
        assert self.lease is not None
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise _ConflictError
        return self._keep(manifest)

    def _keep(self, manifest: Any) -> Any:
        self.version += 1
        self.lease = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def replica(server: _Server, clock: _Clock, name: str) -> Leadership:
    return Leadership(server, "system", name, 10.0, clock, (_ConflictError, _AwayError))


def attempt(claim: Leadership) -> bool:
    return asyncio.run(claim._try())


def test_the_first_leads_and_the_second_waits_a_whole_life_of_silence() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    assert attempt(first)
    assert not attempt(second)
    clock.now += 9.9
    assert not attempt(second)
    clock.now += 0.2
    assert attempt(second)


def test_a_renewal_starts_the_wait_anew() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    attempt(first)
    for _ in range(10):
        assert not attempt(second)
        clock.now += 5.0
        attempt(first)
    assert not attempt(second)


def test_the_old_holder_stops_before_the_next_may_begin() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    attempt(first)
    attempt(second)
    for tenth in range(200):
        if attempt(second):
            break
        clock.now = 100.0 + tenth / 10
    assert not first.leading
    with pytest.raises(LeadershipLost):
        first.check()


def test_a_process_that_was_stopped_and_goes_on_may_not_write() -> None:
    server, clock = _Server(), _Clock()
    first = replica(server, clock, "one")
    attempt(first)
    first.check()
    clock.now += 3600.0
    with pytest.raises(LeadershipLost):
        first.check()


def test_a_container_started_again_in_the_same_pod_need_not_wait() -> None:
    server, clock = _Server(), _Clock()
    attempt(replica(server, clock, "one"))
    assert attempt(replica(server, clock, "one"))


def test_a_lease_that_was_released_is_free_at_once() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    attempt(first)
    asyncio.run(first.release())
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == "", "as the Lease of Kubernetes' own components is given back"
    assert attempt(second)
    assert server.lease["spec"]["holderIdentity"] == "two"


def test_a_renewal_reads_nothing_and_an_error_that_tells_of_no_lost_race_is_one() -> None:
    server, clock = _Server(), _Clock()
    claim = Leadership(server, "system", "one", 10.0, clock, (_ConflictError, OSError))
    attempt(claim)
    server.away = True  # for whoever reads

    async def answers(manifest: Any) -> Any:
        return server._keep(manifest)

    async def fails(_: Any) -> Any:
        raise OSError("no route")

    server.replace = answers  # type: ignore[method-assign]
    assert attempt(claim)
    server.replace = fails  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no route"):
        attempt(claim)


def test_a_short_absence_of_the_api_server_is_survived_and_a_long_one_is_not() -> None:
    server, clock = _Server(), _Clock()
    first = replica(server, clock, "one")
    attempt(first)
    server.away = True
    clock.now += 6.0
    with pytest.raises(_AwayError):
        attempt(first)
    first.check()
    clock.now += 1.0
    with pytest.raises(LeadershipLost):
        first.check()


def test_a_renewal_whose_answer_was_lost_is_no_loss() -> None:
    server, clock = _Server(), _Clock()
    first = replica(server, clock, "one")
    attempt(first)
    server.version += 1  # it was written, and the writer never heard of it
    assert server.lease is not None
    server.lease["metadata"]["resourceVersion"] = str(server.version)
    clock.now += 2.0
    assert attempt(first)
    assert first.leading


def test_a_holder_that_finds_another_ones_record_leads_no_more() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    attempt(first)
    attempt(second)
    clock.now += 10.1
    assert attempt(second)
    assert not attempt(first)
    assert not first.leading


def test_the_next_try_comes_when_the_holders_time_is_over() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    attempt(first)
    attempt(second)
    clock.now += 9.5
    assert 0.5 < second._pause() < 0.6
    clock.now += 1.0
    assert second._pause() == second.period


# ------------------------------------------------------------------------------------- answers that come late, and times


def late(server: _Server, clock: _Clock, seconds: float, what: str) -> None:
    """The next writes of a kind are answered only after a while."""
    answer = getattr(server, what)

    async def slow(manifest: Any) -> Any:
        found = await answer(manifest)
        clock.now += seconds
        return found

    setattr(server, what, slow)


@pytest.mark.parametrize("what", ["create", "replace"])
def test_the_lease_counts_from_before_the_write_however_late_its_answer(what: str) -> None:
    """Another replica counts from the write itself: one that counted from the answer would act beside it."""
    server, clock = _Server(), _Clock()
    first = replica(server, clock, "one")
    if what == "replace":
        assert attempt(first)
    late(server, clock, 5.0, what)
    assert attempt(first)
    assert first.leading
    clock.now += 1.6  # 6.6 s since the write: within two thirds of ten seconds
    assert first.leading
    clock.now += 0.1
    assert not first.leading


def test_a_claim_of_a_lease_that_is_free_counts_from_before_the_write_too() -> None:
    server, clock = _Server(), _Clock()
    attempt(replica(server, clock, "two"))
    second = replica(server, clock, "one")
    assert not attempt(second)
    clock.now += 10.0
    late(server, clock, 6.0, "replace")
    assert attempt(second)
    clock.now += 0.6
    assert second.leading
    clock.now += 0.1
    assert not second.leading


def test_never_two_lead_whatever_the_answers_of_the_first_take() -> None:
    for seconds in (0.0, 1.0, 3.0, 6.0, 9.0):
        server, clock = _Server(), _Clock()
        first, second = replica(server, clock, "one"), replica(server, clock, "two")
        attempt(first)
        attempt(second)
        late(server, clock, seconds, "replace")
        attempt(first)
        while not attempt(second):
            clock.now += 0.1
        assert not first.leading


def test_the_record_is_what_other_replicas_read() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    attempt(first)
    assert server.lease is not None
    made = server.lease["spec"]
    assert (server.lease["apiVersion"], server.lease["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert {k: server.lease["metadata"][k] for k in ("name", "namespace")} == {
        "name": "fedjob-operator", "namespace": "system",
    }  # fmt: skip
    assert (made["holderIdentity"], made["leaseDurationSeconds"], made["leaseTransitions"]) == ("one", 10, 0)
    attempt(first)
    renewed = server.lease["spec"]
    assert renewed["acquireTime"] == made["acquireTime"]
    assert renewed["renewTime"] > made["renewTime"]
    assert renewed["leaseTransitions"] == 0
    attempt(second)
    clock.now += 10.0
    attempt(second)
    taken = server.lease["spec"]
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == ("two", 1)
    assert taken["acquireTime"] > made["acquireTime"]
    attempt(first)
    clock.now += 10.0
    attempt(first)
    assert server.lease["spec"]["leaseTransitions"] == 2


def test_the_record_of_a_life_below_a_second_tells_one_and_a_time_that_is_missing_is_now() -> None:
    server, clock = _Server(), _Clock()
    attempt(Leadership(server, "system", "one", 0.5, clock, ()))
    assert server.lease is not None
    assert server.lease["spec"]["leaseDurationSeconds"] == 1
    server.lease = {**server.lease, "spec": {"holderIdentity": "one"}}
    attempt(replica(server, clock, "one"))
    assert server.lease["spec"]["acquireTime"] == server.lease["spec"]["renewTime"]


def test_another_installations_shorter_or_longer_life_is_kept() -> None:
    """The record says how long its holder may be silent; ours is only what counts without that."""
    server, clock = _Server(), _Clock()
    other = Leadership(server, "system", "one", 30.0, clock, (_ConflictError, _AwayError))
    second = replica(server, clock, "two")
    attempt(other)
    assert not attempt(second)
    clock.now += 29.9
    assert not attempt(second)
    clock.now += 0.1
    assert attempt(second)


def test_a_change_of_anything_in_the_record_starts_the_wait_anew() -> None:
    for part, value in (("renewTime", "x"), ("leaseTransitions", 7), ("holderIdentity", "three")):
        server, clock = _Server(), _Clock()
        attempt(replica(server, clock, "one"))
        second = replica(server, clock, "two")
        assert not attempt(second)
        assert server.lease is not None
        clock.now += 9.0
        server.lease = {**server.lease, "spec": {**server.lease["spec"], part: value}}
        assert not attempt(second)
        clock.now += 9.9
        assert not attempt(second)
        clock.now += 0.1
        assert attempt(second)


def test_a_record_without_a_life_is_waited_for_as_long_as_our_own() -> None:
    server, clock = _Server(), _Clock()
    attempt(replica(server, clock, "one"))
    assert server.lease is not None
    server.lease = {**server.lease, "spec": {"holderIdentity": "one"}}
    second = replica(server, clock, "two")
    assert not attempt(second)
    clock.now += 9.9
    assert not attempt(second)
    clock.now += 0.1
    assert attempt(second)


@dataclass
class _Loop:
    """Waits of `hold` and `acquire`: they move the clock, do what is due, and end the loop after the last."""

    clock: _Clock
    events: list[Callable[[], None]]
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.now += seconds
        if len(self.waits) > len(self.events):
            raise asyncio.CancelledError
        self.events[len(self.waits) - 1]()


def nothing() -> None:
    """Nothing happens meanwhile."""


def test_the_holder_renews_five_times_in_a_life_and_at_least_a_second_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    server, clock = _Server(), _Clock()
    first = replica(server, clock, "one")
    attempt(first)

    def slowly() -> None:
        late(server, clock, 1.8, "replace")

    loop = _Loop(clock, [nothing, slowly, nothing])
    monkeypatch.setattr(lease.asyncio, "sleep", loop.sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(first.hold())
    assert loop.waits == [pytest.approx(2.0), pytest.approx(2.0), pytest.approx(1.0), pytest.approx(1.0)]
    assert first.leading


def test_a_holder_whose_lease_is_another_ones_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    server, clock = _Server(), _Clock()
    first = replica(server, clock, "one")
    attempt(first)

    def stolen() -> None:
        assert server.lease is not None
        metadata = {**server.lease["metadata"], "resourceVersion": "another"}
        server.lease = {**server.lease, "metadata": metadata, "spec": {**server.lease["spec"], "holderIdentity": "two"}}

    loop = _Loop(clock, [stolen, nothing])
    monkeypatch.setattr(lease.asyncio, "sleep", loop.sleep)
    with pytest.raises(LeadershipLost, match="another replica holds the Lease"):
        asyncio.run(first.hold())
    assert not first.leading
    assert clock.now == 102.0, "at once, not when its time is over"


def test_a_holder_that_cannot_renew_ends_before_another_may_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    server, clock = _Server(), _Clock()
    first = replica(server, clock, "one")
    attempt(first)
    server.away = True
    loop = _Loop(clock, [nothing] * 9)
    monkeypatch.setattr(lease.asyncio, "sleep", loop.sleep)
    with pytest.raises(LeadershipLost, match="could not be renewed in time"):
        asyncio.run(first.hold())
    assert 2 / 3 * 10 <= clock.now - 100.0 < 10.0


def test_who_waits_leads_once_the_lease_is_free_and_an_error_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    attempt(first)
    server.away = True

    def back() -> None:
        server.away = False

    loop = _Loop(clock, [back, nothing, nothing, nothing, nothing, nothing])
    monkeypatch.setattr(lease.asyncio, "sleep", loop.sleep)
    asyncio.run(second.acquire())
    assert second.leading
    assert loop.waits == [2.0, *[2.0] * 4, pytest.approx(2.0)]
    assert clock.now - 100.0 == pytest.approx(12.0)


def test_a_release_is_for_who_leads_and_its_failure_is_nobodys() -> None:
    server, clock = _Server(), _Clock()
    first, second = replica(server, clock, "one"), replica(server, clock, "two")
    asyncio.run(second.release())
    assert server.lease is None
    attempt(first)
    clock.now += 7.0
    asyncio.run(first.release())  # it may not write any more
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == "one"
    attempt(first)
    server.away = True
    asyncio.run(first.release())
    assert not first.leading
    assert server.lease["spec"]["holderIdentity"] == "one"


def test_a_clock_that_has_just_begun_shortens_no_wait() -> None:
    clock = _Clock()
    clock.now = 9.5  # a life after 0 is half a second away, and nobody was seen at 0
    claim = replica(_Server(), clock, "one")
    assert claim._pause() == claim.period == 2.0


def test_the_wait_ends_a_moment_after_the_holders_life() -> None:
    server, clock = _Server(), _Clock()
    attempt(replica(server, clock, "one"))
    second = replica(server, clock, "two")
    attempt(second)
    for passed, pause in ((0.0, 2.0), (8.0, 2.0), (8.1, 1.95), (9.9, 0.15), (10.0, 2.0), (11.0, 2.0)):
        clock.now = 100.0 + passed
        assert second._pause() == pytest.approx(pause)


def test_what_is_told_of_leading(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    server, clock = _Server(), _Clock()
    claim = Leadership(server, "system", "one", 10.0, clock, (_ConflictError, _AwayError))

    def goes() -> None:
        server.away = True

    def comes() -> None:
        server.away = False

    server.away = True
    loop = _Loop(clock, [comes, goes, comes])
    monkeypatch.setattr(lease.asyncio, "sleep", loop.sleep)
    with caplog.at_level("INFO"):
        asyncio.run(claim.acquire())
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(claim.hold())
        server.away = True
        asyncio.run(claim.release())
    told = [(r.levelname, r.message, r.__dict__.get("identity")) for r in caplog.records]
    assert told == [
        ("WARNING", "the Lease cannot be read or written: away", None),
        ("INFO", "leading", "one"),
        ("WARNING", "the Lease is not renewed: away", None),
        ("INFO", "the Lease is not released: away", None),
    ]


def test_the_record_tells_the_time_of_the_world_whatever_the_zone_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, clock = _Server(), _Clock()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        attempt(replica(server, clock, "one"))
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert server.lease is not None
    told = datetime.fromisoformat(server.lease["spec"]["renewTime"])
    assert abs(datetime.now(UTC) - told) < timedelta(hours=1)
