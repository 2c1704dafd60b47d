"""What differs between a job and the job of the attempt before, and what that means for a run that goes on.  PURE"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .api import FederatedJob

_ROUNDS = "spec.workflow.rounds"
_SHOWN_CHARACTERS = 60
# What the state on the disk was made with: the checkpoint, the answers of the running round, the first model.
_FIXED = ("spec.model", "spec.workflow.type")
_CONTENTS = "spec.trainer.files."  # too long to show


@dataclass(frozen=True)
class Change:
    """A field that differs. effect: what follows, a clause. refused: the run cannot go on with it."""

    field: str
    before: str
    after: str
    effect: str
    refused: bool = False

    @property
    def text(self) -> str:
        """One line, for people."""
        return f"{self.field}: {self.before} -> {self.after}: {self.effect}"


def changes(before: FederatedJob, after: FederatedJob, completed_rounds: int) -> list[Change]:
    """Every field that differs, in the order of the job file; completed_rounds: of the run that is to go on."""
    old, new = (dict(_fields(job.model_dump(mode="json", by_alias=True, exclude_none=True))) for job in (before, after))
    names = [*old, *(name for name in new if name not in old)]
    differ = [name for name in names if old.get(name) != new.get(name)]
    whole = tuple(f"{name}." for name in differ if name.endswith("]"))  # a site that is new has fields, all of them new
    return [_change(name, old, new, completed_rounds) for name in differ if not name.startswith(whole)]


def _change(name: str, old: Mapping[str, Any], new: Mapping[str, Any], completed: int) -> Change:
    before, after = (_shown(name, values) for values in (old, new))
    if name == _ROUNDS:
        rounds = int(new[name])
        if rounds < completed:
            effect = f"{completed} rounds are complete already and cannot be undone; set it to {completed} or more"
            return Change(name, before, after, effect, refused=True)
        left = rounds - completed
        return Change(name, before, after, f"{completed} are complete, {left} are left" if left else "all are complete")
    if any(name == fixed or name.startswith(f"{fixed}.") for fixed in _FIXED):
        return Change(name, before, after, "the model of this run was made with the former", refused=True)
    if name.startswith("spec.sites["):
        return Change(name, before, after, _of_site(name, old, new))
    return Change(name, before, after, "applies from now on")


def _of_site(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if name in old and name in new:
        return "applies from now on"
    if name.endswith("]"):
        return "takes part from now on" if name in new else "takes no part any more; completed rounds keep its share"
    return "applies from now on"


def _shown(name: str, values: Mapping[str, Any]) -> str:
    if name not in values:
        return "none"
    if name.startswith(_CONTENTS):
        return f"{len(values[name])} characters"
    text = "present" if values[name] == {} else str(values[name])
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of a document with its path; members of a list that have names go by these."""
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from _fields(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and all(isinstance(member, dict) and "name" in member for member in value):
        for member in value:
            at = f"{path}[{member['name']}]"
            yield at, {}  # that there is one
            yield from _fields({k: v for k, v in member.items() if k != "name"}, at)
    else:
        yield path, value
