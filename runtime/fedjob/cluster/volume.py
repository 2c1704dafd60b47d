"""The files that a job's server has left on its volume, read through the API server.

The volume is read where it is: by a command in the server's own pod while that lives, else in a pod that does nothing but hold
the volume, read-only, and that goes as soon as it is read. The stream is that of `kubectl exec`: TLS all the way, and
nothing listens anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api.names import (
    FEDERATED_JOB,
    IMAGE_ANNOTATION,
    JOB_LABEL,
    PLACEMENT_ANNOTATION,
    POD,
    ROLE_LABEL,
    RUN_FOLDER,
    SECURITY_ANNOTATION,
    SERVER,
    STATE_FOLDER,
    UID_LABEL,
    USER,
    VOLUME_CLAIM,
)
from ..reader import EXIT_NO_FILE
from .connection import FIELD_MANAGER, Connection, ExecFailed
from .failures import ApiFailure, ClusterError, StreamCut

READER = "reader"
_LIFE_SECONDS = 4 * 3600  # of a reader whose command was killed before it could remove it
_START_SECONDS = 300.0


class NoSuchFile(ClusterError):  # noqa: N818 - what was found
    """The server has not written this file."""


@dataclass
class Volume:
    """The run folder of one job's server. image: of the reader, "" for the one that the volume names."""

    cluster: Connection
    job: Mapping[str, Any]
    image: str = ""
    _reader: str = field(default="", init=False)

    async def read(self, name: str, offset: int = 0) -> AsyncGenerator[bytes]:
        """A file's size, eight bytes, and its bytes from `offset` on. Raises NoSuchFile, and StreamCut wherever the stream is cut."""
        pod, container = await self._place()
        command = ["python", "-m", "fedjob.reader", f"{RUN_FOLDER}/{name}", str(offset)]
        what = f"run a command in pod {pod} (create pods/exec in namespace {self._namespace})"
        try:
            async for data in self.cluster.execute(self._namespace, pod, container, command, what):
                yield data
        except ExecFailed as e:
            if e.exit_code == EXIT_NO_FILE:
                raise NoSuchFile(f"the server of {self.job['metadata']['name']} has written no {name}") from None
            raise ClusterError(f"{name} cannot be read in pod {pod}: exit code {e.exit_code}: {e.words}") from None
        except ApiFailure as e:
            if e.status in (404, 500):  # the pod has just gone
                raise StreamCut(str(e)) from e
            raise

    async def __aenter__(self) -> Volume:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._remove_reader()

    async def _remove_reader(self) -> None:
        if self._reader:
            with contextlib.suppress(ApiFailure, ClusterError):  # it ends by itself
                path = POD.path(self._namespace, self._reader)
                await self.cluster.call("DELETE", path, "delete the reader")
            self._reader = ""

    @property
    def _namespace(self) -> str:
        return str(self.job["metadata"]["namespace"])

    async def _place(self) -> tuple[str, str]:
        """Pod and container that have the volume."""
        uid = self.job["metadata"]["uid"]
        query = [("labelSelector", f"{UID_LABEL}={uid},{ROLE_LABEL}={SERVER}")]
        path = POD.path(self._namespace)
        found = await self.cluster.get(path, f"list pods in namespace {self._namespace}", query)
        for pod in found["items"]:
            if _runs(pod, SERVER) and "deletionTimestamp" not in pod["metadata"]:
                return pod["metadata"]["name"], SERVER
        if self._reader and not await self._reader_runs():
            await self._remove_reader()
        if not self._reader:
            await self._start_reader(query)
        return self._reader, READER

    async def _reader_runs(self) -> bool:
        try:
            path = POD.path(self._namespace, self._reader)
            return _runs(await self.cluster.get(path, "look at the reader"), READER)
        except ApiFailure as e:
            if e.status == 404:
                return False
            raise

    async def _start_reader(self, query: list[tuple[str, str]]) -> None:
        claims = await self.cluster.get(
            VOLUME_CLAIM.path(self._namespace), f"list persistentvolumeclaims in namespace {self._namespace}", query
        )
        if not claims["items"]:
            raise ClusterError(f"{self.job['metadata']['name']} has no volume yet: its server has not started")
        claim = claims["items"][0]["metadata"]
        notes = claim.get("annotations") or {}
        image = self.image or notes.get(IMAGE_ANNOTATION, "")
        if not image:
            raise ClusterError(f"the volume {claim['name']} names no image that can read it: name one with --image")
        what = f"create the reading pod in namespace {self._namespace} (create pods)"
        written_by = json.loads(notes[SECURITY_ANNOTATION]) if SECURITY_ANNOTATION in notes else USER
        body = reader(self.job, claim["name"], image, written_by, placement(notes.get(PLACEMENT_ANNOTATION, "")))
        _, made = await self.cluster.call(
            "POST", POD.path(self._namespace), what, query=[("fieldManager", FIELD_MANAGER)], body=body
        )
        self._reader = made["metadata"]["name"]
        await self._await_reader()

    async def _await_reader(self) -> None:
        loop = asyncio.get_running_loop()
        until, path = loop.time() + _START_SECONDS, POD.path(self._namespace, self._reader)
        while True:
            pod = await self.cluster.get(path, "look at the reader")
            if _runs(pod, READER):
                return
            if loop.time() > until or pod["status"].get("phase") in ("Failed", "Succeeded"):
                raise ClusterError(f"pod {self._reader}, which is to read the volume, does not start: {_why(pod)}")
            await asyncio.sleep(0.5)


