"""What a run of these tests says of the project's measures: one entry for each, written as JSON.

A test or module belongs to a measure by `pytest.mark.measure("O6")`. Its value is the number of tests that failed, unless a test
gives a figure of its own through the fixture `measured`.
"""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FAILURES = {"unit": "failed tests", "goal": "0"}


@dataclass
class Tally:
    """The tests of one measure so far. figures: what tests have measured, in the order of the tests."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, test: str, outcome: str, seconds: float, figures: list[dict[str, Any]]) -> None:
        """Count one test. outcome: passed, failed or skipped, as pytest has it."""
        self.seconds += seconds
        self.figures += figures
        if outcome == "failed":
            self.failed.append(test)
        elif outcome == "passed":
            self.passed += 1
        else:
            self.skipped += 1

    def entry(self) -> dict[str, Any]:
        """The measure's entry in the file. What was skipped shows nothing, so it does not meet the goal."""
        figure: dict[str, Any] = (
            self.figures[-1] if self.figures else {"value": len(self.failed), **_FAILURES, "met": True}
        )
        met = bool(figure["met"]) and not self.failed and not self.skipped and self.passed > 0
        detail = {
            "passed": self.passed,
            "failed": self.failed,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 1),
            **({"figures": self.figures} if len(self.figures) > 1 else {}),
            **figure.get("detail", {}),
        }
        return {key: figure[key] for key in ("value", "unit", "goal")} | {"met": met, "peers": {}, "detail": detail}


def write(path: Path, tallies: dict[str, Tally]) -> None:
    """Write the entries, and keep what another run has written of other measures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # runs beside this one write here too
        file.seek(0)
        there = json.loads(file.read() or "{}")
        there.update({name: tally.entry() for name, tally in tallies.items()})
        file.truncate(0)
        file.write(json.dumps(dict(sorted(there.items())), indent=2) + "\n")


def table(tallies: dict[str, Tally]) -> list[str]:
    """A line for each measure, for people."""
    lines = []
    for name, tally in sorted(tallies.items()):
        entry = tally.entry()
        verdict = "met" if entry["met"] else "NOT MET"
        figure = f"{entry['value']} {entry['unit']} (goal {entry['goal']})"
        lines.append(f"{name}: {verdict}: {figure}; {tally.passed} tests passed in {tally.seconds:.0f} s")
    return lines
