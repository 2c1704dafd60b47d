"""Log lines as JSON, one object a line, for whoever collects them from pods."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

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


def as_json(logger: logging.Logger, facts: Callable[[], Mapping[str, Any]] = dict) -> None:
    """From now on what `logger` hears goes to stderr as JSON, and nowhere else. facts: asked for each line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(facts))
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
