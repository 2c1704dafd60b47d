"""The kinds beside FederatedJob: every field described and bounded, and the rules between fields."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

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
from fedjob.api.reference import resources
from fedjob.api.schema import fields

MODELS = (FederatedJob, JobStatus, FederatedSite, SiteStatus, SiteJob, SiteJobStatus, SitePolicy, PolicyStatus)
REFERENCE = Path(__file__).parents[2] / "docs" / "resource-reference.md"
RULE = {"name": "trial", "images": [{"repository": "registry.example/*"}]}


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "fedjob.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def bounded(node: dict[str, Any]) -> bool:
    match node.get("type"):
        case "string":
            return "maxLength" in node or "enum" in node or "const" in node
        case "integer":
            return "minimum" in node and "maximum" in node
        case "array":
            return "maxItems" in node and bounded(node["items"])
        case "object" if "properties" not in node:
            return "maxProperties" in node and bounded(node["propertyNames"]) and bounded(node["additionalProperties"])
        case "object":
            return node["additionalProperties"] is False
        case kind:
            return kind in ("boolean", "number")


def test_the_checked_in_reference_is_the_generated_one() -> None:
    assert REFERENCE.read_text() == resources(), (
        "run: python -m fedjob.api.reference resources > docs/resource-reference.md"
    )


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_described_and_bounded(model: type[BaseModel]) -> None:
    found = list(fields(inlined(model)))
    assert found
    assert [path for path, node, _ in found if not node["description"].endswith(".")] == []
    assert [path for path, node, _ in found if not bounded(node)] == []


@pytest.mark.parametrize("model", [JobStatus, SiteStatus, SiteJobStatus, PolicyStatus])
def test_a_status_has_no_defaults_so_that_nobody_owns_what_nobody_wrote(model: type[BaseModel]) -> None:
    assert [path for path, node, _ in fields(inlined(model)) if "default" in node] == []


@pytest.mark.parametrize("model", MODELS)
def test_no_reference_is_left_in_an_inlined_schema(model: type[BaseModel]) -> None:
    assert "$ref" not in str(inlined(model))


def test_a_site_takes_no_jobs_until_it_is_approved_and_opened() -> None:
    site = FederatedSite.model_validate(resource("FederatedSite", "hospital-a", {}))
    assert (site.spec.approved, site.spec.allowed_namespaces, site.spec.local.namespace) == (False, (), None)


def test_a_site_is_not_called_as_the_server_is() -> None:
    with pytest.raises(ValidationError, match=r"metadata\.name: allowed: a name other than server"):
        FederatedSite.model_validate(resource("FederatedSite", "server", {}))


def test_a_policy_without_rules_lets_nothing_run_and_a_rule_asks_a_person() -> None:
    policy = SitePolicy.model_validate(resource("SitePolicy", "default", {"rules": [RULE]}))
    assert SitePolicy.model_validate(resource("SitePolicy", "default", {})).spec.rules == ()
    assert (policy.spec.rules[0].approval, policy.spec.rules[0].inline_code, policy.spec.rules[0].env) == (
        "Manual",
        "Deny",
        (),
    )


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("other", {}, r"metadata\.name: allowed: default"),
        ("default", {"rules": [RULE, RULE]}, r"rules\.1\.name: allowed: each rule once"),
        ("default", {"data": [{"name": "a", "claim": "b"}] * 2}, r"data\.1\.name: allowed: each name once"),
        ("default", {"rules": [{"name": "a"}]}, "images"),
        ("default", {"rules": [{**RULE, "commands": [[]]}]}, r"rules\.0\.commands\.0"),
        ("default", {"rules": [{**RULE, "commands": [["python", "*"]]}]}, r"rules\.0\.commands\.0\.1"),
    ],
)
def test_a_policy_that_could_be_misread_is_refused(name: str, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SitePolicy.model_validate(resource("SitePolicy", name, spec))
