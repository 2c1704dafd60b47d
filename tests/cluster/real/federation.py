"""A namespace with three hospitals, the example job as it goes there, and what becomes of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

from ..kube import Kube, until
from .cluster import Cluster
from .images import Images
from .installation import NAME, SYSTEM

TEAM = "team-a"
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
JOB_SECONDS = 300.0

_EXAMPLE = Path(__file__).parents[3] / "examples" / "mnist"
_MODEL = "model.safetensors"


def found(cluster: Cluster, images: Images) -> None:
    """Make the namespace, which enforces Pod Security "restricted", register the hospitals, and open their policy to its jobs."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    rule = {
        "name": "examples",
        "from": {"namespaces": [TEAM]},
        "images": [{"repository": image.rpartition(":")[0]} for image in (images.runtime, images.examples)],
        "workflows": ["FedAvg"],
        "inlineCode": "Allow",
        "approval": "Automatic",
    }
    site = {"approved": True, "allowedNamespaces": [TEAM]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM, "labels": labels}},
        *(_resource("FederatedSite", SYSTEM, hospital, site) for hospital in HOSPITALS),
        _resource("SitePolicy", TEAM, "default", {"rules": [rule]}),
    )


def _resource(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def example(images: Images, name: str, rounds: int) -> dict[str, Any]:
    """examples/mnist as one document: its scripts inside, and the image that has what they import."""
    job: dict[str, Any] = yaml.safe_load((_EXAMPLE / "job.yaml").read_text())
    job["metadata"]["name"] = name
    job["spec"]["workflow"]["rounds"] = rounds
    files = {path.name: path.read_text() for path in sorted(_EXAMPLE.glob("*.py"))}
    job["spec"]["trainer"] |= {"files": files, "image": images.examples}
    return job


def local_model(job: dict[str, Any], folder: Path) -> str:
    """Digest of the model that `fedjob run` makes of the same document."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "fedjob.cli.main", "run", str(path), "--runs", str(folder / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=JOB_SECONDS, env=os.environ)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (model,) = (folder / "runs").glob(f"*/{_MODEL}")
    return _digest(model)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Submitted:
    """A FederatedJob on the cluster."""

    cluster: Cluster
    name: str

    @property
    def kube(self) -> Kube:
        """Its API server."""
        return self.cluster.admin

    @property
    def raw(self) -> Any:
        """As it is now."""
        return self.kube.get(names.FEDERATED_JOB, TEAM, self.name)

    @property
    def completed_rounds(self) -> int:
        """As its status says."""
        return int(self.raw.get("status", {}).get("progress", {}).get("completedRounds", 0))

    def pods(self, role: str, site: str = "") -> list[Any]:
        """Its pods of a role that may be alive, of one site or of all."""
        labels = f"{names.JOB_LABEL}={self.name},{names.ROLE_LABEL}={role}" + (
            f",{names.SITE_LABEL}={site}" if site else ""
        )
        return [
            p for p in self.kube.list(names.POD, TEAM, labels) if p["status"].get("phase") in ("Pending", "Running")
        ]

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition; "" before it is there."""
        conditions = self.raw.get("status", {}).get("conditions") or ()
        found = [c for c in conditions if c["type"] == kind]
        return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")

    def complete(self) -> None:
        """Wait until the job is complete. Raises AssertionError at once if it fails."""
        self._until("to be complete", lambda: self.condition("Complete")[0] == "True")

    def round_reached(self, number: int) -> None:
        """Wait until so many rounds are complete. Raises AssertionError at once if it fails."""
        self._until(f"to complete round {number}", lambda: self.completed_rounds >= number)

    def _until(self, what: str, found: Callable[[], bool]) -> None:
        def seen() -> bool:
            assert self.condition("Failed")[0] != "True", self.condition("Failed")
            return found()

        try:
            until(f"{self.name} {what}", seen, JOB_SECONDS)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.story()}") from e

    def model(self) -> str:
        """Digest of its model, on its volume."""
        claim = names.base(self.name, self.raw["metadata"]["uid"])
        volume = self.cluster.volume(TEAM, claim)
        assert volume is not None, f"there is no volume of {claim}"
        return _digest(volume / "run" / _MODEL)

    def story(self) -> str:
        """What a person wants to know of a job that does not get on: its status, its pods' last lines, the operator's."""
        parts = [json.dumps(self.raw.get("status"), indent=1)]
        for role in (SERVER, CLIENT):
            labels = f"{names.JOB_LABEL}={self.name},{names.ROLE_LABEL}={role}"
            parts.append(self._logs("--namespace", TEAM, "--selector", labels, "--prefix"))
        parts.append(self._logs("--namespace", SYSTEM, f"deployment/{NAME}"))
        return "\n".join(parts)

    def _logs(self, *arguments: str) -> str:
        with contextlib.suppress(subprocess.SubprocessError):
            return self.cluster.plane.kubectl("logs", "--tail=20", *arguments)
        return ""


def submit(cluster: Cluster, job: dict[str, Any]) -> Submitted:
    """`kubectl apply` of a job."""
    job = {**job, "metadata": {**job["metadata"], "namespace": TEAM}}
    cluster.apply(job)
    return Submitted(cluster, job["metadata"]["name"])
