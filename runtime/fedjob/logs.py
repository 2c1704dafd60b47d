"""Log lines: as JSON, one object a line, for whoever collects them from pods; as text for people, one line a message."""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from .api.limits import SITE_LINES
from .text import lines, one_line

log = logging.getLogger(__name__)

_SECONDS = 10.0  # that `SITE_LINES` counts for
_KNOWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Time, level, message, the facts given as `extra`, and those that hold for every line of the process now."""

    def __init__(self, facts: Callable[[], Mapping[str, Any]] = dict) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= self._facts()
        line |= {key: value for key, value in record.__dict__.items() if key not in _KNOWN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """One line a message, whatever sites and exceptions put into it; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The message, which may quote others, on one line."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        return lines(super().formatException(ei))


class PerSite(logging.Filter):
    """Lets through so many lines about a site in ten seconds, by `extra={"site": …}`; then says how many it has left out.

    So with a `condition`, and with strangers, by `peer`, as one. Of handlers: a logger's filter does not see what its children
    log. clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[object, tuple[float, int]] = {}  # site -> begin of its ten seconds, lines in them

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written. What was left out in ten seconds that are over is told before any line."""
        if hasattr(record, "left_out"):
            return True
        with self._lock:
            left, passes = self._over(self._clock() - _SECONDS), self._counted(_whose(record))
        _tell(left)
        return passes

    def close(self) -> None:
        """The process ends: tell what was left out until now."""
        with self._lock:
            left = self._over(self._clock())
        _tell(left)

    def _over(self, until: float) -> dict[object, int]:
        """Forgets the ten seconds that began by `until`: how many lines of each site were left out in them."""
        over = {}
        for site, (began, count) in list(self._counts.items()):
            if began <= until:
                del self._counts[site]
                over[site] = count - SITE_LINES.value
        return {site: number for site, number in over.items() if number > 0}

    def _counted(self, site: object) -> bool:
        if site is None:
            return True
        began, count = self._counts.get(site, (self._clock(), 0))
        self._counts[site] = (began, count + 1)
        return count < SITE_LINES.value


def _tell(left: Mapping[object, int]) -> None:
    for site, number in left.items():
        facts = {"site": site, "left_out": number}
        log.warning("%d lines about %s were left out within %.0f s", number, site, _SECONDS, extra=facts)


def _bound(handler: logging.Handler) -> None:
    bound = PerSite()
    handler.addFilter(bound)
    atexit.register(bound.close)


def _whose(record: logging.LogRecord) -> object:
    site = getattr(record, "site", None) or getattr(record, "condition", None)
    return site or ("strangers" if hasattr(record, "peer") else None)


def as_text(level: int, form: str) -> None:
    """From now on what is logged anywhere goes to stderr as text. form: of a line, as `logging` has it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines(form))
    _bound(handler)
    logging.basicConfig(level=level, handlers=[handler])


def as_json(logger: logging.Logger, facts: Callable[[], Mapping[str, Any]] = dict) -> None:
    """From now on what `logger` hears goes to stderr as JSON, and nowhere else. facts: asked for each line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(facts))
    _bound(handler)
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
