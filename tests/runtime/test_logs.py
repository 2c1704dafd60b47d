"""Lines of the log as JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from fedjob.api.limits import SITE_LINES
from fedjob.logs import JsonLines, PerSite, TextLines, as_json, as_text


def test_a_line_is_one_object_with_the_facts_of_the_process_and_of_the_call() -> None:
    logger, out = logging.getLogger("test.logs"), io.StringIO()
    facts = {"job": "digits", "round": 0}
    as_json(logger, lambda: facts)
    (handler,) = logger.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(out)
    logger.info("site %s attends", "a")
    facts["round"] = 1
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it failed", extra={"site": "a"})
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert first["message"] == "site a attends"
    assert (first["job"], first["round"], first["level"]) == ("digits", 0, "INFO")
    assert (second["round"], second["site"]) == (1, "a")
    assert "two\nlines" in second["error"]


def test_what_json_does_not_know_is_written_as_text() -> None:
    record = logging.makeLogRecord({"msg": "x", "path": io.StringIO})
    assert "StringIO" in json.loads(JsonLines().format(record))["path"]


MOST = SITE_LINES.value


class Log:
    """A logger whose lines are read, with a clock of its own."""

    def __init__(self) -> None:
        self.seconds, self._out = 0.0, io.StringIO()
        handler = logging.StreamHandler(self._out)
        handler.setFormatter(TextLines("%(message)s"))
        handler.addFilter(PerSite(lambda: self.seconds))
        self.handler = handler
        self.logger = logging.getLogger("fedjob.some.child")

    def lines(self) -> list[str]:
        """Since the last call."""
        text = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return text.splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    made, root = Log(), logging.getLogger("fedjob")
    root.addHandler(made.handler)
    try:
        yield made
    finally:
        root.removeHandler(made.handler)


def test_lines_about_a_site_are_bounded_and_those_left_out_counted(log: Log) -> None:
    for number in range(1000):
        log.logger.warning("refused %d", number, extra={"site": "mallory"})
    log.logger.warning("site good lost", extra={"site": "good"})
    log.logger.warning("nobody's")
    assert log.lines() == [*(f"refused {number}" for number in range(MOST)), "site good lost", "nobody's"]
    log.seconds = 9.9
    log.logger.warning("still within", extra={"site": "mallory"})
    assert log.lines() == []
    log.seconds = 10.0
    log.logger.warning("round complete")
    assert log.lines() == [f"{1001 - MOST} lines about mallory were left out within 10 s", "round complete"]
    log.logger.warning("it may speak again", extra={"site": "mallory"})
    log.seconds = 30.0
    log.logger.warning("quiet since")
    assert log.lines() == ["it may speak again", "quiet since"]


def test_strangers_are_one_and_a_condition_is_by_itself(log: Log) -> None:
    for number in range(MOST + 1):
        log.logger.warning("connection refused", extra={"peer": f"10.0.0.1:{number}"})
        log.logger.warning("condition", extra={"condition": "DiskFull"})
    assert len(log.lines()) == 2 * MOST
    log.seconds = 10.0
    log.logger.warning("on")
    assert sorted(log.lines()) == [
        "1 lines about DiskFull were left out within 10 s", "1 lines about strangers were left out within 10 s", "on",
    ]  # fmt: skip


def test_what_was_left_out_is_told_when_the_process_ends(log: Log) -> None:
    for _ in range(MOST + 3):
        log.logger.warning("x", extra={"site": "mallory"})
    (bound,) = log.handler.filters
    assert isinstance(bound, PerSite)
    bound.close()
    assert log.lines()[MOST:] == ["3 lines about mallory were left out within 10 s"]
    bound.close()
    assert log.lines() == []


def test_what_is_remembered_of_sites_ends_with_their_seconds(log: Log) -> None:
    (bound,) = log.handler.filters
    assert isinstance(bound, PerSite)
    for number in range(1000):
        log.seconds += 1.0
        log.logger.warning("x", extra={"site": str(number)})
        assert len(bound._counts) <= 10


def test_every_way_to_log_has_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[logging.Handler] = []
    monkeypatch.setattr(logging, "basicConfig", lambda handlers, **_: made.extend(handlers))
    as_text(logging.INFO, "%(message)s")
    logger = logging.getLogger("test.logs.bound")
    as_json(logger)
    assert all(any(isinstance(f, PerSite) for f in handler.filters) for handler in [*made, *logger.handlers])
    assert len(made) == len(logger.handlers) == 1
