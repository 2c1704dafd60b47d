"""The clients of a SiteJob: the script's pods at one site and what stands around them.  PURE"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedjob.config import CONFIG_VARIABLE, DATA_VARIABLE, SiteConfig, text
from fedjob.model import ParamsType

from .. import names
from ..observed import Raw
from ..plan import Create, Issue, Manifest
from ..quantity import number
from ..settings import CaBundle, Settings
from . import ca, code, network
from .meta import Owner, child, labels
from .pod import (
    MALLOC,
    SCRAPED_TAGS,
    UNSCRAPED_NOTES,
    container,
    empty_folder,
    environment,
    metrics_port,
    mount,
    mounts,
    pod,
    scraped_notes,
    template,
    volumes,
)

_SHARED_MEMORY = "1Gi"  # /dev/shm, if the job limits no memory: PyTorch's data loaders pass batches through it


@dataclass(frozen=True)
class At:
    """A SiteJob as the builders see it.

    data: the policy's entry for the data that the job names, None if it names none. authorities: what the policy has scripts
    trust, None to leave that to the image. pods: spec.pods of the policy.
    scrape_from: namespaces that may read the metrics of the pods.
    """

    site_job: Raw
    settings: Settings
    data: Raw | None = None
    authorities: CaBundle | None = None
    pods: Raw = field(default_factory=dict)
    scrape_from: tuple[str, ...] = ()

    @property
    def spec(self) -> Raw:
        """The assignment."""
        found: Raw = self.site_job["spec"]
        return found

    @property
    def name(self) -> str:
        """Name of the SiteJob, and of its ConfigMap, Secret and policies."""
        return str(self.site_job["metadata"]["name"])

    @property
    def owner(self) -> Owner:
        """The SiteJob."""
        metadata = self.site_job["metadata"]
        return Owner(names.SITE_JOB, metadata["namespace"], metadata["name"], metadata["uid"])

    @property
    def labels(self) -> dict[str, str]:
        """Labels of everything of this SiteJob."""
        job = self.spec["job"]
        return labels(job["name"], job["uid"], names.CLIENT, **{names.SITE_LABEL: self.spec["site"]})

    @property
    def selector(self) -> dict[str, str]:
        """Labels by which its pods are found."""
        job = self.spec["job"]
        return {names.UID_LABEL: job["uid"], names.ROLE_LABEL: names.CLIENT, names.SITE_LABEL: self.spec["site"]}

    @property
    def nodes(self) -> int:
        """Pods that train together."""
        return int(self.spec["trainer"]["nodes"])


def surroundings(at: At) -> list[Manifest]:
    """Everything but the Job and the Secret."""
    found = [config_map(at), network_policy(at)]
    return [*found, service(at)] if at.nodes > 1 else found


def config_map(at: At) -> Manifest:
    """What a client process reads when it starts, and the script's files."""
    spec = at.spec
    config = SiteConfig(
        job=spec["job"]["name"],
        uid=spec["job"]["uid"],
        attempt=spec["job"]["attempt"],
        trust_domain=spec["trustDomain"],
        site=spec["site"],
        sites=tuple(spec["sites"]),
        workflow=spec["workflow"],
        params_type=ParamsType.DIFF if spec["exchange"]["params"] == "Diff" else ParamsType.FULL,
        include=tuple(spec["exchange"].get("include") or ()),
        wire_dtype=spec["exchange"]["dtype"],
        server=spec["server"]["address"],
        server_name=spec["server"]["name"],
        tls=Path(names.TLS_FOLDER),
        work=Path(names.STATE_FOLDER),
        server_lost_seconds=spec["serverLostSeconds"],
        metrics=names.METRICS_LISTEN,
        log="json",
    )
    data = {names.CONFIG_FILE: text(config), **code.data(spec["trainer"].get("files") or {})}
    return child(names.CONFIG_MAP, at.name, at.owner, at.labels, data=data)


def certificate(at: At) -> Issue:
    """The Secret with the site's key and certificate for this job."""
    manifest = child(names.SECRET, at.name, at.owner, at.labels, type="kubernetes.io/tls")
    return Issue(manifest, at.spec["job"]["uid"], at.spec["site"], (), at.settings.certificate_life)


def service(at: At) -> Manifest:
    """Names for the nodes of one site, so that they find each other before they are ready."""
    port = {"name": "rendezvous", "port": names.RENDEZVOUS_PORT, "protocol": "TCP"}
    spec = {"clusterIP": "None", "selector": at.selector, "ports": [port], "publishNotReadyAddresses": True}
    return child(names.SERVICE, at.name, at.owner, at.labels, spec=spec)


