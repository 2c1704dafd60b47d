"""Volumes that a test has in its hand: a folder that pods see, and a small disk that it fills and frees.

Both are PersistentVolumes that stand before a claim asks; the provisioner has no part in them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.disk import Disk, disk

from ..kube import Raw, RefusedError, until
from .cluster import Cluster
from .storage import CLASS

_KIND = "/api/v1/persistentvolumes"


@contextlib.contextmanager
def held_by(cluster: Cluster, namespace: str, claim: str, folder: Path) -> Iterator[None]:
    """A claim that is bound to a folder of this machine; both are gone after the block, the folder stays."""
    size = "1Mi"
    made = _volume(cluster, f"{namespace}-{claim}", folder, size, "")
    made["spec"]["claimRef"] = {"namespace": namespace, "name": claim}
    spec = {"storageClassName": "", "volumeName": made["metadata"]["name"], **_request(size)}
    metadata = {"namespace": namespace, "name": claim}
    cluster.apply(made, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    try:
        yield
    finally:
        cluster.plane.kubectl("delete", "pvc", claim, "--namespace", namespace)
        _delete(cluster, made)


@contextlib.contextmanager
def small_disk(cluster: Cluster, name: str, mebibytes: int) -> Iterator[Disk]:
    """An ext4 disk of this size, which the next claim of the default class gets that asks for no more.

    Its claim must be gone when the block ends.
    """
    place = cluster.layout.folder / "disks"
    with disk(place / name, place.with_name(f"disk-{name}"), mebibytes) as made:
        made.folder.chmod(0o777)  # as the provisioner makes them: the server is not root
        volume = _volume(cluster, name, made.folder, f"{mebibytes}Mi", CLASS)
        cluster.apply(volume)
        try:
            yield made
        finally:
            _delete(cluster, volume)


def _volume(cluster: Cluster, name: str, folder: Path, size: str, storage_class: str) -> Raw:
    spec = {
        "storageClassName": storage_class,
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(folder)},
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def _request(size: str) -> dict[str, Any]:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


def _delete(cluster: Cluster, volume: Raw) -> None:
    path = f"{_KIND}/{volume['metadata']['name']}"
    cluster.admin.call("DELETE", path)

    def gone() -> bool:
        try:
            cluster.admin.call("GET", path)
        except RefusedError as e:
            return e.code == 404
        return False

    until(f"{path} to go", gone)


@dataclass(frozen=True)
class Gate:
    """Holds the rounds of jobs that name its folder as their data: a round ends when it is let."""

    folder: Path

    def let(self, rounds: int) -> None:
        """So many rounds may end, from now on."""
        written = self.folder / ".open"
        written.write_text(str(rounds))
        written.replace(self.folder / "open")

    @property
    def held(self) -> int:
        """The first round that may not end."""
        return int((self.folder / "open").read_text())
