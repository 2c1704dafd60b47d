"""The benchmarks can be run: every measure of our own, in a small size. What it takes is not asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"


@pytest.mark.timeout(300)
def test_every_measure_can_be_taken(tmp_path: Path) -> None:
    command = [sys.executable, RUN, "--smoke", "--folder", tmp_path / "bench"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert (tmp_path / "bench.svg").read_text().startswith("<svg ")
    assert "fedjob" in (tmp_path / "bench.html").read_text()
    text = page(tmp_path / "bench.json")
    shares = found["profile"]["detail"]["shares"]
    if {"server", "client"} <= shares.keys():  # where there is a sampler; what it finds at work may be little
        shares["client"]["functions"] = {"only": 100.0}
        (tmp_path / "little.json").write_text(json.dumps(found))
        assert "| only | 100 % |" in page(tmp_path / "little.json")
        del shares["client"]
        (tmp_path / "less.json").write_text(json.dumps(found))
        assert "only" not in page(tmp_path / "less.json")
    machine = found.pop("machine")
    assert machine["cores"] >= 1
    listed = subprocess.run([sys.executable, RUN, "--list"], capture_output=True, text=True, check=True).stdout.split()
    assert list(found) == listed
    assert [name for name in listed if f"| {name} |" not in text] == []
    for name, figure in found.items():
        assert math.isfinite(figure["value"]), name
        assert figure["value"] > 0 or name == "P7", name  # a growth may be a shrinking
        assert set(figure) == {"title", "value", "unit", "goal", "met", "peers", "detail", "taken"}


def page(result: Path) -> str:
    command = [sys.executable, RUN.with_name("page.py"), result, "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_measure_that_is_not_there_is_named() -> None:
    done = subprocess.run([sys.executable, RUN, "--only", "P1,Q7"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown: Q7" in done.stderr
