"""Names on a cluster that more than the operator goes by: kinds and where the API server has them, labels, folders.  PURE"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROUP: Final = "fedjob.dev"

JOB_LABEL: Final = f"{GROUP}/job"
UID_LABEL: Final = f"{GROUP}/job-uid"
ROLE_LABEL: Final = f"{GROUP}/role"
SITE_LABEL: Final = f"{GROUP}/site"
RUN_LABEL: Final = f"{GROUP}/run"  # counts the server's or a site's Jobs: 1, 2, …
PLACEMENT_ANNOTATION: Final = (
    f"{GROUP}/placement"  # of the same: where a pod with that image may run, and its pull secrets
)
IMAGE_ANNOTATION: Final = f"{GROUP}/runtime-image"  # of the server's volume: the image that can read what is on it
SECURITY_ANNOTATION: Final = f"{GROUP}/pod-security"  # likewise: who has written it, if not USER, as JSON

SERVER, CLIENT = "server", "client"

_NOBODY: Final = 65532  # "nonroot" of the images; no relation to any user of the node
# Who pods run as, and whose their volumes are, as fields of a pod's securityContext.
USER: Final = {
    "runAsUser": _NOBODY, "runAsGroup": _NOBODY, "fsGroup": _NOBODY, "fsGroupChangePolicy": "OnRootMismatch",
}  # fmt: skip
STATE_FOLDER: Final = "/var/lib/fedjob"  # where a pod has its volume
RUN_FOLDER: Final = f"{STATE_FOLDER}/run"  # what the server leaves for people: as the folder of a local run


@dataclass(frozen=True)
class Kind:
    """A kind of Kubernetes resource. group is "" for the core kinds."""

    name: str
    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        """As in the resource's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "") -> str:
        """Where the API server has one of them (name given), or all of a namespace; namespace "": of all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{place}/{self.plural}" + (f"/{name}" if name else "")


FEDERATED_JOB = Kind("FederatedJob", GROUP, "v1alpha1", "federatedjobs")
SITE_JOB = Kind("SiteJob", GROUP, "v1alpha1", "sitejobs")
POD = Kind("Pod", "", "v1", "pods")
VOLUME_CLAIM = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims")
