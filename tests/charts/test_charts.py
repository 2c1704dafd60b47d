"""What can be said of the charts without helm: one source for what they hold, and values that are described and checked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHARTS = sorted(path.parent for path in (ROOT / "charts").glob("*/Chart.yaml"))


def test_the_chart_holds_the_definitions_and_the_role_themselves() -> None:
    files = ROOT / "charts" / "fedjob" / "files"
    assert (files / "crds").resolve() == ROOT / "crds"
    for chart in CHARTS:
        assert (chart / "files" / "role.yaml").resolve() == ROOT / "operator" / "role.yaml"
    assert (files / "admission.yaml").resolve() == ROOT / "operator" / "admission.yaml"


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
def test_the_readme_has_the_values_as_they_are(chart: Path) -> None:
    command = [sys.executable, str(ROOT / "hack" / "chart-readme"), str(chart), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, f"run hack/chart-readme charts/{chart.name}"


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
def test_the_schema_knows_every_value_and_nothing_else(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    known = set(_schema_paths(schema)) - {"global"}
    given = set(_value_paths(values, known))
    open_ended = tuple(
        f"{path}." for path in given if _at(values, path) == {}
    )  # such as policy.floor: nothing is set there
    assert {path for path in known if not path.startswith(open_ended)} == given


def _at(values: dict[str, Any], path: str) -> Any:
    for step in path.split("."):
        values = values[step]
    return values


def test_the_sites_schema_is_that_of_the_policy() -> None:
    command = [sys.executable, str(ROOT / "hack" / "chart-schema"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run hack/chart-schema"


def _schema_paths(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, part in node.get("properties", {}).items():
        if prefix:
            assert node["additionalProperties"] is False, prefix
        yield f"{prefix}{name}"
        yield from _schema_paths(part, f"{prefix}{name}.")


def _value_paths(values: dict[str, Any], known: set[str], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        inner = f"{prefix}{name}."
        if isinstance(value, dict) and any(path.startswith(inner) for path in known):
            yield from _value_paths(value, known, inner)


def test_the_charts_carry_the_version_of_the_code() -> None:
    from fedjob.version import __version__

    for chart in CHARTS:
        told = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert (told["version"], told["appVersion"]) == (__version__, __version__)
