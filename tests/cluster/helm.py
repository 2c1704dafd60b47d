"""helm, as the project builds it, and what its charts render to."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_SECONDS = 180


class HelmError(AssertionError):
    """helm said no, in its own words."""


@dataclass(frozen=True)
class Helm:
    """One helm. folder: for its settings. kubeconfig: of the cluster that it speaks to; none: it only renders."""

    binary: Path
    folder: Path
    kubeconfig: Path | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, *arguments: str) -> str:
        """What helm prints. Raises HelmError."""
        command = [str(self.binary), *arguments]
        if self.kubeconfig is not None:
            command += ["--kubeconfig", str(self.kubeconfig)]
        environment = {**self.environment, "HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS, env=environment)
        if done.returncode != 0:
            raise HelmError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr}")
        return done.stdout

    def template(
        self, chart: str, *arguments: str, release: str = "fedjob", namespace: str = "fedjob-system"
    ) -> list[Any]:
        """The objects that a chart of ours renders to, its tests included."""
        text = self.run("template", release, str(ROOT / "charts" / chart), "--namespace", namespace, *arguments)
        return [found for found in yaml.safe_load_all(text) if found]


def one(objects: list[Any], kind: str, name: str = "") -> Any:
    """The object of a kind whose name ends with `name`; there must be exactly one."""
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(name)]
    assert len(found) == 1, [o["metadata"]["name"] for o in objects if o["kind"] == kind]
    return found[0]
