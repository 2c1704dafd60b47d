"""What a server's pod and a client's have in common: what a security team asks for, volumes, and the environment of the process.  PURE"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import names
from ..settings import Settings

_GRACE_SECONDS = 30
_FOLDER_LIMIT = "100Gi"  # room for what a script downloads and caches, and for models that are kept on the way
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
"""glibc maps and unmaps every chunk by default, at three times the CPU of the transfer itself."""


def pod(
    containers: Sequence[Mapping[str, Any]], volumes: Sequence[Mapping[str, Any]], settings: Settings
) -> dict[str, Any]:
    """A pod under Pod Security "restricted": started once, without a token, its volumes owned by its group."""
    made = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": security(settings),
        "tolerations": node_loss(settings),
        "containers": list(containers),
        "volumes": list(volumes),
    }
    secrets = [{"name": name} for name in settings.image_pull_secrets]
    return {**made, "imagePullSecrets": secrets} if secrets else made


def security(settings: Settings) -> dict[str, Any]:
    """The securityContext of a pod: what "restricted" asks for, and who it runs as."""
    given = settings.job_pods.security
    return {
        **(names.USER if given is None else given),
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


SCRAPED_TAGS = {names.METRICS_LABEL: "job"}
"""Labels of a pod whose metrics may be read: what a PodMonitor selects by."""
_SCRAPED_NOTES = {"prometheus.io/scrape": "true", "prometheus.io/port": str(names.METRICS_PORT)}
UNSCRAPED_NOTES = {"prometheus.io/scrape": "false"}


def scraped_notes(settings: Settings) -> dict[str, str]:
    """Annotations of such a pod: what a Prometheus looks for that no monitor tells, where there is one."""
    return dict(_SCRAPED_NOTES) if settings.scrape_annotations else {}


def template(
    tags: Mapping[str, str],
    spec: Mapping[str, Any],
    settings: Settings,
    site: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A Job's pod, with our labels and annotations.

    Labels and annotations of the installation come first, those of the site (`labels`, `annotations`) go over them, ours over both.
    """
    told, asked = site or {}, settings.job_pods
    metadata = {
        "labels": {**asked.labels, **(told.get("labels") or {}), **tags},
        "annotations": {**asked.annotations, **(told.get("annotations") or {}), **(notes or {})},
    }
    return {"metadata": metadata, "spec": dict(spec)}


def metrics_port() -> dict[str, Any]:
    """Where a process of ours serves its metrics."""
    return {"name": "metrics", "containerPort": names.METRICS_PORT, "protocol": "TCP"}


def literal(text: str) -> str:
    """What Kubernetes makes `text` of, in a command, an argument or a variable's value.

    It reads `$(NAME)` as a variable's value there, and `$$` as a dollar. Nobody else reads it so: not a local run, not a policy.
    """
    return text.replace("$", "$$")


def container(name: str, image: str, command: Sequence[str], resources: Mapping[str, Any]) -> dict[str, Any]:
    """A container with no privilege and no capability, and with nothing to write to but the volumes.

    command: as Kubernetes reads it; what a person wrote has gone through `literal`.
    """
    return {
        "name": name,
        "image": image,
        "command": list(command),
        "resources": dict(resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def empty_folder(resources: Mapping[str, Any]) -> dict[str, Any]:
    """A folder on the node's disk. A pod that fills it beyond its limit is ended by the kubelet, before the node's disk is full.

    resources: of the container, whose limit of ephemeral-storage is the limit, if there is one.
    """
    limit = (resources.get("limits") or {}).get("ephemeral-storage")
    return {"emptyDir": {"sizeLimit": limit or _FOLDER_LIMIT}}


def volumes(owned: str, state: Mapping[str, Any], resources: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Configuration and certificate, from the ConfigMap and the Secret named `owned`; the state; and /tmp."""
    items = [{"key": names.CONFIG_FILE, "path": names.CONFIG_FILE}]
    return [
        {"name": "config", "configMap": {"name": owned, "items": items}},
        {"name": "tls", "secret": {"secretName": owned, "defaultMode": 0o440}},
        {"name": "state", **state},
        {"name": "scratch", **empty_folder(resources)},
    ]


def mounts() -> list[dict[str, Any]]:
    """Where a process of ours sees `volumes`."""
    return [
        mount("config", names.CONFIG_FOLDER),
        mount("tls", names.TLS_FOLDER),
        mount("state", names.STATE_FOLDER, read_only=False),
        mount("scratch", names.SCRATCH_FOLDER, read_only=False),
    ]


def mount(name: str, path: str, *, read_only: bool = True, sub_path: str = "") -> dict[str, Any]:
    """Where a container sees a volume."""
    found: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        found["readOnly"] = True
    if sub_path:
        found["subPath"] = sub_path
    return found


def environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """Environment variables of a container, in the order of the mapping; each value arrives as it is here."""
    return [{"name": name, "value": literal(value)} for name, value in variables.items()]


def node_loss(settings: Settings) -> list[dict[str, Any]]:
    """Tolerations: a pod leaves a node that is gone after so many seconds, not after the five minutes that are the default."""
    return [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": settings.node_lost_seconds,
        }
        for taint in ("not-ready", "unreachable")
    ]
