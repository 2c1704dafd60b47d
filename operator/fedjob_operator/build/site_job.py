"""The assignment of a job to one site, as a SiteJob: everything that the site must know, and nothing that it decides.  PURE"""

from __future__ import annotations

from typing import Any

from fedjob.api import FailurePolicy, Site

from .. import names
from ..plan import Manifest
from ..trust import Trust
from .meta import child, signed
from .server import Of


def site_job(of: Of, site: str, namespace: str, trust: Trust, *, forgiven: int, suspend: bool) -> Manifest:
    """The SiteJob of `site` in `namespace`. suspend: no pods, decide only; forgiven: restarts that do not count."""
    spec, metadata = of.job.spec, of.job.metadata
    entry = next(entry for entry in spec.sites if entry.name == site)
    body = {
        "trustDomain": of.settings.trust_domain,
        "job": {"name": metadata.name, "namespace": metadata.namespace, "uid": of.uid, "attempt": of.attempt},
        "site": site,
        "suspend": suspend,
        "server": {"address": of.address, "name": of.host},
        "authorities": trust.bundle,
        "sites": sorted(entry.name for entry in spec.sites),
        "workflow": spec.workflow.model_dump(mode="json", by_alias=True, exclude_none=True),
        "exchange": spec.model.exchange.model_dump(mode="json", by_alias=True, exclude_none=True),
        "trainer": _trainer(of, entry),
        "scheduling": spec.scheduling.model_dump(mode="json", by_alias=True, exclude_none=True),
        "restarts": _restarts(spec.failure_policy, forgiven),
        "serverLostSeconds": spec.failure_policy.server_lost_seconds,
        **({"data": entry.data} if entry.data is not None else {}),
    }
    tags = {**of.labels, names.ROLE_LABEL: names.CLIENT, names.SITE_LABEL: site}
    manifest = child(names.SITE_JOB, names.site_job(metadata.name, of.uid, site), of.owner, tags, spec=body)
    if namespace == metadata.namespace:
        return manifest
    place = {key: value for key, value in manifest["metadata"].items() if key not in ("ownerReferences", "annotations")}
    return signed({**manifest, "metadata": {**place, "namespace": namespace}})  # owners do not reach across namespaces


def _restarts(policy: FailurePolicy, forgiven: int) -> dict[str, Any]:
    found: dict[str, Any] = {"allowed": policy.site_restarts, "forgiven": forgiven}
    rules = [rule for rule in policy.rules if rule.role == "Client"]
    if rules:
        found["rules"] = [rule.model_dump(mode="json", by_alias=True, exclude_none=True) for rule in rules]
    return found


def _trainer(of: Of, site: Site) -> dict[str, Any]:
    """What runs at the site: the job's trainer, with the site's own environment and resources over it."""
    trainer = of.job.spec.trainer
    env = {variable.name: variable.value for variable in (*trainer.env, *site.env)}
    resources = site.resources if site.resources is not None else trainer.resources
    return {
        "image": trainer.image or of.settings.runtime_image,
        "command": list(trainer.command),
        "files": dict(trainer.files),
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": resources.model_dump(exclude_defaults=True),
        "processesPerNode": trainer.processes_per_node,
        "nodes": trainer.nodes,
        **({"sharedMemory": trainer.shared_memory} if trainer.shared_memory is not None else {}),
    }
