"""Log lines: as JSON, one object a line, for whoever collects them from pods; as text for people, one line a message."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from .text import lines, one_line

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


def as_text(level: int, form: str) -> None:
    """From now on what is logged anywhere goes to stderr as text. form: of a line, as `logging` has it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines(form))
    logging.basicConfig(level=level, handlers=[handler])


def as_json(logger: logging.Logger, facts: Callable[[], Mapping[str, Any]] = dict) -> None:
    """From now on what `logger` hears goes to stderr as JSON, and nowhere else. facts: asked for each line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(facts))
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