def placement(note: str) -> dict[str, Any]:
    """What the volume says of pods that are to read it: nodes, taints, pull secrets; nothing, if it says nothing that can be read."""
    try:
        found = json.loads(note or "{}")
    except ValueError:
        return {}
    return {key: found[key] for key in ("nodeSelector", "tolerations", "imagePullSecrets") if key in found}


def reader(
    job: Mapping[str, Any], claim: str, image: str, user: Mapping[str, Any], placed: Mapping[str, Any]
) -> dict[str, Any]:
    """A pod under Pod Security "restricted" that holds a volume, read-only, for as long as somebody reads.

    user: who the server's pod ran as, as fields of a securityContext. placed: what its spec says of nodes, taints and pull secrets.

    It belongs to the job, so that it goes with it, and has none of the labels by which the operator knows a server.
    """
    metadata = job["metadata"]
    owner = {
        "apiVersion": FEDERATED_JOB.api_version, "kind": FEDERATED_JOB.name, "name": metadata["name"], "uid": metadata["uid"],
    }  # fmt: skip
    labels = {JOB_LABEL: metadata["name"], UID_LABEL: metadata["uid"], ROLE_LABEL: READER}
    container = {
        "name": READER,
        "image": image,
        "command": ["python", "-c", "import time; time.sleep(1 << 20)"],
        "env": [{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "state", "mountPath": STATE_FOLDER, "readOnly": True}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": _LIFE_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            **user,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "state", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
        **placed,
    }
    prefix = f"{claim[:50]}-read-"
    return {
        "apiVersion": POD.api_version,
        "kind": POD.name,
        "metadata": {"generateName": prefix, "labels": labels, "ownerReferences": [owner]},
        "spec": spec,
    }


def _runs(pod: Mapping[str, Any], container: str) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(entry["name"] == container and "running" in (entry.get("state") or {}) for entry in statuses)


def _why(pod: Mapping[str, Any]) -> str:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        for state in (container.get("state") or {}).values():
            if text := ": ".join(filter(None, (state.get("reason"), state.get("message")))):
                return text
    for condition in status.get("conditions") or ():
        if condition["status"] == "False" and condition.get("message"):
            return f"{condition.get('reason')}: {condition['message']}"
    return str(status.get("message") or status.get("phase") or "no word of it")
