"""Lists: the whole truth, now and then. What a watch has missed is seen here, and a watch that is dead is found out.

A stream that looks alive and delivers nothing is the one fault that no reconnection mends. So a list is compared with what the
stream has told: if an object's version in the list is still unknown to the stream some seconds later, the stream is dead, and the
process's liveness ends with it.

A stream that begins anew tells what is there, and never what has gone in between. So each new beginning is followed by a list of
names.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import names
from .cluster import JSON, METADATA, ApiError, Cluster
from .metrics import Metrics
from .names import Kind
from .observed import Raw, read_mount_failure, read_refusal
from .reach import Reach
from .routes import Key
from .store import CHILDREN, WATCHED, Place, Store, place_of
from .together import together

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 2.0  # several streams begin anew together
_LONGEST_SECONDS = 30.0
_REFUSALS = {"involvedObject.kind": names.JOB.name, "reason": "FailedCreate"}
_MOUNTS = {"involvedObject.kind": names.POD.name, "reason": "FailedMount"}
_LABELLED = {names.MANAGED_BY: names.MANAGER}


@dataclass
class Resync:
    """Fills the store from lists. dead: kinds whose watch was found dead."""

    cluster: Cluster
    store: Store
    reach: Reach
    metrics: Metrics
    add: Callable[[Key], None]
    patience_seconds: float = 10.0
    dead: set[str] = field(default_factory=set)
    _mounting: frozenset[str] = frozenset()  # UIDs of pods that had no volumes at the last look
    _begun: set[Kind] = field(default_factory=set)  # kinds whose stream has begun anew
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def begun(self, kind: Kind) -> None:
        """A stream of this kind has begun anew."""
        self._begun.add(kind)
        self._news.set()

    async def follow(self) -> None:
        """For ever: after each new beginning of a stream, find out what has gone while nobody looked."""
        while True:
            await self._news.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._news.clear()
            while self._begun:
                await self._drop_missing(self._begun.pop())

    async def _drop_missing(self, kind: Kind) -> None:
        self._add(*await self._walk(kind, METADATA, lambda _: None))

    async def fill(self) -> None:
        """Everything, before the first pass: until then nothing may be taken to be missing."""
        await together(*(self._take_all(kind) for kind in (*WATCHED, *CHILDREN)))
        self._add(*self.store.all_keys())

    async def again(self) -> None:
        """Compare everything with the lists, and let every object have a pass."""
        for kind in WATCHED:
            await self._compare(kind)
        for kind in CHILDREN:
            await self._take_all(kind)
        self.store.certificates.clear()  # every Secret is read again, once
        self.store.forget_strangers()
        self._add(*self.store.all_keys())

    async def look_for_refusals(self) -> None:
        """Why Jobs have no pod, and pods no volumes: neither has a condition for it (seen with 1.35), but events.

        Nothing is asked while all have them; nor for pods that were not here at the last look, as volumes take a moment.
        """
        stuck = self.store.mounting & self._mounting
        self._mounting = self.store.mounting
        found: dict[str, str] = {}
        if self.store.has_unborn:
            found |= {uid: read_refusal(events) for uid, events in (await self._events(_REFUSALS)).items()}
        if stuck:
            found |= {uid: read_mount_failure(events) for uid, events in (await self._events(_MOUNTS)).items()}
        self._add(*self.store.refusals(found))

    async def _events(self, fields: Mapping[str, str]) -> dict[str, list[Raw]]:
        """Events in the namespaces that we look after, by the UID of what they are about."""
        found: dict[str, list[Raw]] = {}
        for space in self.reach.spaces():
            try:
                async for page, _ in self.cluster.pages(names.EVENT, space, fields=fields):
                    for event in page:
                        found.setdefault(event["involvedObject"]["uid"], []).append(event)
            except ApiError as e:
                if not self.reach.forbids(space, e):
                    raise
        return found

    async def enter(self, space: str) -> None:
        """List all of a namespace that has forbidden us; if it lets us, it is looked after from now on. Raises ApiError."""
        try:
            for kind in (*WATCHED, *CHILDREN):
                if kind is not names.FEDERATED_SITE:
                    await self._take_one(kind, space)
            await self.cluster.find(names.EVENT, space, "any")
        except ApiError as e:
            if not self.reach.forbids(space, e):
                raise
            return
        self.reach.admits(space)
        self._add(*self.store.all_keys())

    async def _take_one(self, kind: Kind, space: str) -> None:
        accept = METADATA if kind in CHILDREN else JSON
        places, version = await self._patiently(
            kind, space, accept, lambda page: self._add(*self.store.listed(kind.name, page))
        )
        self._add(*self.store.keep(kind.name, [space], places, version))

    async def _take_all(self, kind: Kind) -> None:
        accept = METADATA if kind in CHILDREN else JSON
        self._add(*await self._walk(kind, accept, lambda page: self._add(*self.store.listed(kind.name, page))))

    async def _compare(self, kind: Kind) -> None:
        late: list[Raw] = []
        self.store.departed.clear()
        gone = await self._walk(kind, JSON, lambda page: late.extend(self.store.late(kind.name, page)))
        if late:
            await asyncio.sleep(self.patience_seconds)
        missed = self.store.late(kind.name, late)
        if missed:
            log.error("the watch is dead", extra={"kind": kind.name, "missed": len(missed)})
            self.metrics.watch_missed.labels(kind.name).inc(len(missed))
            self.dead.add(kind.name)
        self._add(*gone, *self.store.listed(kind.name, missed))

    def _add(self, *keys: Key) -> None:
        for key in keys:
            self.add(key)

    async def _walk(self, kind: Kind, accept: str, each: Callable[[list[Raw]], None]) -> tuple[Key, ...]:
        """Every page of every namespace that we look after goes to `each`, and what the pages lack leaves the store.

        Returns the passes that this concerns. A namespace that forbids us is left out. Raises ApiError if the API server refuses more.
        """
        if kind is names.FEDERATED_SITE:
            places, version = await self._patiently(kind, self.reach.settings.namespace, accept, each)
            return self.store.keep(kind.name, [""], places, version)
        lists: dict[str, tuple[set[Place], int]] = {}
        for space in self.reach.spaces():
            try:
                lists[space] = await self._patiently(kind, space, accept, each)
            except ApiError as e:
                if not self.reach.forbids(space, e):
                    raise
        there = {place for places, _ in lists.values() for place in places}
        return self.store.keep(kind.name, lists, there, min(version for _, version in lists.values()))

    async def _patiently(
        self, kind: Kind, space: str, accept: str, each: Callable[[list[Raw]], None]
    ) -> tuple[set[Place], int]:
        """All pages, tried until the API server gives them: where everything is, and the version of the list."""
        labels = None if kind.group == names.GROUP else _LABELLED
        for number in itertools.count():
            places: set[Place] = set()
            version = 0
            try:
                async for page, of_list in self.cluster.pages(kind, space, labels, accept=accept):
                    version = of_list
                    each(page)
                    places.update(place_of(kind.name, raw) for raw in page)
                return places, version
            except ApiError as e:
                if e.refused:
                    raise
                delay = max(e.retry_after, min(2.0**number, _LONGEST_SECONDS))
                log.warning("a list failed; once more", extra={"kind": kind.name, "error": str(e), "seconds": delay})
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")
