"""FederatedJobs on a cluster: finding one, following one, and what has become of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..api.names import FEDERATED_JOB
from .connection import Connection
from .failures import ApiFailure, ClusterError, StreamCut, Unreachable, not_found

Raw = Mapping[str, Any]

_PATIENCE_SECONDS = 60.0  # without an answer, before a watch gives up
_PAUSE_SECONDS = 1.0
_WATCH_SECONDS = 240


async def find(cluster: Connection, name: str) -> Raw:
    """The job of this name in the connection's namespace. Raises ClusterError that names near ones."""
    what = f"get the job {name} in namespace {cluster.namespace} (federatedjobs.fedjob.dev)"
    try:
        job: Raw = await cluster.get(FEDERATED_JOB.path(cluster.namespace, name), what)
    except ApiFailure as e:
        if e.status != 404 or e.no_such_kind:
            raise
        there = await _names(cluster, cluster.namespace)
        elsewhere = {namespace for namespace, other in await _names(cluster, "") if other == name}
        raise ClusterError(
            not_found(name, cluster.namespace, [other for _, other in there], elsewhere - {cluster.namespace})
        ) from None
    return job


async def _names(cluster: Connection, namespace: str) -> list[tuple[str, str]]:
    """Namespace and name of the jobs there; none if they may not be listed."""
    try:
        found = await cluster.get(FEDERATED_JOB.path(namespace), "list jobs", [("limit", "500")])
    except ApiFailure:
        return []
    return [(raw["metadata"]["namespace"], raw["metadata"]["name"]) for raw in found["items"]]


async def changes(cluster: Connection, job: Raw) -> AsyncIterator[Raw]:
    """The job as it is, and again at each change, until it is deleted. A connection that is lost is made anew.

    Raises Unreachable or ApiFailure if the cluster is away for a minute.
    """
    latest: Raw | None = job
    while latest is not None:
        yield latest
        try:
            async for news in _news(cluster, latest):
                if news is None:
                    return
                latest = news
                yield latest
        except (StreamCut, Unreachable):
            await asyncio.sleep(_PAUSE_SECONDS)
        except ApiFailure as e:
            if not e.passing:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        latest = await _again(cluster, latest)


async def _news(cluster: Connection, job: Raw) -> AsyncIterator[Raw | None]:
    """Each version that is newer than this one, None once it is deleted; ends whenever the API server ends the watch."""
    metadata = job["metadata"]
    query = [
        ("watch", "true"),
        ("fieldSelector", f"metadata.name={metadata['name']}"),
        ("resourceVersion", metadata["resourceVersion"]),
        ("timeoutSeconds", str(_WATCH_SECONDS)),
    ]
    path, what = FEDERATED_JOB.path(metadata["namespace"]), "watch jobs (federatedjobs.fedjob.dev)"
    try:
        async for line in cluster.lines(path, what, query):
            event = json.loads(line)
            if event["type"] == "ERROR":  # the version is too old by now
                return
            yield None if event["type"] == "DELETED" else event["object"]
    except ApiFailure as e:
        if e.status != 410:
            raise


async def _again(cluster: Connection, job: Raw) -> Raw | None:
    """The job as it is now, None if it is gone, or if another one has its name. Asked for a minute, if need be."""
    metadata, loop = job["metadata"], asyncio.get_running_loop()
    path, until = FEDERATED_JOB.path(metadata["namespace"], metadata["name"]), loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            now: Raw = await cluster.get(path, "get the job")
        except (ApiFailure, Unreachable) as e:
            if isinstance(e, ApiFailure) and e.status == 404:
                return None
            if loop.time() > until or (isinstance(e, ApiFailure) and not e.passing):
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return now if now["metadata"]["uid"] == metadata["uid"] else None


def verdict(job: Raw) -> tuple[bool, str] | None:
    """Whether the job is complete, and its last word; None while it has not ended."""
    for kind in ("Complete", "Failed"):
        found = condition(job, kind)
        if found.get("status") == "True":
            text = ": ".join(filter(None, (str(found.get("reason") or ""), str(found.get("message") or ""))))
            return kind == "Complete", text
    return None


def condition(job: Raw, kind: str) -> Raw:
    """A condition of the job, empty if it is not there."""
    found = (job.get("status") or {}).get("conditions") or ()
    return next((entry for entry in found if entry["type"] == kind), {})
