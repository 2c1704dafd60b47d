"""What all children have: names, labels, an owner; and the parts of a pod that a security team asks for.  PURE"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import names
from ..names import Kind
from ..plan import Manifest, digest


@dataclass(frozen=True)
class Owner:
    """The resource that children belong to, and are deleted with."""

    kind: Kind
    namespace: str
    name: str
    uid: str


def labels(job: str, uid: str, role: str, **more: str) -> dict[str, str]:
    """Labels of a child of the job `job`. role: server or client."""
    return {
        names.MANAGED_BY: names.MANAGER,
        names.JOB_LABEL: job,
        names.UID_LABEL: uid,
        names.ROLE_LABEL: role,
        **more,
    }


def child(
    kind: Kind, name: str, owner: Owner, tags: Mapping[str, str], notes: Mapping[str, str] | None = None, **parts: Any
) -> Manifest:
    """An object owned by `owner`, in its namespace; notes: annotations, besides the one with the digest of it all."""
    reference = {
        "apiVersion": owner.kind.api_version,
        "kind": owner.kind.name,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {"name": name, "namespace": owner.namespace, "labels": dict(tags), "ownerReferences": [reference]}
    if notes:
        metadata["annotations"] = dict(notes)
    return signed({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **parts})


def signed(manifest: Manifest) -> Manifest:
    """The manifest with the annotation that names its digest."""
    notes = {**manifest["metadata"].get("annotations", {}), names.HASH_ANNOTATION: digest(manifest)}
    metadata = {**manifest["metadata"], "annotations": notes}
    return {**manifest, "metadata": metadata}


def pod_security() -> dict[str, Any]:
    """Pod Security "restricted", and a group that owns the volumes."""
    return {
        "runAsNonRoot": True,
        "runAsUser": names.USER,
        "runAsGroup": names.USER,
        "fsGroup": names.USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """No privilege, no capability, nothing to write to but the volumes."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """Environment variables of a container, in the order of the mapping."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def mount(name: str, path: str, *, read_only: bool = True, sub_path: str = "") -> dict[str, Any]:
    """Where a container sees a volume."""
    found: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        found["readOnly"] = True
    if sub_path:
        found["subPath"] = sub_path
    return found


def node_loss_tolerations(seconds: int) -> list[dict[str, Any]]:
    """A pod leaves a node that is gone after `seconds`, not after the five minutes that are the default."""
    return [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }
        for taint in ("not-ready", "unreachable")
    ]


MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
"""glibc maps and unmaps every chunk by default, at three times the CPU of the transfer itself."""
