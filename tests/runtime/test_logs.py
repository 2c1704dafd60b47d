"""Lines of the log as JSON."""

from __future__ import annotations

import io
import json
import logging

from fedjob.logs import JsonLines, as_json


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
