"""The server of a FederatedJob and what stands around it.  PURE

One Job for each run of the server, `backoffLimit: 0`: whether it is started again is our decision, not the Job controller's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedjob.api import FederatedJob
from fedjob.config import Report, ServerConfig, text
from fedjob.tls import SERVER_ENVIRONMENT

from .. import names
from ..plan import Create, Issue, Manifest
from ..settings import Settings
from . import ca, code, network
from .meta import Owner, child, labels
from .pod import (
    MALLOC,
    SCRAPED_TAGS,
    container,
    empty_folder,
    environment,
    literal,
    metrics_port,
    mount,
    mounts,
    node_loss,
    pod,
    scraped_notes,
    template,
    volumes,
)

_INITIAL = f"{names.STATE_FOLDER}/initial.safetensors"
_MADE = f"{names.FIRST_FOLDER}/initial.safetensors"
_FIRST, _FIRST_SCRATCH = "first-model", "first-scratch"  # volumes of the code that makes it


@dataclass(frozen=True)
class Of:
    """A FederatedJob as the builders see it."""

    job: FederatedJob
    uid: str
    attempt: int
    settings: Settings
    storage_class: str = ""  # of the volume, as it was made; "" for the cluster's default

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
        run=Path(names.RUN_FOLDER),
        state=Path(names.STATE_FOLDER, "state"),
        initial=Path(_INITIAL) if initial is not None else None,
        termination=Path(names.TERMINATION_FILE),
        report=_report(of),
        metrics=names.METRICS_LISTEN,
        log="json",
    )
    data = {names.CONFIG_FILE: text(config)}
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
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": of.job.spec.server.storage.size}},
    }
    if of.storage_class:
        spec["storageClassName"] = of.storage_class
    notes = {names.IMAGE_ANNOTATION: of.settings.runtime_image}  # for whoever reads the volume when the job is over
    if (user := of.settings.job_pods.security) is not None:
        notes[names.SECURITY_ANNOTATION] = json.dumps(dict(user), sort_keys=True)
    if placement := _placement(of):
        notes[names.PLACEMENT_ANNOTATION] = json.dumps(placement)
    return child(names.VOLUME_CLAIM, of.base, of.owner, of.labels, notes, spec=spec)


def _placement(of: Of) -> dict[str, Any]:
    """What another pod needs to run where the server did, as its spec has it."""
    scheduling = of.job.spec.server.scheduling.model_dump(mode="json", by_alias=True, exclude_none=True)
    secrets = [{"name": name} for name in of.settings.image_pull_secrets]
    found = {**{key: scheduling[key] for key in ("nodeSelector", "tolerations")}, "imagePullSecrets": secrets}
    return {key: value for key, value in found.items() if value}


def disruption_budget(of: Of) -> Manifest:
    """A drain asks before it ends a round. minAvailable, because a Job has no scale that maxUnavailable could refer to."""
    spec = {
        "minAvailable": 1,
        "selector": {"matchLabels": _selector(of)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child(names.DISRUPTION_BUDGET, of.base, of.owner, of.labels, spec=spec)


def network_policy(of: Of) -> Manifest:
    """In: this job's clients, and whoever may read metrics. Out: names and the hub."""
    clients = {"matchLabels": {names.UID_LABEL: of.uid, names.ROLE_LABEL: names.CLIENT}}
    everywhere = {"namespaceSelector": {}, "podSelector": clients}
    hub = network.namespace(of.settings.namespace)
    return network.policy(
        of.base,
        of.owner,
        of.labels,
        _selector(of),
        ingress=[
            {"from": [everywhere], "ports": [network.tcp(names.JOB_PORT)]},
            *network.scraping(of.settings.scrape_from),
        ],
        egress=[*network.dns(of.settings), {"to": [hub], "ports": [network.tcp(names.HUB_PORT)]}],
    )


def job(of: Of, run: int) -> Create:
    """Run number `run` of the server, to be made only while no pod of another run is alive."""
    tags = {**of.labels, names.RUN_LABEL: str(run)}
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "Failed",
        "template": template({**tags, **SCRAPED_TAGS}, _pod(of), of.settings, notes=scraped_notes(of.settings)),
    }
    name = names.server_job(of.job.metadata.name, of.uid, run)
    return Create(child(names.JOB, name, of.owner, tags, spec=spec), alone=_selector(of))


