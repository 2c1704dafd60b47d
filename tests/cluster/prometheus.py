"""A real Prometheus with our alerts, that scrapes what a test tells it to."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.controlplane import free_port
from cluster.kube import until

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "charts" / "fedjob" / "files" / "alerts.yaml"


@dataclass(frozen=True)
class Prometheus:
    """One that answers at `url`."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """The result of an instant query: values of the labels besides those of the target, in order of their names -> number."""
        found = {}
        for sample in self.ask("query", query=expression)["result"]:
            labels = sorted((k, v) for k, v in sample["metric"].items() if k not in ("__name__", "instance", "job"))
            found[tuple(value for _, value in labels)] = float(sample["value"][1])
        return found

    def known(self) -> set[str]:
        """Families that any target has told of, with or without samples."""
        return {each["metric"] for each in self.ask("targets/metadata")}

    def firing(self, namespace: str) -> dict[str, str]:
        """Name and summary of the alerts that fire for a namespace, or for none: others' jobs are others' trouble."""
        alerts = [a for a in self.ask("alerts")["alerts"] if a["state"] == "firing"]
        mine = [a for a in alerts if a["labels"].get("namespace", namespace) == namespace]
        return {a["labels"]["alertname"]: str(a["annotations"]["summary"]) for a in mine}


def fixed(*targets: str) -> dict[str, Any]:
    """Scrapes host:port."""
    return {"job_name": "fixed", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}


def listed(*files: Path) -> dict[str, Any]:
    """Scrapes what `fedjob run --metrics` has written into files."""
    return {"job_name": "listed", "file_sd_configs": [{"files": [str(path) for path in files]}]}


@contextmanager
def prometheus(
    folder: Path, *scrapes: dict[str, Any], enter: Sequence[str] = (), host: str = "127.0.0.1"
) -> Iterator[Prometheus]:
    """Runs until the block ends. enter: what begins a command that runs in another network, where `host` reaches it."""
    binary = shutil.which("prometheus")
    assert binary, "prometheus is missing: run hack/packages metrics, as make e2e does"
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": list(scrapes),
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"{host}:{free_port()}"
    command = [
        *enter, binary, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        made = Prometheus(f"http://{address}")
        until("Prometheus to be ready", lambda: _ready(made.url))
        yield made
    finally:
        process.kill()
        process.wait(10)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
