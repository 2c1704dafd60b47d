"""Alerts, dashboard and pages speak of series that exist, and of all of them; promtool says that alerts fire when they should."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts" / "fedjob" / "files"
ALERTS, DASHBOARD = FILES / "alerts.yaml", FILES / "dashboard.json"
_PAGE = runpy.run_path(str(ROOT / "hack" / "metrics-page"))
families, SUFFIXES = _PAGE["families"], _PAGE["SUFFIXES"]
# Where FEDJOB_REQUIRE_METRICS is set, as in CI, what needs it fails without it.
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("FEDJOB_REQUIRE_METRICS"),
    reason="needs promtool: hack/packages metrics",
)


def known() -> set[str]:
    """The names of series, as a query gives them."""
    found = {family.name + suffix for family in families() for suffix in SUFFIXES[family.type]}
    return {name for name in found if name.startswith("fedjob_")}


def named(text: str) -> set[str]:
    """Names of series in a text, those of modules and label values apart."""
    return set(re.findall(r"(?<![\w.])fedjob_[a-z_]+[a-z](?![\w./])", text)) - {"fedjob_operator"}


def expressions() -> dict[str, str]:
    """Where a query is, and the query."""
    found = {}
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        found |= {f"alert {rule['alert']}": rule["expr"] for rule in group["rules"]}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found |= {f"panel {panel['title']} {t['refId']}": t["expr"] for t in panel.get("targets", ())}
    return found


def test_every_series_in_an_alert_or_on_the_dashboard_exists() -> None:
    assert len(expressions()) > 40
    assert {where: names - known() for where, expr in expressions().items() if (names := named(expr)) - known()} == {}


def test_the_page_of_metrics_has_the_series_as_they_are() -> None:
    command = [sys.executable, str(ROOT / "hack" / "metrics-page"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run hack/metrics-page"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_every_series_that_a_page_names_exists(page: Path) -> None:
    bare = {family.name for family in families() if family.type in ("summary", "histogram")}
    assert named(page.read_text()) - known() - bare == set()


def test_every_alert_has_its_place_in_the_runbook_and_the_other_way_round() -> None:
    alerts = {where.removeprefix("alert ") for where in expressions() if where.startswith("alert ")}
    told = set(re.findall(r"^### (Fedjob\w+)", (ROOT / "docs" / "operations.md").read_text(), re.M))
    assert told == alerts


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_when_all_is_well() -> None:
    subprocess.run(["promtool", "test", "rules", str(ROOT / "tests" / "charts" / "alerts.yaml")], check=True)


def test_each_alert_is_tried() -> None:
    tried = (ROOT / "tests" / "charts" / "alerts.yaml").read_text()
    for where in expressions():
        if where.startswith("alert "):
            assert where.removeprefix("alert ") in tried


@needs_promtool
def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:{i}",
            "expr": expr.replace("$__range", "6h").replace("$namespace", ".*").replace("$job", ".*"),
        }
        for i, expr in enumerate(expressions().values())
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], check=True)


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_dashboard_shows_the_jobs_that_are_chosen_and_no_others() -> None:
    """What carries a job's name is asked for by the variables, so that two teams do not look at each other's lines."""
    per_job = {f.name for f in families() if f.name.startswith(("fedjob_server_", "fedjob_client_", "fedjob_job_"))}
    for where, expr in expressions().items():
        if where.startswith("panel ") and any(name.startswith(tuple(per_job)) for name in named(expr)):
            assert (
                expr.count("$job")
                == expr.count("$namespace")
                == len(re.findall(r"fedjob_(?:server|client|job)_", expr))
            )
