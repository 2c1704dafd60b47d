"""Namespaces that forbid us are tried again, the FederatedSites there say so, and what is doubted is looked at."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from . import names
from .cluster import ApiError, Cluster
from .desired.site import standing
from .observed import Raw
from .plan import Manifest, with_status
from .reach import Reach
from .resync import Resync
from .store import WATCHED

log = logging.getLogger(__name__)

_FIRST_SECONDS = 2.0
_LONGEST_SECONDS = 60.0
_DOUBT_SECONDS = 30.0  # between two looks at all namespaces: a quota refuses as well, and says so each time


@dataclass
class Readmission:
    """The leading replica's care for what `reach` leaves out."""

    cluster: Cluster
    resync: Resync
    reach: Reach
    _asked: float = -_DOUBT_SECONDS
    _known: frozenset[str] = frozenset()  # namespaces of which every job was told that they forbid us

    async def follow(self) -> None:
        """For ever. What forbids us is tried every few seconds at first, then once a minute."""
        pause, settled = _FIRST_SECONDS, True
        while True:
            news = await self._news_within(None if settled else pause)
            pause = _FIRST_SECONDS if news else min(2 * pause, _LONGEST_SECONDS)
            try:
                settled = await self._look()
            except ApiError as e:
                settled = False
                log.warning("namespaces cannot be looked at; later again", extra={"error": str(e)})

    async def _news_within(self, seconds: float | None) -> bool:
        try:
            await asyncio.wait_for(self.reach.news.wait(), seconds)
        except TimeoutError:
            return False
        await asyncio.sleep(_FIRST_SECONDS)  # a namespace that forbids one call forbids several
        self.reach.news.clear()
        return True

    async def _look(self) -> bool:
        """Whether there is nothing left to look at before there is news."""
        if self.reach.doubted and time.monotonic() - self._asked >= _DOUBT_SECONDS:
            await self._question()
        for space in sorted(self.reach.store.forbidden):
            await self.resync.enter(space)
        if self._known != self.reach.store.forbidden.keys():
            self._known = frozenset(self.reach.store.forbidden)
            for key in self.reach.store.all_keys():  # no event comes of what we are not let see
                self.resync.add(key)
        told = await self._tell_sites()
        return told and not self.reach.store.forbidden and not self.reach.doubted

    async def _question(self) -> None:
        """Whether the namespaces that let us in still do."""
        self._asked = time.monotonic()
        self.reach.doubted = False
        for space in self.reach.spaces():
            try:
                for kind in WATCHED:
                    if kind is not names.FEDERATED_SITE:
                        await self.cluster.find(kind, space, "any")
            except ApiError as e:
                if not self.reach.forbids(space, e):
                    raise

    async def _tell_sites(self) -> bool:
        """Write what is news to FederatedSites. False if one has changed meanwhile, and is to be looked at again."""
        store, told = self.reach.store, True
        for raw in store.raws(names.FEDERATED_SITE.name):
            status = standing(raw, store.forbidden, datetime.now(UTC))
            if status is not None:
                told = await self._write(raw, status) and told
        return told

    async def _write(self, raw: Raw, status: Manifest) -> bool:
        try:
            self.reach.store.wrote(raw["kind"], await self.cluster.apply(with_status(raw, status), status=True))
        except ApiError as e:
            if not e.conflict and not e.gone:
                raise
            return False
        return True
