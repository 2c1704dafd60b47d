"""The server of a FederatedJob and what stands around it.  PURE

One Job for each run of the server, `backoffLimit: 0`: whether it is started again is our decision, not the Job controller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedjob.api import FederatedJob
from fedjob.config import Report, ServerConfig
from fedjob.tls import SERVER_ENVIRONMENT

from .. import names
from ..plan import Create, Issue, Manifest
from ..settings import Settings
from . import code
from .meta import (
    MALLOC,
    Owner,
    child,
    container_security,
    environment,
    labels,
    mount,
    node_loss_tolerations,
    pod_security,
)

_GRACE_SECONDS = 30
_INITIAL = f"{names.STATE_FOLDER}/initial.safetensors"


@dataclass(frozen=True)
class Of:
    """A FederatedJob as the builders see it."""

    job: FederatedJob
    uid: str
    attempt: int
    settings: Settings

    @property
    def base(self) -> str:
        """Name of the Service, ConfigMap, Secret, volume and policies."""
        return names.base(self.job.metadata.name, self.uid)

    @property
    def owner(self) -> Owner:
        """The FederatedJob."""
        return Owner(names.FEDERATED_JOB, self.job.metadata.namespace, self.job.metadata.name, self.uid)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the server's objects."""
        return labels(self.job.metadata.name, self.uid, names.SERVER)

    @property
    def host(self) -> str:
        """DNS name of the server."""
        return names.service_host(self.base, self.job.metadata.namespace)

    @property
    def address(self) -> str:
        """host:port of the server."""
        return f"{self.host}:{names.JOB_PORT}"


def surroundings(of: Of) -> list[Manifest]:
    """Everything but the Job and the Secret, in the order of making."""
    return [config_map(of), service(of), volume_claim(of), disruption_budget(of), network_policy(of)]


def config_map(of: Of) -> Manifest:
    """The configuration that a server process reads when it starts, and the trainer's files if the server needs them."""
    settings, initial = of.settings, of.job.spec.model.initial
    config = ServerConfig(
        job=of.job,
        uid=of.uid,
        attempt=of.attempt,
        trust_domain=settings.trust_domain,
        listen=f"[::]:{names.JOB_PORT}",
        tls=Path(names.TLS_FOLDER),
        run=Path(names.STATE_FOLDER, "run"),
        state=Path(names.STATE_FOLDER, "state"),
        initial=Path(_INITIAL) if initial is not None else None,
        termination=Path(names.TERMINATION_FILE),
        report=_report(of),
    )
    data = {names.CONFIG_FILE: config.model_dump_json(by_alias=True)}
    if initial is not None:
        data.update(code.data(of.job.spec.trainer.files))
    return child(names.CONFIG_MAP, of.base, of.owner, of.labels, data=data)


def _report(of: Of) -> Report | None:
    if not of.settings.hub_url:
        return None
    where = of.job.metadata
    url = f"{of.settings.hub_url}/v1alpha1/namespaces/{where.namespace}/federatedjobs/{where.name}/progress"
    return Report(url=url, server_name=of.settings.hub_name)


def service(of: Of) -> Manifest:
    """The server's stable address: it outlives the server's pods."""
    port = {"name": "grpc", "port": names.JOB_PORT, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "grpc"}
    exposure = of.job.spec.server.exposure
    spec = {"type": exposure.type, "selector": _selector(of), "ports": [port], "publishNotReadyAddresses": False}
    return child(names.SERVICE, of.base, of.owner, of.labels, notes=exposure.annotations, spec=spec)


def certificate(of: Of) -> Issue:
    """The Secret with the server's key and certificate."""
    manifest = child(names.SECRET, of.base, of.owner, of.labels, type="kubernetes.io/tls")
    return Issue(manifest, of.uid, None, (of.host,), of.settings.certificate_life)


def volume_claim(of: Of) -> Manifest:
    """Where the server's state lives."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": of.job.spec.server.storage.size}},
    }
    return child(names.VOLUME_CLAIM, of.base, of.owner, of.labels, spec=spec)


def disruption_budget(of: Of) -> Manifest:
    """A drain asks before it ends a round. minAvailable, because a Job has no scale that maxUnavailable could refer to."""
    spec = {
        "minAvailable": 1,
        "selector": {"matchLabels": _selector(of)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child(names.DISRUPTION_BUDGET, of.base, of.owner, of.labels, spec=spec)


def network_policy(of: Of) -> Manifest:
    """In: this job's clients. Out: names and the hub."""
    clients = {"matchLabels": {names.UID_LABEL: of.uid, names.ROLE_LABEL: names.CLIENT}}
    spec = {
        "podSelector": {"matchLabels": _selector(of)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"namespaceSelector": {}, "podSelector": clients}], "ports": [tcp(names.JOB_PORT)]},
        ],
        "egress": [dns(), {"to": [namespace(of.settings.namespace)], "ports": [tcp(names.HUB_PORT)]}],
    }
    return child(names.NETWORK_POLICY, of.base, of.owner, of.labels, spec=spec)


