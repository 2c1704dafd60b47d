"""Every name that is seen from outside: kinds, labels, annotations, ports, folders in pods, names of children.  PURE"""

from __future__ import annotations

import hashlib
from typing import Final

# isort: off
from fedjob.api.names import (
    CLIENT as CLIENT,
    FEDERATED_JOB as FEDERATED_JOB,
    GROUP as GROUP,
    IMAGE_ANNOTATION as IMAGE_ANNOTATION,
    JOB_LABEL as JOB_LABEL,
    PLACEMENT_ANNOTATION as PLACEMENT_ANNOTATION,
    POD as POD,
    ROLE_LABEL as ROLE_LABEL,
    RUN_FOLDER as RUN_FOLDER,
    RUN_LABEL as RUN_LABEL,
    SECURITY_ANNOTATION as SECURITY_ANNOTATION,
    SERVER as SERVER,
    SITE_JOB as SITE_JOB,
    SITE_LABEL as SITE_LABEL,
    STATE_FOLDER as STATE_FOLDER,
    UID_LABEL as UID_LABEL,
    USER as USER,
    VOLUME_CLAIM as VOLUME_CLAIM,
    Kind as Kind,
)
# isort: on

API_VERSION: Final = f"{GROUP}/v1alpha1"

FIELD_MANAGER: Final = f"{GROUP}/operator"  # children, and the part of status that the hub decides
PROGRESS_MANAGER: Final = f"{GROUP}/progress"  # the part of status that a job's server reports

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "fedjob"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
METRICS_LABEL: Final = f"{GROUP}/metrics"  # of pods whose metrics may be read
HASH_ANNOTATION: Final = f"{GROUP}/desired-hash"
NOT_AFTER_ANNOTATION: Final = f"{GROUP}/not-after"  # of the certificate in a Secret, for people
# On the authority's Secret: somebody asks for a rotation by a value that is not the last one; which one was begun last; and
# since when every certificate in use agrees with the present step of it.
ROTATE_ANNOTATION: Final = f"{GROUP}/rotate-authority"
ROTATED_ANNOTATION: Final = f"{GROUP}/rotated-authority"
FOLLOWED_ANNOTATION: Final = f"{GROUP}/followed-since"

JOB_PORT: Final = 8443  # a job's server, and the Service before it
HUB_PORT: Final = 8443  # the operator's endpoint for progress
METRICS_PORT: Final = 8080  # of the operator, of servers and of clients
RENDEZVOUS_PORT: Final = 29500  # torchrun between the nodes of one site

# Folders inside pods. What is written lies below STATE or SCRATCH; the root file system is read-only.
CONFIG_FOLDER: Final = "/etc/fedjob"
TLS_FOLDER: Final = "/var/run/fedjob/tls"
CODE_FOLDER: Final = "/opt/fedjob/trainer"
DATA_FOLDER: Final = "/data"
SCRATCH_FOLDER: Final = "/tmp"
FIRST_FOLDER: Final = "/var/lib/fedjob-first"  # where a job's code leaves the first model
CA_FOLDER: Final = "/etc/fedjob-ca"
CA_FILE: Final = "ca.crt"  # in CA_FOLDER, whatever its key is called
CONFIG_FILE: Final = "config.json"
METRICS_LISTEN: Final = f"[::]:{METRICS_PORT}"
TERMINATION_FILE: Final = "/dev/termination-log"


FEDERATED_SITE = Kind("FederatedSite", GROUP, "v1alpha1", "federatedsites")
SITE_POLICY = Kind("SitePolicy", GROUP, "v1alpha1", "sitepolicies")
JOB = Kind("Job", "batch", "v1", "jobs")
SERVICE = Kind("Service", "", "v1", "services")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
SECRET = Kind("Secret", "", "v1", "secrets")
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
