"""A namespace with three hospitals, the example job as it goes there, and what becomes of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from fedjob.records import HISTORY_FILE, read_history
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER, Kind

from ..kube import Kube, until
from . import cgroups
from .cluster import Cluster
from .images import Images
from .installation import NAME, SYSTEM

TEAM = "team-a"
GATE = "gate"  # data of every hospital: a claim of this name, which a test makes; see `volumes.Gate`
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
JOB_SECONDS = 600.0

EXAMPLE = Path(__file__).parents[3] / "examples" / "mnist" / "cluster.yaml"
# A script that adds one to 10 KB and imports nothing else, for many jobs or sites at once.
TINY = """
import numpy as np

import fedjob

fedjob.init({"w": np.zeros(2560, np.float32)})
while fedjob.is_running():
    model = fedjob.receive()
    if model is None:
        break
    fedjob.send(fedjob.FLModel(params={"w": model.params["w"] + 1}, meta={"num_examples": 1}))
"""
_STEADY = Path(__file__).with_name("train.py")
_MODEL = "model.safetensors"


def found(cluster: Cluster, images: Images) -> None:
    """Make the namespace, which enforces Pod Security "restricted", register the hospitals, and open their policy to its jobs."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    rule = {
        "name": "examples",
        "from": {"namespaces": [TEAM]},
        "images": [{"repository": image.rpartition(":")[0]} for image in (images.runtime, images.examples)],
        "workflows": ["FedAvg"],
        "env": ["ROUND_SECONDS"],
        "inlineCode": "Allow",
        "approval": "Automatic",
    }
    policy = {
        "rules": [rule],
        "data": [{"name": GATE, "claim": GATE}],
        "metrics": {"scrapeFrom": ["monitoring"]},
    }
    site = {"approved": True, "allowedNamespaces": [TEAM]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM, "labels": labels}},
        *(_resource("FederatedSite", SYSTEM, hospital, site) for hospital in HOSPITALS),
        _resource("SitePolicy", TEAM, "default", policy),
    )


