"""The queue: one pass at a time for a key, one place for each key, failures slowed down. The clock is ours."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from fedjob_operator.workqueue import WorkQueue


@dataclass
class _Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class _Seen:
    adds: int = 0
    retries: int = 0
    waits: list[float] = field(default_factory=list)

    def added(self) -> None:
        self.adds += 1

    def retried(self) -> None:
        self.retries += 1

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)


def queue_of(clock: _Clock, seen: _Seen | None = None) -> WorkQueue[str]:
    return WorkQueue(clock, lambda: 1.0, seen or _Seen())


async def taken(queue: WorkQueue[str]) -> list[str]:
    """Every key that is due now."""
    found = []
    while True:
        task = asyncio.ensure_future(queue.take())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return found
        found.append(task.result())


def test_a_key_added_twice_is_worked_on_once() -> None:
    async def story() -> None:
        queue = queue_of(_Clock())
        for key in ("a", "b", "a"):
            queue.add(key)
        assert await taken(queue) == ["a", "b"]

    asyncio.run(story())


def test_a_key_added_while_in_hand_is_worked_on_once_more_afterwards_and_never_beside() -> None:
    async def story() -> None:
        queue = queue_of(_Clock())
        queue.add("a")
        assert await taken(queue) == ["a"]
        queue.add("a")
        queue.add("a")
        assert await taken(queue) == []
        queue.done("a")
        assert await taken(queue) == ["a"]
        queue.done("a")
        assert await taken(queue) == []

    asyncio.run(story())


def test_failures_double_the_delay_and_an_event_does_not_cut_it_short() -> None:
    async def story() -> None:
        clock, seen = _Clock(), _Seen()
        queue = queue_of(clock, seen)
        queue.add("a")
        for delay in (1.0, 2.0, 4.0, 8.0):
            assert await taken(queue) == ["a"]
            assert queue.failed("a") == delay
            queue.add("a")
            assert await taken(queue) == []
            clock.now += delay
        assert await taken(queue) == ["a"]
        queue.done("a")
        assert queue.failures("a") == 0
        assert seen.retries == 4

    asyncio.run(story())


def test_a_pass_that_got_something_done_before_it_failed_waits_a_second_only() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        queue.add("a")
        for advanced, delay in ((False, 1.0), (False, 2.0), (True, 1.0), (False, 2.0)):
            assert await taken(queue) == ["a"]
            assert queue.failed("a", advanced=advanced) == delay
            clock.now += delay

    asyncio.run(story())


def test_the_delay_asked_for_by_the_api_server_is_kept() -> None:
    async def story() -> None:
        queue = queue_of(_Clock())
        queue.add("a")
        await taken(queue)
        assert queue.failed("a", at_least=30.0) == 30.0

    asyncio.run(story())


def test_the_earliest_of_several_delays_counts_and_counts_once() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        queue.add_after("a", 10.0)
        queue.add_after("a", 5.0)
        queue.add_after("a", 20.0)
        clock.now = 5.0
        assert await taken(queue) == ["a"]
        queue.done("a")
        clock.now = 50.0
        assert await taken(queue) == []

    asyncio.run(story())


def test_a_delay_wakes_a_sleeping_worker() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(loop.time, lambda: 1.0, _Seen())
        worker = asyncio.ensure_future(queue.take())
        await asyncio.sleep(0)
        queue.add_after("a", 0.01)
        assert await asyncio.wait_for(worker, 10.0) == "a"

    asyncio.run(story())


steps = st.lists(
    st.tuples(st.sampled_from(["add", "later", "take", "done", "fail", "time", "forget"]), st.sampled_from("abc"))
)


@given(steps=steps)
def test_no_key_is_in_two_hands_and_none_is_lost(steps: list[tuple[str, str]]) -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        held: set[str] = set()
        owed: set[str] = set()  # added, and not taken since
        for what, key in steps:
            if what == "add":
                queue.add(key)
                owed.add(key)
            elif what == "later":
                queue.add_after(key, 3.0)
                owed.add(key)
            elif what == "take":
                for found in await taken(queue):
                    assert found not in held
                    held.add(found)
                    owed.discard(found)
            elif what == "done" and key in held:
                held.discard(key)
                queue.done(key)
            elif what == "fail" and key in held:
                held.discard(key)
                queue.failed(key)
                owed.add(key)
            elif what == "forget" and key in held:
                queue.forget(key)
            elif what == "time":
                clock.now += 2.0
        for key in list(held):
            queue.done(key)
        clock.now += 1000.0
        found = set(await taken(queue))
        forgotten = {key for what, key in steps if what == "forget"}
        assert owed - forgotten <= found | held

    asyncio.run(story())


def test_a_worker_that_is_cancelled_ends_though_a_key_comes_in_the_same_moment() -> None:
    """What ends an operator, a signal or the loss of the Lease, comes whenever it does; a worker that went on would keep it alive."""

    async def story() -> None:
        queue, held = queue_of(_Clock()), asyncio.Event()

        async def one_pass(_key: str) -> None:
            await held.wait()

        queue.add_after("later", 1000.0)
        workers = [asyncio.ensure_future(queue.work(one_pass)) for _ in range(3)]
        await asyncio.sleep(0.01)  # all of them wait
        queue.add("now")
        for worker in workers:
            worker.cancel()
        _, left = await asyncio.wait(workers, timeout=5.0)
        for worker in left:
            worker.cancel()
        assert not left

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------- bounds and numbers


def test_delays_have_a_floor_of_a_second_and_a_cap_whatever_the_jitter() -> None:
    async def story() -> None:
        for factor, delays in ((0.1, [1.0] * 4), (1.0, [1.0, 2.0, 4.0, 5.0]), (1.5, [1.5, 3.0, 6.0, 7.5])):
            clock = _Clock()
            queue: WorkQueue[str] = WorkQueue(clock, lambda factor=factor: factor, _Seen(), longest=5.0)
            for delay in delays:
                queue.add("a")
                assert await taken(queue) == ["a"]
                assert queue.failed("a") == delay
                clock.now += delay

    asyncio.run(story())


def test_the_delays_of_the_operator_double_to_five_minutes() -> None:
    queue = queue_of(_Clock())
    waits = [queue.failed("a") for _ in range(12)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0]
    assert queue.failures("a") == 12
    assert queue.failures("b") == 0


def test_a_key_that_failed_comes_back_neither_sooner_nor_later() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        queue.add("a")
        await taken(queue)
        queue.add("a")  # while in hand: the next pass sees that too
        queue.failed("a", at_least=10.0)
        clock.now = 9.9
        assert await taken(queue) == []
        clock.now = 10.0
        assert await taken(queue) == ["a"]
        queue.done("a")
        assert await taken(queue) == []

    asyncio.run(story())


def test_a_failure_replaces_a_time_that_was_asked_for() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        queue.add("a")
        await taken(queue)
        queue.add_after("a", 0.5)
        queue.failed("a", at_least=10.0)
        clock.now = 9.9
        assert await taken(queue) == []

    asyncio.run(story())


def test_a_pass_that_went_well_may_ask_for_the_next_one() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        queue.add("a")
        await taken(queue)
        queue.done("a", 4.0)
        clock.now = 3.9
        assert await taken(queue) == []
        queue.add("a")  # news are not made to wait for it
        assert await taken(queue) == ["a"]
        queue.done("a", None)
        clock.now = 4.0
        assert await taken(queue) == ["a"], "what was asked for stands"
        queue.done("a")
        clock.now = 100.0
        assert await taken(queue) == []

    asyncio.run(story())


def test_a_key_that_waits_already_is_not_added_by_a_time_that_comes() -> None:
    async def story() -> None:
        clock, seen = _Clock(), _Seen()
        queue = queue_of(clock, seen)
        queue.add_after("a", 1.0)
        queue.add("a")
        clock.now = 2.0
        assert await taken(queue) == ["a"]
        queue.add_after("a", 1.0)  # and one that comes while it is in hand means one pass more
        clock.now = 3.0
        assert await taken(queue) == []
        queue.done("a")
        assert await taken(queue) == ["a"]
        assert seen.adds == 2

    asyncio.run(story())


def test_what_is_forgotten_comes_back_at_no_time_and_has_no_failures() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        queue.add("a")
        await taken(queue)
        queue.failed("a")
        queue.forget("a")
        assert queue.failures("a") == 0
        clock.now = 1000.0
        assert await taken(queue) == []
        queue.add("a")
        assert await taken(queue) == ["a"]
        assert queue.failed("a") == 1.0

    asyncio.run(story())


def test_a_second_worker_is_woken_for_the_second_key() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        workers = [asyncio.ensure_future(queue.take()) for _ in range(3)]
        await asyncio.sleep(0)  # all of them wait
        queue.add("a")
        queue.add("b")
        done, pending = await asyncio.wait(workers, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
        if len(done) < 2:
            more, pending = await asyncio.wait(pending, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert {worker.result() for worker in done} == {"a", "b"}
        for worker in pending:
            worker.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    asyncio.run(story())


def test_a_sooner_time_wakes_a_worker_that_sleeps_until_a_later_one() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(loop.time, lambda: 1.0, _Seen())
        queue.add_after("late", 3600.0)
        worker = asyncio.ensure_future(queue.take())
        await asyncio.sleep(0)
        queue.add_after("soon", 0.01)
        assert await asyncio.wait_for(worker, 10.0) == "soon"

    asyncio.run(story())


def test_keys_of_one_moment_come_in_the_order_in_which_they_were_asked_for() -> None:
    async def story() -> None:
        clock = _Clock()
        queue = queue_of(clock)
        for key in "cab":
            queue.add_after(key, 1.0)
        queue.add_after("first", 0.5)
        clock.now = 1.0
        assert await taken(queue) == ["first", "c", "a", "b"]

    asyncio.run(story())


def test_what_the_queue_tells_of_itself() -> None:
    async def story() -> None:
        clock, seen = _Clock(10.0), _Seen()
        queue = queue_of(clock, seen)
        assert (queue.depth(), queue.oldest_seconds()) == (0, 0.0)
        queue.add("a")
        queue.add("b")
        queue.add_after("later", 100.0)
        assert (queue.depth(), queue.oldest_seconds()) == (2, 0.0)
        clock.now = 13.0
        assert await queue.take() == "a"
        clock.now = 15.0
        assert await queue.take() == "b"
        clock.now = 16.0
        assert seen.waits == [3.0, 5.0]
        assert (queue.depth(), queue.oldest_seconds()) == (0, 3.0)
        queue.done("a")
        assert queue.oldest_seconds() == 1.0
        queue.failed("b")
        assert queue.oldest_seconds() == 0.0
        assert (seen.adds, seen.retries) == (2, 1)

    asyncio.run(story())


def test_a_worker_takes_one_key_after_another() -> None:
    async def story() -> None:
        queue = queue_of(_Clock())
        done: list[str] = []

        async def one_pass(key: str) -> None:
            done.append(key)
            queue.done(key)
            if len(done) == 3:
                raise asyncio.CancelledError

        for key in "abc":
            queue.add(key)
        await asyncio.gather(queue.work(one_pass), return_exceptions=True)
        assert done == ["a", "b", "c"]

    asyncio.run(story())
