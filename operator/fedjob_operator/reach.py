"""Which of the namespaces that we look after let us in.

A site's administrator gives the operator its rights there, and may take them away. One namespace that forbids must stop nobody else: it
is left out of lists, watches and passes, what was last seen of it stays, and it is tried again until it lets us in. Without rights
in our own namespace, or where all are looked after, there is nothing to go on with.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from .cluster import ApiError
from .metrics import Metrics
from .settings import Settings
from .store import Store

log = logging.getLogger(__name__)


@dataclass
class Reach:
    """What is left out is in the store, for decisions to see. news: something was left out, or is doubted. changed: another set to watch."""

    store: Store
    settings: Settings
    metrics: Metrics
    news: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    doubted: bool = False

    @property
    def limited(self) -> bool:
        """Whether we look after some namespaces only."""
        return bool(self.settings.namespaces)

    def spaces(self) -> list[str]:
        """The namespaces to list and watch, "" for all."""
        if not self.limited:
            return [""]
        return sorted({self.settings.namespace, *self.settings.namespaces} - self.store.forbidden.keys())

    def doubt(self) -> None:
        """The API server has refused something, maybe because a namespace no longer lets us in: find out."""
        if self.limited and not self.doubted:
            self.doubted = True
            self.news.set()

    def forbids(self, space: str, error: ApiError) -> bool:
        """Whether a call has failed because a namespace does not let us in, which is left out from now on."""
        if error.status != 403 or space in ("", self.settings.namespace):
            return False
        if space not in self.store.forbidden:
            log.error("a namespace forbids us; it is left out", extra={"space": space, "error": str(error)})
            self.metrics.forbidden.labels(space).set(1)
            self.changed.set()
            self.news.set()
        self.store.forbidden.setdefault(space, error.message)  # later words name another kind, and are no news
        return True

    def admits(self, space: str) -> None:
        """A namespace lets us in again."""
        log.info("a namespace lets us in again", extra={"space": space})
        self.store.forbidden.pop(space, None)
        self.metrics.forbidden.labels(space).set(0)
        self.changed.set()
