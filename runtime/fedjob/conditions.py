"""What is the matter with a job while it lasts, for people to see. Set and cleared from any thread."""

from __future__ import annotations

import logging
import threading

from .records import Condition

log = logging.getLogger(__name__)


class Conditions:
    """At most one condition of each type."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, Condition] = {}

    def set(self, condition: Condition) -> None:
        """Something is the matter, until `clear` of the same type."""
        with self._lock:
            if self._now.get(condition.type) != condition:
                self._now[condition.type] = condition
                log.warning("condition %s", condition.text)

    def clear(self, kind: str) -> None:
        """The condition of this type is over; nothing happens if there was none."""
        with self._lock:
            if self._now.pop(kind, None):
                log.info("condition %s is over", kind)

    def now(self) -> tuple[Condition, ...]:
        """Those that last, sorted by type."""
        with self._lock:
            return tuple(condition for _, condition in sorted(self._now.items()))
