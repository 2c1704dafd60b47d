"""The command line, and the one reader of the environment, which gives what a pod knows of itself."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from . import names
from .bounds import ServerBounds, server_bounds
from .desired.authority import LEAST_LIFE
from .quantity import number
from .settings import CA_KEY, HUB, KUBE_DNS, SERVER_LIMITS, SERVER_REQUESTS, SITE, CaBundle, JobPods, Settings, job_pods


@dataclass(frozen=True)
class Ports:
    """Where to listen; 0 for any free one."""

    metrics: int
    reports: int


def _parser() -> argparse.ArgumentParser:
    """The command line; the environment gives what a pod knows of itself."""
    parser = argparse.ArgumentParser("fedjob-operator", description="Reconciles FederatedJobs and SiteJobs.")
    add = parser.add_argument
    add("--namespace", default=os.environ.get("POD_NAMESPACE", "fedjob-system"), help="the operator's own namespace")
    add("--identity", default=os.environ.get("POD_NAME", socket.gethostname()), help="of this replica, in the Lease")
    add("--controllers", default=f"{HUB},{SITE}", help="hub, site or both")
    add("--watch-namespaces", default="", help="names, separated by commas; default: all")
    add("--runtime-image", required=True, help="image of servers, and of scripts that name none")
    add("--trust-domain", default="fedjob.local", help="what identities in certificates begin with")
    add("--hub-url", default="", help="https://host:port where the servers of jobs report; default: nowhere")
    add("--hub-name", default="", help="DNS name in the certificate of that address; default: the host")
    add("--image-pull-secrets", default="", help="names of Secrets for the pods of jobs, separated by commas")
    add("--ca-bundle", default="", help="ConfigMap, where jobs are, of authorities for the code of a first model")
    add("--ca-bundle-key", default=CA_KEY, help="key of that ConfigMap")
    add("--scrape-from", default="", help="namespaces that may read the metrics of jobs' pods, separated by commas")
    add(
        "--dns", type=_peers, default=(KUBE_DNS,), help="name servers of jobs' pods: a JSON list of NetworkPolicy peers"
    )
    add("--dns-ports", type=_ports, default=Settings.dns_ports, help="ports of their pods, separated by commas")
    add(
        "--job-pods",
        type=_job_pods,
        default="{}",
        help="what all pods of jobs have: labels, annotations, security, env, as JSON",
    )
    add(
        "--scrape-annotations",
        choices=("yes", "no"),
        default="yes",
        help="on jobs' pods; no, where a monitor finds them",
    )
    add(
        "--server-requests",
        type=_amounts,
        default=SERVER_REQUESTS,
        help="of servers that say nothing: cpu=100m,memory=512Mi",
    )
    add("--server-limits", type=_amounts, default=SERVER_LIMITS, help="of servers that say nothing: memory=1Gi")
    add("--server-bounds", type=_server_bounds, default="{}", help="what jobs may ask for their servers, as JSON")
    add("--storage-class", default="", help="StorageClass of the servers' volumes; default: the cluster's")
    add("--metrics-port", type=int, default=names.METRICS_PORT)
    add("--reports-port", type=int, default=names.HUB_PORT)
    add("--jobs-at-once", type=int, default=0, help="of one namespace; the others wait their turn; default: all")
    add("--workers", type=int, default=8, help="passes at the same time")
    add("--lease-seconds", type=float, default=10.0, help="life of the Lease")
    add("--resync-seconds", type=float, default=300.0, help="between two lists of everything")
    add("--certificate-seconds", type=float, default=7 * 86_400.0, help="life of the certificates of servers and sites")
    add("--authority-seconds", type=float, default=5 * 365 * 86_400.0, help="life of the hub's authority")
    add("--kubeconfig", default=os.environ.get("KUBECONFIG", ""), help="outside of a pod")
    return parser


def read(arguments: Sequence[str]) -> tuple[Settings, Ports, str]:
    """Settings, ports, and the kubeconfig. Ends the process, with a message that names the option, if one is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    controllers = frozenset(filter(None, given.controllers.split(",")))
    if not controllers or controllers - {HUB, SITE}:
        parser.error(f"--controllers: got {given.controllers!r}, allowed: hub, site or hub,site")
    if given.certificate_seconds < 10 or given.authority_seconds < LEAST_LIFE * given.certificate_seconds:
        parser.error(
            f"--authority-seconds: got {given.authority_seconds:.0f}, allowed: {LEAST_LIFE} times --certificate-seconds "
            f"({given.certificate_seconds:.0f}, at least 10) or more, so that a rotation ends before the authority does"
        )
    host = given.hub_url.partition("://")[2].partition(":")[0].partition("/")[0]
    settings = Settings(
        namespace=given.namespace,
        runtime_image=given.runtime_image,
        identity=given.identity,
        controllers=controllers,
        namespaces=_names(given.watch_namespaces),
        trust_domain=given.trust_domain,
        hub_url=given.hub_url.rstrip("/"),
        hub_name=given.hub_name or host or "fedjob-hub",
        image_pull_secrets=_names(given.image_pull_secrets),
        ca_bundle=CaBundle(given.ca_bundle, given.ca_bundle_key) if given.ca_bundle else None,
        scrape_from=_names(given.scrape_from),
        dns=given.dns,
        dns_ports=given.dns_ports,
        job_pods=given.job_pods,
        scrape_annotations=given.scrape_annotations == "yes",
        server_requests=given.server_requests,
        server_limits=given.server_limits,
        storage_class=given.storage_class,
        bounds=given.server_bounds,
        jobs_at_once=max(given.jobs_at_once, 0),
        workers=given.workers,
        resync_seconds=given.resync_seconds,
        lease_seconds=given.lease_seconds,
        certificate_life=timedelta(seconds=given.certificate_seconds),
        authority_life=timedelta(seconds=given.authority_seconds),
        authority_seconds=min(10.0, given.certificate_seconds / 20),
    )
    return settings, Ports(given.metrics_port, given.reports_port), given.kubeconfig


def _job_pods(text: str) -> JobPods:
    try:
        return job_pods(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _server_bounds(text: str) -> ServerBounds:
    try:
        return server_bounds(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _peers(text: str) -> tuple[dict[str, Any], ...]:
    """Peers of a NetworkPolicy. One without a selector or a block is refused: it would be no peer, or every one."""
    allowed = "a JSON list of mappings with namespaceSelector, podSelector or ipBlock"
    try:
        found = json.loads(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{e}; allowed: {allowed}") from e
    kinds = {"namespaceSelector", "podSelector", "ipBlock"}
    if not isinstance(found, list) or not all(isinstance(one, dict) and one and one.keys() <= kinds for one in found):
        raise argparse.ArgumentTypeError(f"got {text}, allowed: {allowed}")
    return tuple(found)


def _ports(text: str) -> tuple[int, ...]:
    found = tuple(int(entry) if entry.isdecimal() else 0 for entry in text.split(","))
    if not all(0 < port < 65536 for port in found):
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed: ports from 1 to 65535, separated by commas")
    return found


def _amounts(text: str) -> tuple[tuple[str, str], ...]:
    """Resources and amounts: "cpu=100m,memory=512Mi"; "" for none."""
    found = []
    for entry in _names(text):
        name, _, amount = entry.partition("=")
        number(amount)  # a ValueError is what argparse tells of
        found.append((name, amount))
    return tuple(found)
