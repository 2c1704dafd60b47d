"""Which passes an object concerns.  PURE

Only labels and names are looked at: whoever sees an event knows where to send it without asking anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import names
from .observed import Raw, label
from .settings import HUB, SITE


@dataclass(frozen=True)
class Key:
    """What a pass is about: a FederatedJob for the hub's controller, a SiteJob for the site's."""

    controller: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.controller}:{self.namespace}/{self.name}"


def keys(kind: str, raw: Raw) -> tuple[Key, ...]:
    """The passes that an object of `kind` concerns; sites and policies concern many, see `store`."""
    metadata = raw["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    if kind == names.FEDERATED_JOB.name:
        return (Key(HUB, namespace, name),)
    if kind == names.SITE_JOB.name:
        origin = (raw.get("spec") or {}).get("job") or {}
        back = (Key(HUB, origin["namespace"], origin["name"]),) if origin else ()
        return (Key(SITE, namespace, name), *back)
    job, role = label(raw, names.JOB_LABEL), label(raw, names.ROLE_LABEL)
    if not job:
        return ()
    if role == names.SERVER:
        return (Key(HUB, namespace, job),)
    site_job = names.site_job(job, label(raw, names.UID_LABEL), label(raw, names.SITE_LABEL))
    return (Key(SITE, namespace, site_job),)
