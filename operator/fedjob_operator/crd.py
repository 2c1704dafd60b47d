"""Prints the CustomResourceDefinitions: `python -m fedjob_operator.crd FOLDER`.  PURE but for the last lines

Fields, bounds, defaults and descriptions come from the models in `fedjob.api`, rules between fields from `crd_rules`. What is
left to this module is the dialect: a structural schema has no references, no constants and no patterns for names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from fedjob.api import (
    FederatedJob,
    FederatedSite,
    JobStatus,
    PolicyStatus,
    SiteJob,
    SiteJobStatus,
    SitePolicy,
    SiteStatus,
    inlined,
)

from . import crd_rules
from .crd_rules import Rule
from .names import FEDERATED_JOB, FEDERATED_SITE, GROUP, SITE_JOB, SITE_POLICY, Kind

Schema = dict[str, Any]

_LARGEST_EXACT: Final = 2**53  # the API server reads bounds as floats; format int64 says the same
_SETS: Final = frozenset({"include", "allowedNamespaces"})
_KEYED: Final = {"conditions": "type", "metrics": "name", "sites": "name", "env": "name", "data": "name"}
_SAYS_ITSELF: Final = "text"  # the title of a string that is bounded by its length alone


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`. wide: only with -o wide. kind: string, integer, boolean or date."""

    name: str
    path: str
    kind: str = "string"
    wide: bool = False


@dataclass(frozen=True)
class Resource:
    """A kind, and what its definition is made from."""

    kind: Kind
    model: type[BaseModel]
    status: type[BaseModel]
    short: str
    rules: Mapping[str, tuple[Rule, ...]]
    columns: tuple[Column, ...]


def _condition(kind: str, what: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{what}'


RESOURCES: Final = (
    Resource(
        FEDERATED_JOB,
        FederatedJob,
        JobStatus,
        "fj",
        crd_rules.JOB,
        (
            Column("State", ".status.state"),
            Column("Round", ".status.progress.completedRounds", "integer"),
            Column("Of", ".spec.workflow.rounds", "integer"),
            Column("Sites", ".status.siteSummary.text"),
            Column("Running", ".status.runningTime", "date"),
            Column("ETA", ".status.progress.etaSeconds", "integer", wide=True),
            Column("Restarts", ".status.server.restarts", "integer", wide=True),
            Column("Degraded", _condition("Degraded"), wide=True),
            Column("Failure", _condition("Failed", "reason"), wide=True),
        ),
    ),
    Resource(
        FEDERATED_SITE,
        FederatedSite,
        SiteStatus,
        "fsite",
        crd_rules.SITE,
        (
            Column("Type", ".spec.type"),
            Column("Approved", ".spec.approved", "boolean"),
            Column("Organisation", ".spec.displayName", wide=True),
        ),
    ),
    Resource(
        SITE_JOB,
        SiteJob,
        SiteJobStatus,
        "sj",
        crd_rules.SITE_JOB,
        (
            Column("Job", ".spec.job.name"),
            Column("From", ".spec.job.namespace"),
            Column("Accepted", _condition("Accepted")),
            Column("Running", _condition("Running")),
            Column("Finished", _condition("Finished", "reason")),
            Column("Restarts", ".status.restarts", "integer"),
            Column("Site", ".spec.site", wide=True),
            Column("Image", ".spec.trainer.image", wide=True),
            Column("Why", _condition("Accepted", "message"), wide=True),
        ),
    ),
    Resource(
        SITE_POLICY,
        SitePolicy,
        PolicyStatus,
        "spol",
        crd_rules.POLICY,
        (
            Column("Suspended", ".spec.suspend", "boolean"),
            Column("Rules", ".spec.rules[*].name", wide=True),
        ),
    ),
)


def definitions() -> dict[str, Schema]:
    """File name and content of each definition."""
    return {f"{resource.kind.plural}.yaml": definition(resource) for resource in RESOURCES}


def definition(resource: Resource) -> Schema:
    """One CustomResourceDefinition."""
    names = {
        "kind": resource.kind.name,
        "listKind": f"{resource.kind.name}List",
        "plural": resource.kind.plural,
        "singular": resource.kind.name.lower(),
        "shortNames": [resource.short],
        "categories": ["fedjob"],
    }
    version = {
        "name": resource.kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema(resource)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in (*resource.columns, _AGE)],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")


def _column(column: Column) -> Schema:
    found: Schema = {"name": column.name, "jsonPath": column.path, "type": column.kind}
    return {**found, "priority": 1} if column.wide else found


def schema(resource: Resource) -> Schema:
    """The structural schema of a resource. Raises ValueError for a rule about a field that does not exist."""
    made = _Structural(resource.rules)
    model = inlined(resource.model)
    status = made.part(
        {**inlined(resource.status), "description": "What has become of it. Written by fedjob."}, "status"
    )
    found = {
        "type": "object",
        "description": model["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this format."},
            "kind": {"type": "string", "description": "Kind of the resource."},
            "metadata": {"type": "object"},  # its fields are Kubernetes' own
            "spec": made.part(model["properties"]["spec"], "spec"),
            "status": status,
        },
        **made.rules(""),
    }
    if unused := resource.rules.keys() - made.used:
        raise ValueError(f"{resource.kind.name} has no field {', '.join(sorted(unused))}, and a rule about it")
    return found


