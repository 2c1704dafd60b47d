"""Network policies: who may speak with a job's pods, and with whom they may speak.  PURE"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import names
from ..plan import Manifest
from ..settings import Settings
from .meta import Owner, child


def policy(
    name: str,
    owner: Owner,
    tags: Mapping[str, str],
    selector: Mapping[str, str],
    *,
    ingress: Sequence[Mapping[str, Any]],
    egress: Sequence[Mapping[str, Any]],
) -> Manifest:
    """A policy for the pods that `selector` finds: nothing but what is listed, in either direction."""
    spec = {
        "podSelector": {"matchLabels": dict(selector)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": list(ingress),
        "egress": list(egress),
    }
    return child(names.NETWORK_POLICY, name, owner, tags, spec=spec)


def scraping(namespaces: Sequence[str]) -> list[dict[str, Any]]:
    """The ingress rule for the namespaces that may read metrics; none without any."""
    peers = [namespace(name) for name in namespaces]
    return [{"from": peers, "ports": [tcp(names.METRICS_PORT)]}] if peers else []


def tcp(port: int) -> dict[str, Any]:
    """A port."""
    return {"protocol": "TCP", "port": port}


def dns(settings: Settings) -> list[dict[str, Any]]:
    """The egress rule for name servers; none without any, as a rule for nobody would be one for everybody."""
    ports = [{"protocol": protocol, "port": port} for port in settings.dns_ports for protocol in ("UDP", "TCP")]
    return [{"to": [dict(peer) for peer in settings.dns], "ports": ports}] if settings.dns else []


def namespace(name: str) -> dict[str, Any]:
    """All pods of a namespace, as a peer."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
