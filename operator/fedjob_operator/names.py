"""Every name that is seen from outside: kinds, labels, annotations, ports, folders in pods, names of children.  PURE"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

GROUP: Final = "fedjob.dev"
API_VERSION: Final = f"{GROUP}/v1alpha1"

FIELD_MANAGER: Final = f"{GROUP}/operator"  # children, and the part of status that the hub decides
PROGRESS_MANAGER: Final = f"{GROUP}/progress"  # the part of status that a job's server reports

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "fedjob"
JOB_LABEL: Final = f"{GROUP}/job"
UID_LABEL: Final = f"{GROUP}/job-uid"
ROLE_LABEL: Final = f"{GROUP}/role"
SITE_LABEL: Final = f"{GROUP}/site"
RUN_LABEL: Final = f"{GROUP}/run"  # counts the server's or a site's Jobs: 1, 2, …
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
HASH_ANNOTATION: Final = f"{GROUP}/desired-hash"
NOT_AFTER_ANNOTATION: Final = f"{GROUP}/not-after"  # of the certificate in a Secret, for people
# On the authority's Secret: somebody asks for a rotation by a value that is not the last one; which one was begun last; and
# since when every certificate in use agrees with the present step of it.
ROTATE_ANNOTATION: Final = f"{GROUP}/rotate-authority"
ROTATED_ANNOTATION: Final = f"{GROUP}/rotated-authority"
FOLLOWED_ANNOTATION: Final = f"{GROUP}/followed-since"

SERVER, CLIENT = "server", "client"

JOB_PORT: Final = 8443  # a job's server, and the Service before it
HUB_PORT: Final = 8443  # the operator's endpoint for progress
METRICS_PORT: Final = 8080  # of the operator, of servers and of clients
RENDEZVOUS_PORT: Final = 29500  # torchrun between the nodes of one site

USER: Final = 65532  # "nonroot" of the images; no relation to any user of the node

# Folders inside pods. What is written lies below STATE or SCRATCH; the root file system is read-only.
CONFIG_FOLDER: Final = "/etc/fedjob"
TLS_FOLDER: Final = "/var/run/fedjob/tls"
STATE_FOLDER: Final = "/var/lib/fedjob"
CODE_FOLDER: Final = "/opt/fedjob/trainer"
DATA_FOLDER: Final = "/data"
SCRATCH_FOLDER: Final = "/tmp"
CONFIG_FILE: Final = "config.json"
METRICS_LISTEN: Final = f"[::]:{METRICS_PORT}"
TERMINATION_FILE: Final = "/dev/termination-log"


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
FEDERATED_SITE = Kind("FederatedSite", GROUP, "v1alpha1", "federatedsites")
SITE_JOB = Kind("SiteJob", GROUP, "v1alpha1", "sitejobs")
SITE_POLICY = Kind("SitePolicy", GROUP, "v1alpha1", "sitepolicies")
JOB = Kind("Job", "batch", "v1", "jobs")
POD = Kind("Pod", "", "v1", "pods")
SERVICE = Kind("Service", "", "v1", "services")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
SECRET = Kind("Secret", "", "v1", "secrets")
VOLUME_CLAIM = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims")
DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets")
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies")
EVENT = Kind("Event", "", "v1", "events")
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")

KINDS = {
    kind.name: kind
    for kind in (
        FEDERATED_JOB, FEDERATED_SITE, SITE_JOB, SITE_POLICY, JOB, POD, SERVICE, CONFIG_MAP, SECRET, VOLUME_CLAIM,
        DISRUPTION_BUDGET, NETWORK_POLICY, EVENT, LEASE,
    )
}  # fmt: skip


def digest(text: str, length: int = 8) -> str:
    """The first `length` hexadecimal digits of a hash of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def base(job: str, uid: str) -> str:
    """What the names of a job's children begin with: `fj-<job>-<hash of the uid>`, at most 52 characters.

    The hash keeps two jobs of one name apart: one deleted and made again, or in two namespaces and at one site.
    """
    return f"fj-{job}-{digest(uid)}"


def secret(kind: str, name: str, uid: str) -> str:
    """The Secret with the certificate of a FederatedJob's server, or of a SiteJob."""
    return base(name, uid) if kind == FEDERATED_JOB.name else name


def server_job(job: str, uid: str, run: int) -> str:
    """The server's Job number `run`."""
    return f"{base(job, uid)}-s{run}"


def site_job(job: str, uid: str, site: str) -> str:
    """The SiteJob of one site: at most 58 characters, so that its Jobs' names fit in 63."""
    name = f"fj-{job}-{site}"
    return f"{name[:46].rstrip('-')}-{digest(f'{uid}/{site}', 10)}"


def client_job(site_job: str, run: int) -> str:
    """A site's Job number `run`."""
    return f"{site_job}-c{run}"


def spiffe(trust_domain: str, uid: str, site: str | None) -> str:
    """The URI in the certificate of a job's server (site None) or of one of its sites, as `fedjob.identity` writes it."""
    return f"spiffe://{trust_domain}/job/{uid}/" + ("server" if site is None else f"site/{site}")


def service_host(service: str, namespace: str) -> str:
    """DNS name of a Service inside the cluster, without the cluster's own domain, which differs."""
    return f"{service}.{namespace}.svc"
