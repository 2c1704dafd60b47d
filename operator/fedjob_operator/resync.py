"""Lists: the whole truth, now and then. What a watch has missed is seen here, and a watch that is dead is found out.

A stream that looks alive and delivers nothing is the one fault that no reconnection mends. So a list is compared with what the
stream has told: if an object's version in the list is still unknown to the stream some seconds later, the stream is dead, and the
process's liveness ends with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from . import names
from .cluster import ApiError, Cluster
from .metrics import Metrics
from .names import Kind
from .observed import Raw
from .routes import Key
from .settings import Settings
from .store import CHILDREN, WATCHED, Store

log = logging.getLogger(__name__)

_TRIES = 5
_LABELLED = {names.MANAGED_BY: names.MANAGER}


@dataclass
class Resync:
    """Fills the store from lists. dead: kinds whose watch was found dead."""

    cluster: Cluster
    store: Store
    settings: Settings
    metrics: Metrics
    add: Callable[[Key], None]
    patience_seconds: float = 10.0
    dead: set[str] = field(default_factory=set)

    async def fill(self) -> None:
        """Everything, before the first pass: until then nothing may be taken to be missing."""
        for kind in (*WATCHED, *CHILDREN):
            raws, version = await self._list(kind)
            self._take(kind, raws, version)
        for key in self.store.all_keys():
            self.add(key)

    async def again(self) -> None:
        """Compare everything with the lists, and let every object have a pass."""
        for kind in WATCHED:
            raws, version = await self._list(kind)
            if missed := self.store.behind(kind.name, raws):
                await asyncio.sleep(self.patience_seconds)
                missed = self.store.behind(kind.name, raws)
            if missed:
                log.error("the watch is dead", extra={"kind": kind.name, "missed": missed})
                self.metrics.watch_missed.labels(kind.name).inc(missed)
                self.dead.add(kind.name)
            self._take(kind, raws, version)
        for kind in CHILDREN:
            raws, version = await self._list(kind)
            self._take(kind, raws, version)
        self.store.certificates.clear()  # every Secret is read again, once
        self.store.forget_strangers()
        for key in self.store.all_keys():
            self.add(key)

    def _take(self, kind: Kind, raws: list[Raw], version: int) -> None:
        for key in self.store.replace(kind.name, raws, version):
            self.add(key)

    async def _list(self, kind: Kind) -> tuple[list[Raw], int]:
        """All objects of a kind that may concern us, over all namespaces that we look after."""
        labels = (
            None
            if kind in (names.FEDERATED_JOB, names.FEDERATED_SITE, names.SITE_JOB, names.SITE_POLICY)
            else _LABELLED
        )
        places = sorted({self.settings.namespace, *self.settings.namespaces}) if self.settings.namespaces else [""]
        if kind is names.FEDERATED_SITE:
            places = [self.settings.namespace]
        pages = [await self._pages(kind, place, labels) for place in places]
        return [raw for raws, _ in pages for raw in raws], min(version for _, version in pages)

    async def _pages(self, kind: Kind, place: str, labels: dict[str, str] | None) -> tuple[list[Raw], int]:
        """A list, tried a few times. Raises ApiError."""
        for _ in range(_TRIES):
            try:
                return await self.cluster.list(kind, place, labels)
            except ApiError as e:
                if e.refused:
                    raise
                log.warning("a list failed; once more", extra={"kind": kind.name, "error": str(e)})
                await asyncio.sleep(max(e.retry_after, 1.0))
        return await self.cluster.list(kind, place, labels)