def _resource(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def example(name: str, rounds: int) -> dict[str, Any]:
    """The example under another name, with so many rounds."""
    job: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    job["metadata"]["name"] = name
    job["spec"]["workflow"]["rounds"] = rounds
    return job


def steady(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """A job of the same hospitals whose rounds take so many seconds and are a function of round and site alone."""
    trainer = {"files": {"train.py": _STEADY.read_text()}, "env": [{"name": "ROUND_SECONDS", "value": str(seconds)}]}
    spec = {"workflow": {"rounds": rounds}, "trainer": trainer, "sites": [{"name": name} for name in HOSPITALS]}
    return {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": {"name": name}, "spec": spec}


def gated(job: dict[str, Any], storage: str) -> dict[str, Any]:
    """The same job with rounds that a gate holds, and a volume of this size for its server."""
    sites = [{**site, "data": GATE} for site in job["spec"]["sites"]]
    return {**job, "spec": {**job["spec"], "sites": sites, "server": {"storage": {"size": storage}}}}


def local_model(path: Path, folder: Path) -> str:
    """Digest of the model that `fedjob run` makes of a job file; runs are kept in a folder."""
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

    def complete(self, seconds: float = JOB_SECONDS) -> None:
        """Wait until the job is complete. Raises AssertionError at once if it fails."""
        self._until("to be complete", lambda: self.condition("Complete")[0] == "True", seconds)

    def round_reached(self, number: int) -> None:
        """Wait until so many rounds are complete. Raises AssertionError at once if it fails."""
        self._until(f"to complete round {number}", lambda: self.completed_rounds >= number)

    def _until(self, what: str, found: Callable[[], bool], seconds: float = JOB_SECONDS) -> None:
        def seen() -> bool:
            assert self.condition("Failed")[0] != "True", self.condition("Failed")
            return found()

        try:
            until(f"{self.name} {what}", seen, seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.story()}") from e

    @cached_property
    def run(self) -> Path:
        """The run folder, on its server's volume; found once, so that it can be read while there is no API server."""
        claim = names.base(self.name, self.raw["metadata"]["uid"])
        volume = self.cluster.volume(TEAM, claim)
        assert volume is not None, f"there is no volume of {claim}"
        return volume / "run"

    def model(self) -> str:
        """Digest of its model."""
        return _digest(self.run / _MODEL)

    def history(self) -> list[int]:
        """The rounds that were told, in order."""
        return [record.round for record in read_history(self.run / HISTORY_FILE)]

    def uids(self, role: str) -> set[str]:
        """UIDs of its pods of a role that may be alive."""
        return {pod["metadata"]["uid"] for pod in self.pods(role)}

    def restarts(self, role: str) -> int:
        """How often its server, or all its scripts together, were started again, as its status says."""
        status = self.raw["status"]
        told = [status["server"]] if role == SERVER else status["sites"]
        return sum(int(one.get("restarts") or 0) for one in told)

    def runs(self) -> int:
        """How many runs its scripts have had together, as its SiteJobs say: also those that count as no restart."""
        labels = f"{names.UID_LABEL}={self.raw['metadata']['uid']}"
        return sum(int(one.get("status", {}).get("run") or 0) for one in self.kube.list(names.SITE_JOB, TEAM, labels))

    def delete(self) -> None:
        """Delete the job; returns when all that it had is gone."""
        labels = f"{names.UID_LABEL}={self.raw['metadata']['uid']}"
        self.kube.delete(names.FEDERATED_JOB, TEAM, self.name)
        for kind in (names.POD, names.JOB, names.SITE_JOB, names.VOLUME_CLAIM, names.SECRET, names.CONFIG_MAP):
            until(f"every {kind.name} of {self.name} to go", partial(self._none_left, kind, labels))

    def _none_left(self, kind: Kind, labels: str) -> bool:
        return not self.kube.list(kind, TEAM, labels)

    def strike(self, role: str, site: str = "") -> None:
        """SIGKILL to the processes of its pod, as the kernel does when memory is short; returns when another pod is there."""
        pod = self._pod(role, site)
        node = self.cluster.node(pod["spec"]["nodeName"])
        found = cgroups.pids(node.namespace, pod["metadata"]["uid"])
        for pid in found:
            if b"python" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        self._await_another(role, site, pod)

    def delete_pod(self, role: str, site: str = "") -> None:
        """Delete its pod, as a drain does; returns when another is there."""
        pod = self._pod(role, site)
        self.kube.delete(names.POD, TEAM, pod["metadata"]["name"])
        self._await_another(role, site, pod)

    def _pod(self, role: str, site: str) -> Any:
        """The pod that runs."""
        running = [pod for pod in self.pods(role, site) if pod["status"]["phase"] == "Running"]
        assert len(running) == 1, f"{role} {site}: {[pod['metadata']['name'] for pod in running]}"
        return running[0]

    def _await_another(self, role: str, site: str, old: Any) -> None:
        uid = old["metadata"]["uid"]
        self._until(
            f"to have another {role} {site}", lambda: any(p["metadata"]["uid"] != uid for p in self.pods(role, site))
        )

    def story(self) -> str:
        """What a person wants to know of a job that does not get on: its status, its rounds, its pods' last lines, the operator's."""
        parts = [json.dumps(self.raw.get("status"), indent=1), *self._rounds()]
        for role in (SERVER, CLIENT):
            labels = f"{names.JOB_LABEL}={self.name},{names.ROLE_LABEL}={role}"
            parts.append(self._logs("--namespace", TEAM, "--selector", labels, "--prefix"))
        parts.append(self._logs("--namespace", SYSTEM, f"deployment/{NAME}"))
        return "\n".join(parts)

    def _rounds(self) -> list[str]:
        """A line for each round that was told; none while the server has no volume."""
        with contextlib.suppress(AssertionError):
            return [
                f"round {record.round}: {record.seconds} s, of {', '.join(record.contributors)}"
                + "".join(f"; {one.site} {one.message}" for one in record.missing)
                for record in read_history(self.run / HISTORY_FILE)
            ]
        return []

    def _logs(self, *arguments: str) -> str:
        with contextlib.suppress(subprocess.SubprocessError):
            return self.cluster.plane.kubectl("logs", "--tail=20", *arguments)
        return ""


def applied(cluster: Cluster, path: Path) -> Submitted:
    """`kubectl apply` of a job file, as it is."""
    cluster.plane.kubectl("apply", "--namespace", TEAM, "--filename", str(path))
    return Submitted(cluster, yaml.safe_load(path.read_text())["metadata"]["name"])


def submit(cluster: Cluster, job: dict[str, Any]) -> Submitted:
    """Apply a job that a test has made."""
    job = {**job, "metadata": {**job["metadata"], "namespace": TEAM}}
    cluster.apply(job)
    return Submitted(cluster, job["metadata"]["name"])
