"""A person's word on an assignment, and what it binds to: everything that was asked, but for what the hub changes by itself.  PURE"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from fedjob.api import SiteJobSpec

from ..observed import Raw
from .conditions import FALSE, TRUE, UNKNOWN, State

_DIGITS = 64  # of a whole SHA-256: whoever writes a job also looks for two that share the digits that are compared

# What the hub changes while a job runs, and no author of a job can: the pause, the count of attempts, the restarts that it forgives
# once rounds went by, and its own authorities, which are rotated. Every other field is judged, also those to come.
_UNJUDGED: dict[str, Any] = {
    "approval": True,
    "suspend": True,
    "authorities": True,
    "job": {"attempt"},
    "restarts": {"forgiven"},
}


def assignment_digest(spec: Raw) -> str:
    """The SHA-256, in 64 hexadecimal digits, of what a person judges in the spec of a SiteJob.

    A value that is the default is left out, so that a field that a later version adds leaves approvals as they are. Raises
    pydantic.ValidationError for a spec that this version does not know.
    """
    judged = SiteJobSpec.model_validate(spec, by_name=False)
    plain = judged.model_dump(exclude_defaults=True, exclude=_UNJUDGED)
    plain["workflow"]["type"] = judged.workflow.type  # each workflow has its own default
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def word(rule: str, spec: Raw) -> State:
    """The condition Accepted of an assignment that the rule of this name leaves to a person."""
    try:
        wanted = assignment_digest(spec)
    except ValidationError as e:
        where = ".".join(map(str, e.errors()[0]["loc"]))
        why = f"spec.{where}: {e.errors()[0]['msg']}; the operators of hub and site must be of one version"
        return State(FALSE, "Refused", f"the assignment cannot be judged: {why}")
    approval: Raw = spec.get("approval") or {}
    given, by = str(approval.get("digest") or ""), approval.get("by") or "a person"
    if given != wanted:
        return State(
            UNKNOWN, "NeedsApproval", f"rule {rule} leaves it to a person{_other(given)}: {_how(wanted, spec)}"
        )
    if approval["decision"] == "Approved":
        return State(TRUE, "Accepted", f"rule {rule}, approved by {by}")
    return State(FALSE, "Denied", f"denied by {by}")


def _other(given: str) -> str:
    if not given:
        return ""
    if len(given) != _DIGITS:
        return f", and spec.approval.digest has {len(given)} of {_DIGITS} digits, which binds to nothing"
    return f", and spec.approval is for {given}: the assignment was changed since"


def _how(wanted: str, spec: Raw) -> str:
    image = spec["trainer"]["image"]
    movable = "" if "@sha256:" in image else f" (image {image} is a tag: whoever may push it can change what runs)"
    return f"set spec.approval to {{decision: Approved, digest: {wanted}}}, or decision: Denied{movable}"
