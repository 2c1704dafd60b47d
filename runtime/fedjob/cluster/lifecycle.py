"""Sending a job to a cluster, pausing it, and taking it away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..api.names import FEDERATED_JOB
from ..terminal import say
from .connection import APPLY, FIELD_MANAGER, MERGE, Connection
from .failures import ApiFailure, ClusterError
from .jobs import Raw, find, verdict
from .running import EXIT_USAGE, program
from .submission import code_text
from .view import line


async def submitted(cluster: Connection, document: dict[str, Any]) -> Raw:
    """Send a job, and say what was done and what can be done next."""
    job, done = await _apply(cluster, document)
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    call = f"{{}} {name} -n {namespace}"
    say(f"federatedjob.fedjob.dev/{name} {done} in namespace {namespace}")
    say(f"code   {code_text(document)}")
    for word, command, option in (("watch", "status", " --watch"), ("logs", "logs", " -f"), ("model", "download", "")):
        say(f"{word:<6} {program()} {call.format(command)}{option}")
    return job


async def _apply(cluster: Connection, document: dict[str, Any]) -> tuple[Raw, str]:
    """Send a job; returns it and what was done: created, configured, unchanged. One that has ended is not sent again."""
    metadata = document["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    before = await _there(cluster, namespace, name)
    if before is not None and (end := verdict(before)) is not None:
        how = "is complete" if end[0] else "has failed"
        raise ClusterError(
            f"{name} in namespace {namespace} is there already and {how}: give the new one another metadata.name, or remove the "
            f"old one with its model: {program()} cancel {name} -n {namespace}"
        )
    what = f"send the job {name} to namespace {namespace} (create and patch federatedjobs.fedjob.dev)"
    query = [("fieldManager", FIELD_MANAGER), ("force", "true"), ("fieldValidation", "Strict")]
    status, job = await cluster.call(
        "PATCH", FEDERATED_JOB.path(namespace, name), what, query=query, body=document, content=APPLY
    )
    if status == 201 or before is None:
        return job, "created"
    same = before["metadata"]["generation"] == job["metadata"]["generation"]
    return job, "unchanged" if same else "configured"


async def _there(cluster: Connection, namespace: str, name: str) -> Raw | None:
    try:
        what = f"get the job {name} in namespace {namespace} (federatedjobs.fedjob.dev)"
        found: Raw = await cluster.get(FEDERATED_JOB.path(namespace, name), what)
    except ApiFailure as e:
        if e.status != 404 or e.no_such_kind:
            raise
        return None
    return found


async def pause(cluster: Connection, name: str, *, suspend: bool) -> int:
    """Set spec.suspend, and say what follows."""
    job = await find(cluster, name)
    if (end := verdict(job)) is not None:
        raise ClusterError(f"{name} has ended ({end[1]}): there is nothing to {'suspend' if suspend else 'resume'}")
    namespace, there = job["metadata"]["namespace"], bool(job["spec"].get("suspend"))
    if there == suspend:
        say(f"{name} {'is paused already' if suspend else 'is not paused'}")
        return 0
    what = f"change the job {name} in namespace {namespace} (patch federatedjobs.fedjob.dev)"
    # The version makes it this job's spec, and not that of one made under its name a moment later.
    body = {"metadata": {"uid": job["metadata"]["uid"]}, "spec": {"suspend": suspend}}
    path, query = FEDERATED_JOB.path(namespace, name), [("fieldManager", FIELD_MANAGER)]
    await cluster.call("PATCH", path, what, query=query, body=body, content=MERGE)
    say(_paused(job, name, namespace) if suspend else f"{name} goes on; {program()} status {name} -n {namespace} -w")
    return 0


def _paused(job: Raw, name: str, namespace: str) -> str:
    running = ((job.get("status") or {}).get("progress") or {}).get("state") == "Running"
    first = "finishes its running round, then has no pods" if running else "has no pods from now on"
    return f"{name} {first}; its state stays: {program()} resume {name} -n {namespace}"


async def delete(cluster: Connection, name: str, confirm: Callable[[str], bool]) -> int:
    """Delete the job that is there now, once it is confirmed that all of it may go."""
    job = await find(cluster, name)
    namespace = job["metadata"]["namespace"]
    if not confirm(_loss(job, name, namespace)):
        say(f"{name} stays as it is", err=True)
        return EXIT_USAGE
    what = f"delete the job {name} in namespace {namespace} (delete federatedjobs.fedjob.dev)"
    options = {"propagationPolicy": "Background", "preconditions": {"uid": job["metadata"]["uid"]}}
    try:
        await cluster.call("DELETE", FEDERATED_JOB.path(namespace, name), what, body=options)
    except ApiFailure as e:
        if e.status not in (404, 409):  # gone, or another one by now: either way this one is no more
            raise
    say(f"federatedjob.fedjob.dev/{name} deleted from namespace {namespace}; its pods end within half a minute")
    return 0


def _loss(job: Raw, name: str, namespace: str) -> str:
    """What goes with a job, and how to keep it."""
    end = verdict(job)
    if end is None:
        keep = f"to pause it instead: {program()} suspend {name} -n {namespace}"
        return f"{name} in namespace {namespace} ({line(job)}) is deleted with its state and cannot go on; {keep}"
    if end[0]:
        keep = f"{program()} download {name} -n {namespace} keeps the model"
        return f"{name} in namespace {namespace} is complete; its model and report are deleted with it; {keep}"
    return f"{name} in namespace {namespace} has failed; its report is deleted with it"
