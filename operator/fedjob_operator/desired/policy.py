"""The site's word on an assignment: a function of its SitePolicy, the SiteJob and the time.  PURE

No policy, no run. The first rule that fits the job decides; a rule can only be narrower than the floor, which holds for all.
A refusal names everything that is wrong, so that one exchange with the site's administrator is enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from fedjob.api.globs import fits_path

from ..observed import Raw, moment
from ..settings import CA_KEY, CaBundle
from . import approval, floor
from .conditions import FALSE, TRUE, UNKNOWN, State
from .listed import image_fits

_MAX_SHOWN = 200  # characters of a command in a message


def judge(policy: Raw | None, site_job: Raw, now: datetime) -> tuple[State, Raw | None]:
    """The condition Accepted, and the policy's entry for the data that the job names (None if it names none)."""
    spec = site_job["spec"]
    if policy is None:
        return State(UNKNOWN, "NoPolicy", "this namespace has no SitePolicy named default: nothing runs"), None
    rules: Raw = policy["spec"]
    if rules.get("suspend"):
        return State(
            FALSE, "SiteSuspended", "the site takes no jobs at the moment (spec.suspend of the SitePolicy)"
        ), None
    rule, against = _fitting(rules, spec, now)
    if rule is None:
        return State(FALSE, "Refused", "; ".join(against) or "no rule of the policy fits this job"), None
    entry = next((entry for entry in rules.get("data") or () if entry["name"] == spec.get("data")), None)
    if spec.get("data") is not None and entry is None:
        return State(FALSE, "DataNotFound", f"spec.data of the SitePolicy has no entry {spec['data']}"), None
    if rule.get("approval", "Manual") == "Automatic":
        return State(TRUE, "Accepted", f"rule {rule['name']}"), entry
    return approval.word(rule["name"], spec), entry


def authorities(policy: Raw | None) -> CaBundle | None:
    """What the site has its scripts trust, None if it leaves that to the image."""
    named: Raw | None = policy["spec"].get("caBundle") if policy is not None else None
    return CaBundle(named["configMap"], named.get("key", CA_KEY)) if named else None


def pods(policy: Raw | None) -> Raw:
    """What the site has the pods of every job be."""
    found: Raw = policy["spec"].get("pods") or {} if policy is not None else {}
    return found


def scrape_from(policy: Raw | None) -> tuple[str, ...]:
    """Namespaces whose pods may read the metrics of the site's."""
    return tuple((policy["spec"].get("metrics") or {}).get("scrapeFrom") or ()) if policy is not None else ()


def words_stay(policy: Raw | None) -> bool:
    """Whether what a script said last is told to nobody outside."""
    floor: Raw = policy["spec"].get("floor") or {} if policy is not None else {}
    return bool((floor.get("exchange") or {}).get("lastWords") == "ExitCode")


def _fitting(rules: Raw, spec: Raw, now: datetime) -> tuple[Raw | None, list[str]]:
    """The first rule without an objection; the objections of the others, and of the floor."""
    against = list(floor.objections(rules, spec))
    if against:
        return None, against
    for rule in rules.get("rules") or ():
        found = list(_objections(rule, spec, now))
        if not found:
            return rule, []
        against.append(f"rule {rule['name']}: {', '.join(found)}")
    return None, against


def _objections(rule: Raw, spec: Raw, now: datetime) -> Iterator[str]:
    trainer, origin = spec["trainer"], rule.get("from") or {}
    until = moment(rule.get("validUntil"))
    if until is not None and now >= until:
        yield f"ended at {rule['validUntil']}"
    yield from _unlisted("hub", spec["trustDomain"], origin.get("hubs"))
    yield from _unlisted("namespace", spec["job"]["namespace"], origin.get("namespaces"))
    yield from _unlisted("workflow", spec["workflow"]["type"], rule.get("workflows"))
    if spec.get("data") is not None:
        yield from _unlisted("data", spec["data"], rule.get("data"))
    if not any(image_fits(entry, trainer["image"]) for entry in rule.get("images") or ()):
        yield f"image {trainer['image']} is not among images"
    yield from _code(rule, trainer)
    allowed = rule.get("env") or ()
    if refused := [variable["name"] for variable in trainer.get("env") or () if variable["name"] not in allowed]:
        yield f"variables {', '.join(refused)} are not among env"


def _code(rule: Raw, trainer: Raw) -> Iterator[str]:
    """What runs, beside the image: files are code, and so is a command such as python -c TEXT."""
    denied = rule.get("inlineCode", "Deny") != "Allow"
    if trainer.get("files") and denied:
        yield "code inside the job (trainer.files) is denied by inlineCode"
    listed = rule.get("commands")
    if listed is None and not denied:
        return
    if not any(_command_fits(entry, trainer["command"]) for entry in listed or ()):
        given = json.dumps(trainer["command"], ensure_ascii=False)
        shown = given if len(given) <= _MAX_SHOWN else f"{given[:_MAX_SHOWN]}…"
        yield f"trainer.command {shown} is not among commands" + (", as inlineCode: Deny wants it" if denied else "")


def _command_fits(entry: Sequence[str], command: Sequence[str]) -> bool:
    return len(entry) == len(command) and all(map(fits_path, entry, command))


def _unlisted(what: str, value: Any, listed: Any) -> Iterator[str]:
    if listed is not None and value not in listed:
        yield f"{what} {value} is not among {', '.join(map(str, listed)) or 'none'}"
