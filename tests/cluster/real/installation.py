"""The operator as a Deployment on a real cluster, with the rights of operator/role.yaml and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..kube import until
from .cluster import Cluster
from .images import Images

SYSTEM = "fedjob-system"
NAME = "fedjob-operator"
SELECTOR = {"app.kubernetes.io/name": NAME}

_ROOT = Path(__file__).parents[3]
_RBAC = "rbac.authorization.k8s.io"


def install(cluster: Cluster, images: Images) -> None:
    """Install the CRDs and the operator, and wait until it is ready."""
    definitions = [yaml.safe_load(path.read_text()) for path in sorted((_ROOT / "crds").glob("*.yaml"))]
    roles = list(yaml.safe_load_all((_ROOT / "operator" / "role.yaml").read_text()))
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": restricted}})
    cluster.apply(*definitions, _account(), *roles, *map(_binding, roles), _service(), _deployment(images))

    def ready() -> bool:
        found = cluster.admin.call("GET", f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/{NAME}")
        return bool(found["status"].get("readyReplicas"))

    until("the operator to be ready", ready)


def _account() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": SYSTEM}}


def _binding(role: dict[str, Any]) -> dict[str, Any]:
    place = {"namespace": SYSTEM} if role["kind"] == "Role" else {}
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{role['kind']}Binding",
        "metadata": {"name": NAME, **place},
        "roleRef": {"apiGroup": _RBAC, "kind": role["kind"], "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": SYSTEM}],
    }


def _service() -> dict[str, Any]:
    ports = [{"name": "reports", "port": 8443, "targetPort": "reports"}]
    spec = {"selector": SELECTOR, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": SYSTEM}, "spec": spec}


def _deployment(images: Images) -> dict[str, Any]:
    field = {name: {"fieldRef": {"fieldPath": f"metadata.{name}"}} for name in ("name", "namespace")}
    container = {
        "name": "operator",
        "image": images.operator,
        "args": ["--runtime-image", images.runtime, "--hub-url", f"https://{NAME}.{SYSTEM}.svc:8443"],
        "env": [
            {"name": "POD_NAME", "valueFrom": field["name"]},
            {"name": "POD_NAMESPACE", "valueFrom": field["namespace"]},
        ],
        "ports": [{"name": "metrics", "containerPort": 8080}, {"name": "reports", "containerPort": 8443}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "metrics"}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "metrics"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
    pod = {
        "serviceAccountName": NAME,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": SELECTOR}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": SELECTOR}, "template": template}
    metadata = {"name": NAME, "namespace": SYSTEM}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
