"""The operator's own settings: a frozen record, so that pure code may take it as an argument."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from .bounds import ServerBounds

HUB, SITE = "hub", "site"
CA_KEY = "ca.crt"
# About 128 MiB and 20 MiB for each site, whatever the model's size: enough for 44; what is read and written lies in the page cache besides.
SERVER_REQUESTS = (("cpu", "100m"), ("memory", "512Mi"))
SERVER_LIMITS = (("memory", "1Gi"),)


@dataclass(frozen=True)
class CaBundle:
    """Certificates in PEM, under a key of a ConfigMap in the pod's namespace."""

    config_map: str
    key: str = CA_KEY


KUBE_DNS: Mapping[str, Any] = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
"""Where most clusters have their name servers, as a peer of a NetworkPolicy."""


@dataclass(frozen=True)
class JobPods:
    """What all pods of jobs have, as the cluster asks for it.

    labels, annotations: besides the operator's own. security: fields of the pod's securityContext that say who it runs as; None: the
    user of the images, 65532. variables: of scripts and of the code that makes a first model; a job's own go before them.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    security: Mapping[str, Any] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def job_pods(text: str) -> JobPods:
    """From JSON: `labels`, `annotations`, `security`, and `env`, a list of name and value. Raises ValueError for anything else."""
    try:
        given = json.loads(text)
        variables = {entry["name"]: str(entry["value"]) for entry in given.pop("env", ())}
        found = JobPods(**given, variables=variables)
        if not all(isinstance(part, dict) for part in (found.labels, found.annotations, found.security or {})):
            raise TypeError("labels, annotations and security are maps")
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ValueError(
            f'got {text!r}, allowed: JSON such as {{"labels": {{"team": "a"}}, "env": [{{"name": "N", "value": "V"}}]}} ({e})'
        ) from None
    return found


@dataclass(frozen=True)
class Settings:
    """How this operator was installed. Times are in seconds unless the type says otherwise.

    namespace: the operator's own: its Lease, its authority, the FederatedSites. namespaces: those it looks after; empty: all.
    hub_url: where jobs' servers report; "" for nowhere. hub_name: the DNS name in the hub's own certificate.
    image_pull_secrets: of jobs' pods, in the pods' own namespaces. ca_bundle: for the code that makes a first model, in the
    namespaces of jobs. scrape_from: namespaces that may read the metrics of jobs' pods. scrape_annotations: whether those carry
    annotations that a Prometheus without monitors looks for. dns: the name servers that jobs' pods may ask, as peers of a
    NetworkPolicy, and dns_ports those of their pods. server_requests, server_limits: of the servers of jobs that do not say; pairs of resource and amount.
    storage_class: of their volumes, "" for the cluster's. bounds: what jobs may ask for their servers. jobs_at_once: of one namespace, 0 without a bound.
    """

    namespace: str
    runtime_image: str
    identity: str
    controllers: frozenset[str] = frozenset({HUB, SITE})
    namespaces: tuple[str, ...] = ()
    trust_domain: str = "fedjob.local"
    hub_url: str = ""
    hub_name: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    ca_bundle: CaBundle | None = None
    scrape_from: tuple[str, ...] = ()
    dns: tuple[Mapping[str, Any], ...] = (KUBE_DNS,)
    dns_ports: tuple[int, ...] = (53,)
    job_pods: JobPods = field(default_factory=JobPods)
    jobs_at_once: int = 0
    scrape_annotations: bool = True
    server_requests: tuple[tuple[str, str], ...] = SERVER_REQUESTS
    server_limits: tuple[tuple[str, str], ...] = SERVER_LIMITS
    storage_class: str = ""
    bounds: ServerBounds = field(default_factory=ServerBounds)
    workers: int = 8
    resync_seconds: float = 300.0
    lease_seconds: float = 10.0
    authority_life: timedelta = timedelta(days=5 * 365)
    certificate_life: timedelta = timedelta(days=7)
    authority_seconds: float = 10.0  # between two looks at the authority's Secret
    node_lost_seconds: int = 30
    finish_grace_seconds: float = 60.0
