"""What has happened, posted as Kubernetes events, for `kubectl describe` and `kubectl get events`."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from . import names
from .cluster import ApiError, Cluster
from .metrics import Metrics
from .observed import Raw
from .plan import Event, digest

log = logging.getLogger(__name__)


async def tell(cluster: Cluster, metrics: Metrics, raw: Raw, event: Event) -> None:
    """Post an event about an object, or log it. Its name follows from what it says of which version, so a repeated try posts it once."""
    metadata, now = raw["metadata"], datetime.now(UTC)
    kind = "Warning" if event.warning else "Normal"
    mark = digest(
        {"uid": metadata["uid"], "version": metadata["resourceVersion"], "text": [event.reason, event.message]}
    )
    body = {
        "apiVersion": names.EVENT.api_version,
        "kind": names.EVENT.name,
        "metadata": {"name": f"{metadata['name']}.{mark}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": raw["apiVersion"], "kind": raw["kind"], "name": metadata["name"],
            "namespace": metadata["namespace"], "uid": metadata["uid"],
        },
        "type": kind,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": "fedjob-operator"},
        "firstTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "count": 1,
    }  # fmt: skip
    try:
        await cluster.record(body)
    except ApiError as e:  # it tells what the status says already: no reason to fail
        log.warning("an event is lost", extra={"reason": event.reason, "text": event.message, "error": str(e)})
    else:
        metrics.events.labels(kind, event.reason).inc()
