"""What all children have: names, labels, an owner, and the digest of what they were made from.  PURE"""

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