def job(of: Of, run: int) -> Create:
    """Run number `run` of the server, to be made only while no pod of another run is alive."""
    tags = {**of.labels, names.RUN_LABEL: str(run)}
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "Failed",
        "template": {"metadata": {"labels": tags}, "spec": _pod(of)},
    }
    name = names.server_job(of.job.metadata.name, of.uid, run)
    return Create(child(names.JOB, name, of.owner, tags, spec=spec), alone=_selector(of))


def _pod(of: Of) -> dict[str, Any]:
    spec, files = of.job.spec, of.job.spec.trainer.files
    volumes = [
        {"name": "config", "configMap": {"name": of.base, "items": [{"key": names.CONFIG_FILE, "path": names.CONFIG_FILE}]}},
        {"name": "tls", "secret": {"secretName": of.base, "defaultMode": 0o440}},
        {"name": "state", "persistentVolumeClaim": {"claimName": of.base}},
        {"name": "scratch", "emptyDir": {}},
    ]  # fmt: skip
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": pod_security(),
        "tolerations": node_loss_tolerations(of.settings.node_lost_seconds),
        "containers": [_container(of)],
        "volumes": volumes,
    }
    if spec.model.initial is not None:
        pod["initContainers"] = [_initial_model(of)]
        if files:
            volumes.append(code.volume(files, of.base))
    return pod


def _container(of: Of) -> dict[str, Any]:
    port = {"tcpSocket": {"port": "grpc"}}
    return {
        "name": names.SERVER,
        "image": of.settings.runtime_image,
        "command": ["python", "-m", "fedjob.server", f"{names.CONFIG_FOLDER}/{names.CONFIG_FILE}"],
        "env": environment({**SERVER_ENVIRONMENT, **MALLOC, "GRPC_TRACE": "handshaker", "PYTHONUNBUFFERED": "1"}),
        "ports": [{"name": "grpc", "containerPort": names.JOB_PORT, "protocol": "TCP"}],
        "resources": of.job.spec.server.resources.model_dump(exclude_defaults=True),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # A large state is read before the port opens: half an hour to start, then a minute of silence is death.
        "startupProbe": {**port, "periodSeconds": 2, "failureThreshold": 900},
        "readinessProbe": {**port, "periodSeconds": 10},
        "livenessProbe": {**port, "periodSeconds": 20, "failureThreshold": 3},
        "volumeMounts": [
            mount("config", names.CONFIG_FOLDER),
            mount("tls", names.TLS_FOLDER),
            mount("state", names.STATE_FOLDER, read_only=False),
            mount("scratch", names.SCRATCH_FOLDER, read_only=False),
        ],
    }


def _initial_model(of: Of) -> dict[str, Any]:
    """The trainer's code makes the first model, once, before the server starts; a server with a checkpoint ignores it."""
    spec = of.job.spec
    initial = spec.model.initial
    assert initial is not None
    mounts = [
        mount("state", names.STATE_FOLDER, read_only=False),
        mount("scratch", names.SCRATCH_FOLDER, read_only=False),
    ]
    container: dict[str, Any] = {
        "name": "initial-model",
        "image": spec.trainer.image or of.settings.runtime_image,
        "command": ["python", "-m", "fedjob.initial", str(initial.object), _INITIAL],
        "env": environment({"PYTHONDONTWRITEBYTECODE": "1", "HOME": names.SCRATCH_FOLDER}),
        "resources": of.job.spec.server.resources.model_dump(exclude_defaults=True),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if spec.trainer.files:
        mounts.append(mount(code.VOLUME, names.CODE_FOLDER))
        container["workingDir"] = names.CODE_FOLDER
    return container


def _selector(of: Of) -> dict[str, str]:
    return {names.UID_LABEL: of.uid, names.ROLE_LABEL: names.SERVER}


def tcp(port: int) -> dict[str, Any]:
    """A port in a network policy."""
    return {"protocol": "TCP", "port": port}


def dns() -> dict[str, Any]:
    """Egress to name servers, wherever the cluster has them."""
    return {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def namespace(name: str) -> dict[str, Any]:
    """All pods of a namespace, as a peer in a network policy."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
