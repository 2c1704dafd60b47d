"""The operator's role is what it needs, no less (the other tests run with it) and no more (this one, after them)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]

# Rights that the audit log does not show: a patch that makes an object needs the right to create it, and owner references with
# blockOwnerDeletion need the finalizers where OwnerReferencesPermissionEnforcement is on.
APPLIED = {
    "configmaps", "networkpolicies", "persistentvolumeclaims", "poddisruptionbudgets", "secrets", "services", "sitejobs",
}  # fmt: skip
SILENT = {
    ("update", "federatedjobs/finalizers"),
    ("update", "sitejobs/finalizers"),
    *(("create", kind) for kind in APPLIED),
}


def test_no_right_is_granted_that_is_never_used(plane: Any) -> None:
    granted = set()
    for role in yaml.safe_load_all((ROOT / "operator" / "role.yaml").read_text()):
        for rule in role["rules"]:
            granted |= {(verb, resource) for verb in rule["verbs"] for resource in rule["resources"]}
    used = set()
    for event in (*plane.audit("operator"), *plane.audit("limited")):
        there = event.get("objectRef") or {}
        if "resource" in there:
            sub = f"/{there['subresource']}" if there.get("subresource") else ""
            used.add((event["verb"], there["resource"] + sub))
    assert "*" not in str(granted)
    assert granted - used - SILENT == set()
    refused = {e["requestURI"] for e in plane.audit("operator") if e.get("responseStatus", {}).get("code") == 403}
    assert refused == set()
