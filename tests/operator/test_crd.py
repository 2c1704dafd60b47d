"""The printed CustomResourceDefinitions: in step with the models, structural, small enough, and with rules that find their fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedjob_operator.crd import RESOURCES, Resource, definition, definitions, schema, text
from fedjob_operator.crd_rules import Rule

ROOT = Path(__file__).parents[2]
MAX_BYTES = 70_000  # applied and read by every client; far below what etcd takes

every_kind = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind.name)


def test_the_checked_in_definitions_are_the_printed_ones() -> None:
    there = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert there == {name: text(content) for name, content in definitions().items()}, (
        "run: python -m fedjob_operator.crd crds"
    )


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its path."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in node:
            yield from nodes(node[keyword], f"{path}[]")


@every_kind
def test_a_schema_is_structural(resource: Resource) -> None:
    for path, node in nodes(schema(resource)):
        assert node.get("type") in ("object", "array", "string", "integer", "number", "boolean"), path
        assert not node.keys() & {"$ref", "$defs", "anyOf", "oneOf", "const", "title", "propertyNames"}, path
        assert "x-kubernetes-preserve-unknown-fields" not in node, path


@every_kind
def test_every_field_is_described_and_every_list_and_text_is_bounded(resource: Resource) -> None:
    for path, node in nodes(schema(resource)):
        if path in ("", ".apiVersion", ".kind", ".metadata"):
            continue
        match node["type"]:
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "array":
                assert "maxItems" in node, path
            case "object":
                assert "properties" in node or "maxProperties" in node, path
        if not path.endswith("[]"):
            assert node["description"], path


@every_kind
def test_a_definition_is_small_and_tells_how_things_stand(resource: Resource) -> None:
    printed = definition(resource)
    assert len(text(printed)) < MAX_BYTES
    version = printed["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    assert [column["name"] for column in version["additionalPrinterColumns"]][-1] == "Age"
    assert printed["spec"]["names"]["categories"] == ["fedjob"]


@every_kind
def test_the_columns_read_fields_that_exist(resource: Resource) -> None:
    known = {path.replace("[]", "") for path, _ in nodes(schema(resource))}
    for column in (*resource.columns,):
        path = column.path.partition("[?")[0].replace("[*]", "")
        assert path in known, column.name


def test_a_rule_about_a_field_that_does_not_exist_is_an_error() -> None:
    job = RESOURCES[0]
    wrong = dataclasses.replace(job, rules={**job.rules, "spec.nothing": (Rule("true", "never"),)})
    with pytest.raises(ValueError, match=r"FederatedJob has no field spec\.nothing"):
        schema(wrong)


def test_a_definition_read_back_is_what_was_printed() -> None:
    for content in definitions().values():
        assert yaml.safe_load(text(content)) == content
