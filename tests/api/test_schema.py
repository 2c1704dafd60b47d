"""The schema and the reference: generated from the models, complete, and in step with what is checked in."""

from pathlib import Path
from typing import Any

import yaml

from fedjob.api import json_schema
from fedjob.api.reference import markdown
from fedjob.api.schema import fields, resolve

FULL_DOCUMENT = yaml.safe_load((Path(__file__).parent / "full.yaml").read_text())

REFERENCE = Path(__file__).parents[2] / "docs" / "job-reference.md"


def test_the_checked_in_reference_is_the_generated_one() -> None:
    assert REFERENCE.read_text() == markdown(), "run: python -m fedjob.api.reference > docs/job-reference.md"


def test_every_field_says_what_it_means() -> None:
    for path, node, _ in fields():
        assert node["description"].endswith("."), path


def bounded(node: dict[str, Any]) -> bool:
    """Whether a hostile value of this field has a largest size."""
    match node.get("type"):
        case "string":
            return "maxLength" in node or "enum" in node or "const" in node
        case "integer":
            return "minimum" in node and "maximum" in node
        case "array":
            return "maxItems" in node and bounded(resolve(node["items"]))
        case "object" if "properties" not in node:
            return "maxProperties" in node and bounded(node["propertyNames"]) and bounded(node["additionalProperties"])
        case "object":
            return node["additionalProperties"] is False
        case kind:
            return kind in ("boolean", "number")


def test_every_field_is_bounded_and_no_mapping_takes_unknown_fields() -> None:
    assert [path for path, node, _ in fields() if not bounded(node)] == []


def test_names_are_written_in_camel_case_and_nothing_is_null() -> None:
    text = str(json_schema())
    assert "roundTimeoutSeconds" in text
    assert "round_timeout_seconds" not in text
    assert "'null'" not in text


def test_only_what_has_no_good_default_is_required() -> None:
    assert [".".join(map(str, path)) for path, _, required in fields() if required] == [
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "spec",
        "spec.workflow",
        "spec.workflow.rounds",
        "spec.workflow.stopWhen.metric",
        "spec.trainer",
        "spec.trainer.env.[].name",
        "spec.trainer.env.[].value",
        "spec.sites",
        "spec.sites.[].name",
        "spec.sites.[].env.[].name",
        "spec.sites.[].env.[].value",
        "spec.failurePolicy.rules.[].name",
        "spec.failurePolicy.rules.[].onExitCodes.values",
        "spec.failurePolicy.rules.[].action",
    ]


def test_the_document_that_sets_every_field_sets_every_field() -> None:
    known = {path for path, _, _ in fields()}

    def paths(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = {path} & known
        if isinstance(value, dict):
            return found.union(*(paths(inner, (*path, name)) for name, inner in value.items()))
        return found.union(*(paths(inner, (*path, "[]")) for inner in value)) if isinstance(value, list) else found

    assert known - paths(FULL_DOCUMENT) == {("spec", "model", "initial", "path")}