class _Structural:
    """Rewrites a JSON schema; remembers which rules have found their place."""

    def __init__(self, rules: Mapping[str, tuple[Rule, ...]]) -> None:
        self._rules = rules
        self.used: set[str] = set()

    def rules(self, path: str, more: tuple[Rule, ...] = ()) -> Schema:
        """The keyword that carries the rules about the value at `path`; empty without rules."""
        found = (*self._rules.get(path, ()), *more)
        if path in self._rules:
            self.used.add(path)
        told = [{"rule": rule.expression, "message": rule.message} for rule in found]
        return {"x-kubernetes-validations": told} if told else {}

    def part(self, node: Schema, path: str) -> Schema:
        """The schema of the value at `path`."""
        found = {**_KINDS[_kind(node, path)](node), **self._inner(node, path)}
        described = {"description": _description(node)} if "description" in node else {}
        default = {"default": node["default"]} if node.get("default") not in (None, [], {}) else {}
        return {**described, **found, **default, **self.rules(path, tuple(_name_rules(node)))}

    def _inner(self, node: Schema, path: str) -> Schema:
        if "properties" in node:
            required = {"required": node["required"]} if node.get("required") else {}
            fields = {name: self.part(field, f"{path}.{name}") for name, field in node["properties"].items()}
            return {**required, "properties": fields}
        if isinstance(node.get("additionalProperties"), dict):
            return {"additionalProperties": self.part(node["additionalProperties"], f"{path}{{}}")}
        if "items" in node:
            return {"items": self.part(node["items"], f"{path}[]"), **_merging(node, path.rpartition(".")[2])}
        return {}


def _kind(node: Schema, path: str) -> str:
    kind = node.get("type")
    if kind not in _KINDS:
        raise ValueError(f"{path}: a CustomResourceDefinition cannot say {sorted(node)}")
    return str(kind)


def _integer(node: Schema) -> Schema:
    bounds: Schema = {key: node[key] for key in ("minimum", "maximum") if key in node and node[key] < _LARGEST_EXACT}
    return {"type": "integer", "format": "int64", **bounds}


def _string(node: Schema) -> Schema:
    if "const" in node:
        return {"type": "string", "enum": [node["const"]]}
    return {"type": "string", **_only(node, "enum", "minLength", "maxLength", "pattern", "format")}


def _only(node: Schema, *keys: str) -> Schema:
    return {key: node[key] for key in keys if key in node}


_KINDS: Final[Mapping[str, Callable[[Schema], Schema]]] = {
    "boolean": lambda _: {"type": "boolean"},
    "integer": _integer,
    "number": lambda node: {
        "type": "number",
        **_only(node, "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    },
    "string": _string,
    "array": lambda node: {"type": "array", **_only(node, "minItems", "maxItems")},
    "object": lambda node: {"type": "object", **_only(node, "maxProperties")},
}


def _description(node: Schema) -> str:
    """A string's description also says what its pattern allows, for `kubectl explain`."""
    title = node.get("title", _SAYS_ITSELF) if node.get("type") == "string" else _SAYS_ITSELF
    return str(node["description"]) + ("" if title == _SAYS_ITSELF else f" Allowed: {title}.")


def _merging(node: Schema, name: str) -> Schema:
    """How two writers of a list share it: by entry where entries have names, otherwise the list is one value."""
    if name in _SETS:
        return {"x-kubernetes-list-type": "set"}
    if name in _KEYED and "properties" in node["items"]:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [_KEYED[name]]}
    return {"x-kubernetes-list-type": "atomic"}


def _name_rules(node: Schema) -> Iterator[Rule]:
    """A mapping's names are bounded and shaped by a rule, as structural schemas have no keyword for them."""
    names = node.get("propertyNames")
    if names is not None:
        fits = f"size(name) <= {names['maxLength']} && name.matches(r'{names['pattern']}')"
        yield Rule(
            f"self.all(name, {fits})", f"names: allowed: {names['title']}, at most {names['maxLength']} characters"
        )


def text(crd: Schema) -> str:
    """A definition as its file holds it."""
    head = "# Written by `python -m fedjob_operator.crd crds`; a test compares.\n"
    return head + yaml.dump(crd, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=140)


class _Plain(yaml.SafeDumper):
    """Without anchors: people read these files."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


if __name__ == "__main__":
    for name, content in definitions().items():
        Path(sys.argv[1], name).write_text(text(content), encoding="utf-8")
