"""Leadership, with the API server's rule of versions and a clock of our own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fedjob_operator.lease import Leadership, LeadershipLost


class _ConflictError(Exception):
    conflict = True


class _AwayError(Exception):
    conflict = False


class _Server:
    """One Lease, with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False

    async def get(self, _kind: Any, _namespace: str, _name: str) -> Any:
        if self.away:
            raise _AwayError
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
    assert attempt(second)
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == "two"


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
