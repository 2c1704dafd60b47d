"""What is the matter with a job while it lasts, for people to see. Set and cleared from any thread."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from .records import Condition

log = logging.getLogger(__name__)
DISK_FULL = "DiskFull"
CERTIFICATE_EXPIRED = "CertificateExpired"
STOP_METRIC = "StopMetricMissing"


class Conditions:
    """At most one condition of each type."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._now: dict[str, Condition] = {}
        self._without_room: set[str] = set()

    def set(self, condition: Condition) -> None:
        """Something is the matter, until `clear` of the same type."""
        with self._lock:
            if self._now.get(condition.type) != condition:
                self._now[condition.type] = condition
                log.warning("condition %s", condition.text, extra={"condition": condition.type})

    def clear(self, kind: str) -> None:
        """The condition of this type is over; nothing happens if there was none."""
        with self._lock:
            if self._now.pop(kind, None):
                log.info("condition %s is over", kind, extra={"condition": kind})

    def now(self) -> tuple[Condition, ...]:
        """Those that last, sorted by type."""
        with self._lock:
            return tuple(condition for _, condition in sorted(self._now.items()))

    def no_room(self, who: str, error: OSError, folder: Path) -> None:
        """The disk has refused what `who`, a site or the server, has to write."""
        with self._lock:
            self._without_room.add(who)
            where, waiting = error.filename or folder, ", ".join(sorted(self._without_room))
            self.set(Condition(DISK_FULL, "NoSpace", f"{where}: {error.strerror}; waiting for room: {waiting}"))

    def has_room(self, *who: str) -> None:
        """It has room now, or needs none any more."""
        with self._lock:
            if self._without_room:
                self._without_room.difference_update(who)
                if not self._without_room:
                    self.clear(DISK_FULL)
