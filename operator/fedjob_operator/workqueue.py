"""Keys that wait to be worked on: each once, one pass at a time for each, failures slowed down.

Theory of operation
-------------------
A key is in one place at a time:

    add ──► waiting ──► in hand ──► gone          a key added while in hand is worked on once more afterwards (`again`)
              ▲            │
              └── later ◄──┘                       a delay: asked for by the pass itself, or the price of a failure

`later` holds at most one time per key, the earliest. A failed key comes back after a delay that doubles from `first` to
`longest` seconds, with jitter, never sooner than a second: one hot key cannot keep the API server busy. An `add` in the
meantime does not cut that delay short, because the event that it tells of is often the echo of the failed write.

One event loop; nothing here is for threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)


class Gauges(Protocol):
    """What a queue tells about itself; `metrics.QueueGauges` is one."""

    def added(self) -> None:
        """A key was added that was not waiting."""

    def retried(self) -> None:
        """A key comes back after a failure."""

    def waited(self, seconds: float) -> None:
        """A key was taken in hand, this long after it became due."""


@dataclass
class _Due(Generic[K]):
    when: float
    order: int
    key: K

    def __lt__(self, other: _Due[K]) -> bool:
        return (self.when, self.order) < (other.when, other.order)


@dataclass
class WorkQueue(Generic[K]):
    """A queue of keys. clock: monotonic seconds. jitter: a random factor around 1 for each delay after a failure."""

    clock: Callable[[], float]
    jitter: Callable[[], float]
    gauges: Gauges
    first: float = 1.0
    longest: float = 300.0
    _waiting: deque[K] = field(default_factory=deque)
    _since: dict[K, float] = field(default_factory=dict)  # every waiting key, and when it came
    _in_hand: dict[K, float] = field(default_factory=dict)
    _again: set[K] = field(default_factory=set)
    _later: list[_Due[K]] = field(default_factory=list)
    _due: dict[K, float] = field(default_factory=dict)  # the one entry of `_later` that counts for a key
    _failures: dict[K, int] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _order: int = 0

    def add(self, key: K) -> None:
        """Work on `key` soon; does nothing if it waits already, or pays for a failure."""
        if key in self._failures and key in self._due:
            return
        if key in self._in_hand:
            self._again.add(key)
        elif key not in self._since:
            self._put(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Work on `key` in `seconds`, or earlier if it is asked for earlier."""
        when = self.clock() + seconds
        if key not in self._due or when < self._due[key]:
            self._due[key] = when
            self._order += 1
            heapq.heappush(self._later, _Due(when, self._order, key))
            self._news.set()

    def depth(self) -> int:
        """Keys that wait and are due."""
        return len(self._waiting)

    def oldest_seconds(self) -> float:
        """How long the key that is longest in hand has been there; 0 if none is."""
        return max((self.clock() - since for since in self._in_hand.values()), default=0.0)

    def failures(self, key: K) -> int:
        """Passes of `key` that failed in a row."""
        return self._failures.get(key, 0)

    async def take(self) -> K:
        """The next key, when there is one. `done` or `failed` must follow."""
        while True:
            self._wake_due()
            if self._waiting:
                key = self._waiting.popleft()
                now = self.clock()
                self.gauges.waited(now - self._since.pop(key))
                self._in_hand[key] = now
                return key  # if more keys wait, the news are still there for the other workers
            self._news.clear()
            timeout = max(self._later[0].when - self.clock(), 0.0) if self._later else None
            # Not `asyncio.wait_for`: until Python 3.12 it forgets that it was cancelled if the news come in the same moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()

    def done(self, key: K, again_after: float | None = None) -> None:
        """The pass over `key` went well; again_after: seconds until the next one, None: when something happens."""
        self._failures.pop(key, None)
        self._release(key)
        if again_after is not None:
            self.add_after(key, again_after)

    def failed(self, key: K, at_least: float = 0.0, *, advanced: bool = False) -> float:
        """The pass over `key` failed: it comes back after a delay of at least `at_least` seconds, which is returned.

        advanced: it got something done before it failed, so the delays begin from the shortest again.
        """
        count = 0 if advanced else self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = max(min(self.first * 2.0**count, self.longest) * self.jitter(), at_least, 1.0)
        self._again.discard(key)  # the next pass sees everything anyway
        self._due.pop(key, None)
        self.add_after(key, delay)
        self._release(key)
        self.gauges.retried()
        return delay

    def forget(self, key: K) -> None:
        """The object is gone: its delays and failures count no more."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    async def work(self, one_pass: Callable[[K], Awaitable[None]]) -> None:
        """A worker: for ever take a key and run `one_pass`, which itself calls `done` or `failed`."""
        while True:
            await one_pass(await self.take())

    def _release(self, key: K) -> None:
        self._in_hand.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self._put(key)

    def _put(self, key: K) -> None:
        self._waiting.append(key)
        self._since[key] = self.clock()
        self.gauges.added()
        self._news.set()

    def _wake_due(self) -> None:
        now = self.clock()
        while self._later and self._later[0].when <= now:
            due = heapq.heappop(self._later)
            if self._due.get(due.key) != due.when:
                continue  # replaced by an earlier time, or forgotten
            del self._due[due.key]
            if due.key in self._in_hand:
                self._again.add(due.key)
            elif due.key not in self._since:
                self._put(due.key)
