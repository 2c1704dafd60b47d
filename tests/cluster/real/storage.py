"""Volumes: the local-path provisioner as a process; each claim gets a folder of its node.

Its StorageClass is the default, and binds a claim when its first pod has a node: the volume is on that node from then on, and
every later pod of the claim goes there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ..controlplane import ControlPlane
from ..processes import Processes
from . import busybox
from .layout import Layout, Node

STORAGE = "storage-token"
NAME = "local-path-provisioner"
USERS = {STORAGE: (NAME, "")}
NAMESPACE = "local-path-storage"
CLASS = "local-path"
SCRIPTS = "local-path-config"  # a ConfigMap, of this name by the provisioner's default

_RBAC = "rbac.authorization.k8s.io"


def folder(node: Node) -> Path:
    """Where the volumes of a node are, each in a folder named `pvc-<uid>_<namespace>_<claim>`."""
    return node.folder / "volumes"


def start(of: Layout, plane: ControlPlane, processes: Processes) -> None:
    """Start the provisioner; `OBJECTS` must be applied first."""
    paths = {"nodePathMap": [{"node": node.name, "paths": [str(folder(node))]} for node in of.nodes]}
    configuration, pod = of.folder / "storage.json", of.folder / "storage-pod.yaml"
    configuration.write_text(json.dumps(paths))
    pod.write_text(yaml.safe_dump(_HELPER))
    processes.start(
        str(plane.binaries / NAME),
        "start",
        f"--config={configuration}",
        f"--helper-pod-file={pod}",
        f"--helper-image={busybox.NAME}",
        f"--kubeconfig={plane.kubeconfig(STORAGE)}",
        f"--namespace={NAMESPACE}",
        "--service-account-name=default",
    )


_HELPER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "helper-pod"},
    "spec": {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "helper-pod", "image": busybox.NAME, "imagePullPolicy": "IfNotPresent"}],
    },
}


def _rule(group: str, resources: list[str], *verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}


def _role(kind: str, *rules: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": NAME, **({"namespace": NAMESPACE} if kind == "Role" else {})}
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata, "rules": list(rules)}


def _binding(role: dict[str, Any]) -> dict[str, Any]:
    reference = {"apiGroup": _RBAC, "kind": role["kind"], "name": NAME}
    subject = {"apiGroup": _RBAC, "kind": "User", "name": NAME}
    same = {key: role[key] for key in ("apiVersion", "metadata")}
    return {**same, "kind": f"{role['kind']}Binding", "roleRef": reference, "subjects": [subject]}


_LOOK = ("get", "list", "watch")
_CHANGE = (*_LOOK, "create", "patch", "update", "delete")
_ROLES = [
    _role("Role", _rule("", ["pods"], *_CHANGE)),
    _role(
        "ClusterRole",
        _rule("", ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], *_LOOK),
        _rule("", ["persistentvolumes"], *_CHANGE),
        _rule("", ["events"], "create", "patch"),
        _rule("storage.k8s.io", ["storageclasses"], *_LOOK),
    ),
]

OBJECTS: list[dict[str, Any]] = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SCRIPTS, "namespace": NAMESPACE},
        "data": {"setup": 'mkdir -m 0777 -p "$VOL_DIR"\n', "teardown": 'rm -rf "$VOL_DIR"\n'},
    },
    {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    },
    *_ROLES,
    *map(_binding, _ROLES),
]