def _pod(of: Of) -> dict[str, Any]:
    spec, files = of.job.spec, of.job.spec.trainer.files
    own = resources(of, of.settings.server_limits)
    found = volumes(of.base, {"persistentVolumeClaim": {"claimName": of.base}}, own)
    made = pod([_container(of)], found, of.settings) | placed(of)
    if spec.model.initial is not None:
        made["initContainers"] = [_initial_model(of), _taken_over(of)]
        made["volumes"] += [{"name": name, **empty_folder(own)} for name in (_FIRST, _FIRST_SCRATCH)]
        if files:
            made["volumes"].append(code.volume(files, of.base))
        if of.settings.ca_bundle is not None:
            made["volumes"].append(ca.volume(of.settings.ca_bundle))
    return made


def placed(of: Of) -> dict[str, Any]:
    """Where the pod may run: what stands in its spec, over what every pod has."""
    scheduling = of.job.spec.server.scheduling.model_dump(mode="json", by_alias=True, exclude_none=True)
    scheduling["tolerations"] = [*node_loss(of.settings), *scheduling["tolerations"]]
    return {key: value for key, value in scheduling.items() if value}


def _container(of: Of) -> dict[str, Any]:
    command = ["python", "-m", "fedjob.server", f"{names.CONFIG_FOLDER}/{names.CONFIG_FILE}"]
    port = {"tcpSocket": {"port": "grpc"}}
    return {
        **container(names.SERVER, of.settings.runtime_image, command, resources(of, of.settings.server_limits)),
        "env": environment({**SERVER_ENVIRONMENT, **MALLOC, "GRPC_TRACE": "handshaker", "PYTHONUNBUFFERED": "1"}),
        "ports": [{"name": "grpc", "containerPort": names.JOB_PORT, "protocol": "TCP"}, metrics_port()],
        # A large state is read before the port opens: half an hour to start, then a minute of silence is death.
        "startupProbe": {**port, "periodSeconds": 2, "failureThreshold": 900},
        "readinessProbe": {**port, "periodSeconds": 10},
        "livenessProbe": {**port, "periodSeconds": 20, "failureThreshold": 3},
        "volumeMounts": mounts(),
    }


def _initial_model(of: Of) -> dict[str, Any]:
    """The trainer's code makes the first model, before the server starts; a server with a checkpoint ignores it.

    It sees none of the server's volumes, where other sites' updates lie, and no key. It alone has the hub's authorities for HTTPS: the server itself calls nobody but the hub, whose authority it knows.
    """
    spec, bundle = of.job.spec, of.settings.ca_bundle
    variables = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": names.SCRATCH_FOLDER,
        **of.settings.job_pods.variables,
        **(ca.variables() if bundle else {}),
    }
    initial = spec.model.initial
    assert initial is not None
    command = ["python", "-m", "fedjob.initial", literal(str(initial.object)), _MADE]
    made = {
        **container("initial-model", spec.trainer.image or of.settings.runtime_image, command, resources(of, ())),
        "env": environment(variables),
        "volumeMounts": [
            mount(_FIRST, names.FIRST_FOLDER, read_only=False),
            mount(_FIRST_SCRATCH, names.SCRATCH_FOLDER, read_only=False),
            *([ca.mounted()] if bundle else []),
        ],
    }
    if spec.trainer.files:
        made["volumeMounts"].append(mount(code.VOLUME, names.CODE_FOLDER))
        made["workingDir"] = names.CODE_FOLDER
    return made


def _taken_over(of: Of) -> dict[str, Any]:
    """Our own code puts the first model where the server keeps its state, once; it runs nothing of the job's."""
    command = ["python", "-m", "fedjob.first_model", _MADE, _INITIAL]
    return {
        **container("take-model", of.settings.runtime_image, command, resources(of, of.settings.server_limits)),
        "env": environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        "volumeMounts": [mount(_FIRST, names.FIRST_FOLDER), mount("state", names.STATE_FOLDER, read_only=False)],
    }


def resources(of: Of, limits: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What the job says; for a resource of which it says nothing, the installation's request, and its limit in `limits`.

    The code that makes a first model gets no such limit: it holds the model in memory, which a server does not.
    """
    asked = of.job.spec.server.resources
    said = asked.requests.keys() | asked.limits.keys()
    found = {
        "limits": {**{name: amount for name, amount in limits if name not in said}, **asked.limits},
        "requests": {
            **{name: amount for name, amount in of.settings.server_requests if name not in said},
            **asked.requests,
        },
    }
    return {kind: amounts for kind, amounts in found.items() if amounts}


def _selector(of: Of) -> dict[str, str]:
    return {names.UID_LABEL: of.uid, names.ROLE_LABEL: names.SERVER}
