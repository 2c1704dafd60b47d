"""`fedjob get`: the jobs of a namespace, or of all."""

from __future__ import annotations

import json
from typing import Any

import yaml

from ..api.names import FEDERATED_JOB
from ..terminal import emit, say
from ..text import lines
from . import table
from .connection import Connection
from .jobs import find


async def show(cluster: Connection, name: str | None, output: str, *, everywhere: bool) -> int:
    """One job, or all that there are. output: "" for the table, or wide, json, yaml, name."""
    namespace = "" if everywhere else cluster.namespace
    if output in ("json", "yaml", "name"):
        _print(await _objects(cluster, name, namespace), output)
        return 0
    if name is not None:
        await find(cluster, name)  # says which there are, if this one is not
    path, what = (
        FEDERATED_JOB.path(namespace),
        "list jobs (federatedjobs.fedjob.dev)" + (f" in namespace {namespace}" if namespace else " in all namespaces"),
    )
    query = [("fieldSelector", f"metadata.name={name}")] if name is not None else []
    _, found = await cluster.call("GET", path, what, query=query, accept=table.ACCEPT)
    if not found.get("rows"):
        say(f"no jobs in {f'namespace {namespace}' if namespace else 'any namespace'}", err=True)
        return 0
    say(table.text(table.rows(found, wide=output == "wide", namespaces=everywhere)))
    return 0


async def _objects(cluster: Connection, name: str | None, namespace: str) -> Any:
    if name is not None:
        return await find(cluster, name)
    found = await cluster.get(FEDERATED_JOB.path(namespace), "list jobs (federatedjobs.fedjob.dev)")
    kind = {"apiVersion": FEDERATED_JOB.api_version, "kind": FEDERATED_JOB.name}
    return {"apiVersion": "v1", "kind": "List", "items": [{**kind, **item} for item in found["items"]]}


def _print(found: Any, output: str) -> None:
    items = found["items"] if found["kind"] == "List" else [found]
    for item in items:
        item["metadata"].pop("managedFields", None)
    if output == "json":
        emit(json.dumps(found, indent=2) + "\n")
    elif output == "yaml":
        emit(_yaml(found))
    else:
        for item in items:
            say(f"federatedjob.fedjob.dev/{item['metadata']['name']}")


def _yaml(found: Any) -> str:
    """YAML for people and programs: as it is written, or with every other character escaped where one could not be seen."""
    text: str = yaml.safe_dump(found, sort_keys=False, allow_unicode=True)
    return text if text == lines(text) else str(yaml.safe_dump(found, sort_keys=False))
