"""P8: own calls between `send` and gRPC, counted by the test that keeps them few."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

from figure import Figure, Settings
from folders import ROOT, emptied
from processes import MeasureError

TEST = "tests/runtime/test_path_length.py"
GOAL_CALLS = 4
_SECONDS = 120.0


def measure(settings: Settings) -> Figure:
    """The test tells what it counted. Raises MeasureError if it fails."""
    report = emptied(settings.folder / "p8") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", TEST]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False, encoding="utf-8"
    )
    if done.returncode != 0:
        raise MeasureError(f"{TEST} ended with exit code {done.returncode}:\n{done.stdout[-2000:]}")
    told = ElementTree.parse(report).iter("property")
    counts = {str(each.get("name")): int(str(each.get("value"))) for each in told}
    calls = max(n for what, n in counts.items() if what.startswith("calls"))
    return Figure(
        "own calls from `send` to gRPC", calls, "calls", f"≤ {GOAL_CALLS}", calls <= GOAL_CALLS, detail=counts
    )