def network_policy(at: At) -> Manifest:
    """In: whoever may read metrics, the other nodes of the site. Out: names, the job's server, the other nodes."""
    pods = {"matchLabels": {names.UID_LABEL: at.spec["job"]["uid"], names.ROLE_LABEL: names.SERVER}}
    server = {**network.namespace(at.spec["job"]["namespace"]), "podSelector": pods}
    fellows = {"podSelector": {"matchLabels": at.selector}}
    several = at.nodes > 1
    return network.policy(
        at.name,
        at.owner,
        at.labels,
        at.selector,
        ingress=[*([{"from": [fellows]}] if several else []), *network.scraping(at.scrape_from)],
        egress=[
            *network.dns(at.settings),
            {"to": [server], "ports": [network.tcp(names.JOB_PORT)]},
            *([{"to": [fellows]}] if several else []),
        ],
    )


def job(at: At, run: int) -> Create:
    """Run number `run` of the site's script, to be made only while no pod of another run is alive."""
    scheduling = at.spec.get("scheduling") or {}
    tags = {**at.labels, names.RUN_LABEL: str(run)}
    marks, notes = (SCRAPED_TAGS, scraped_notes(at.settings)) if at.scrape_from else ({}, UNSCRAPED_NOTES)
    name = names.client_job(at.name, run)
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "completions": at.nodes,
        "parallelism": at.nodes,
        "completionMode": "Indexed" if at.nodes > 1 else "NonIndexed",
        "podReplacementPolicy": "Failed",
        "template": template({**tags, **marks}, _pod(at, name), at.settings, at.pods, notes),
    }
    if queue := scheduling.get("queueName"):
        tags = {**tags, names.QUEUE_LABEL: queue}
        spec["suspend"] = True  # until the queue admits it
    return Create(child(names.JOB, name, at.owner, tags, spec=spec), alone=at.selector)


def _pod(at: At, job_name: str) -> dict[str, Any]:
    made = pod([_container(at, job_name)], _volumes(at), at.settings)
    if at.nodes > 1:
        made["subdomain"] = at.name
    if at.data is not None and at.data.get("supplementalGroups"):
        made["securityContext"] = {**made["securityContext"], "supplementalGroups": at.data["supplementalGroups"]}
    scheduling = at.spec.get("scheduling") or {}
    made["tolerations"] += [*_accelerators(at.spec["trainer"]), *(scheduling.get("tolerations") or ())]
    own = {key: at.pods[key] for key in ("runtimeClassName", "nodeSelector") if at.pods.get(key)}
    return made | own | {key: scheduling[key] for key in ("priorityClassName",) if key in scheduling}


def _accelerators(trainer: Raw) -> list[dict[str, Any]]:
    """Nodes with accelerators are commonly tainted with the resource's own name.

    An amount of nothing opens no node: whoever asks for some goes only where a node has it.
    """
    limits = (trainer.get("resources") or {}).get("limits") or {}
    some = sorted(name for name, amount in limits.items() if "/" in name and number(str(amount)) > 0)
    return [{"key": name, "operator": "Exists", "effect": "NoSchedule"} for name in some]


def _volumes(at: At) -> list[dict[str, Any]]:
    trainer = at.spec["trainer"]
    resources = trainer.get("resources") or {}
    limit = (resources.get("limits") or {}).get("memory")
    memory = trainer.get("sharedMemory") or limit or _SHARED_MEMORY
    found = volumes(at.name, empty_folder(resources), resources)
    found.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": memory}})
    if trainer.get("files"):
        found.append(code.volume(trainer["files"], at.name))
    if at.data is not None:
        claim = {"claimName": at.data["claim"], "readOnly": at.data.get("readOnly", True)}
        found.append({"name": "data", "persistentVolumeClaim": claim})
    if at.authorities is not None:
        found.append(ca.volume(at.authorities))
    return found


def _container(at: At, job_name: str) -> dict[str, Any]:
    trainer = at.spec["trainer"]
    rendezvous = f"{job_name}-0.{at.name}"
    command = code.command(trainer["command"], trainer["processesPerNode"], at.nodes, rendezvous)
    variables = {
        **MALLOC,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": names.SCRATCH_FOLDER,
        **at.settings.job_pods.variables,
        **(ca.variables() if at.authorities is not None else {}),
        **{variable["name"]: variable["value"] for variable in trainer.get("env") or ()},
        CONFIG_VARIABLE: f"{names.CONFIG_FOLDER}/{names.CONFIG_FILE}",
    }
    made = container(names.CLIENT, trainer["image"], command, trainer.get("resources") or {})
    made["volumeMounts"] = [*mounts(), mount("shm", "/dev/shm", read_only=False)]
    if trainer.get("files"):
        made["volumeMounts"].append(mount(code.VOLUME, names.CODE_FOLDER))
        made["workingDir"] = names.CODE_FOLDER
    if at.authorities is not None:
        made["volumeMounts"].append(ca.mounted())
    if at.data is not None:
        read_only, folder = at.data.get("readOnly", True), at.data.get("subPath", "")
        made["volumeMounts"].append(mount("data", names.DATA_FOLDER, read_only=read_only, sub_path=folder))
        variables[DATA_VARIABLE] = names.DATA_FOLDER
    return {**made, "env": environment(variables), "ports": [metrics_port()]}
