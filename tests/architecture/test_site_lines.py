"""What a site can make the server log is bounded by `logs.PerSite`, which sees by the record's facts whose line it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All that runs when a site or a stranger calls.
REACHED = ["acceptance", "asks", "conditions", "departures", "disk", "frames", "ledger", "reception", "refusals", "roster",
           "service", "session", "spool", "stored", "transport"]  # fmt: skip
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
WHOSE = frozenset({"site", "condition", "peer"})
# When the server starts, once.
EXCEPTIONS = {("departures", "%s: not a list of departures, nobody is taken to have left: %r")}


def nobodys(source: str) -> list[tuple[int, str]]:
    """Calls of a logger that do not say whose doing the line is: line and text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
            continue
        if not ast.unparse(node.func.value).endswith("log"):
            continue
        extra = next((k.value for k in node.keywords if k.arg == "extra"), None)
        keys = {k.value for k in extra.keys if isinstance(k, ast.Constant)} if isinstance(extra, ast.Dict) else set()
        if not keys & WHOSE:
            text = next((a.value for a in node.args if isinstance(a, ast.Constant)), "")
            found.append((node.lineno, str(text)))
    return found


@pytest.mark.parametrize("module", REACHED)
def test_a_line_that_a_site_can_provoke_says_whose_it_is(module: str) -> None:
    source = (ROOT / "runtime" / "fedjob" / f"{module}.py").read_text(encoding="utf-8")
    assert [(line, text) for line, text in nobodys(source) if (module, text) not in EXCEPTIONS] == []


@pytest.mark.parametrize(
    "planted",
    [
        'log.warning("refused %s", site)',
        'self._log.info("site %s attends", site, extra={"round": 1})',
        'log.log(logging.INFO, "%s is here", site, extra=facts)',
    ],
)
def test_a_planted_one_is_found(planted: str) -> None:
    assert nobodys(planted)
