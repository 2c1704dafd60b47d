"""What is wrong with a job file, one line for each problem: the place, what was given, what is allowed."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fedjob.api.fields import RULES_BROKEN, Broken
from fedjob.api.schema import FieldPath, Schema, allowed, fields, find, fits, is_key
from fedjob.text import one_line

MAX_PROBLEMS = 20  # lines that a person reads; the rest is counted
MAX_SHOWN = 60  # characters of a value that was given
WRONG_KIND, UNKNOWN, MISSING, WRONG = range(4)  # what a reader should mend first

CONSEQUENCE = "default_factory_not_called"  # follows from a problem that is reported by itself
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Spot:
    """Where in the file a value stands: its line, from 1, and its text if it is written without quotes."""

    line: int
    text: str | None = None


@dataclass(frozen=True)
class Problem:
    """One problem. line and column count from 1; path is the field's, camelCase; either may be unknown."""

    message: str
    path: FieldPath = ()
    line: int | None = None
    column: int | None = None


class JobFileError(ValueError):
    """A job file that cannot be used. Its text has one line for each problem, the most important first.

    source: the file's name as the user gave it. problems: at most MAX_PROBLEMS. more: how many there are beyond them.
    """

    def __init__(self, source: str, problems: Sequence[Problem], more: int = 0) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = [_line(source, problem) for problem in problems]
        super().__init__("\n".join([*lines, *([f"{one_line(source)}: and {more} more"] if more else [])]))


def _line(source: str, problem: Problem) -> str:
    place = ":".join([one_line(source), *(str(number) for number in (problem.line, problem.column) if number)])
    return ": ".join([place, *([dotted(problem.path)] if problem.path else []), problem.message])


def dotted(path: FieldPath) -> str:
    """A path as people write it: `spec.sites[0].name`, `spec.trainer.files["my file.py"]`."""
    text = ""
    for step in path:
        if isinstance(step, str) and _PLAIN_NAME.fullmatch(step) and len(step) <= MAX_SHOWN:
            text += f".{step}"
        else:
            text += f"[{shown(step)}]"
    return text.removeprefix(".")


def shown(value: object) -> str:
    """A value as it would stand in a file, shortened; a long list or mapping by its size."""
    match value:
        case None:
            return "nothing"
        case str():
            text = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
            return json.dumps(text, ensure_ascii=one_line(text) != text)
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**MAX_SHOWN:
            return f"a number of more than {MAX_SHOWN} digits"
        case Mapping():
            return f"a mapping of {len(value)}"
        case list() | tuple() if len(value) <= 4 and not any(isinstance(entry, Mapping | list) for entry in value):
            return f"[{', '.join(shown(entry) for entry in value)}]"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return one_line(str(value))[:MAX_SHOWN]


def from_validation(error: ValidationError, source: str, spots: Mapping[FieldPath, Spot]) -> JobFileError:
    """What to tell of pydantic's `error`, the most important problem first.

    spots: where the values of the document stand, as far as that is known.
    """
    found = [details for details in error.errors(include_url=False) if not _follows(details)]
    if any(_rank(details) == WRONG_KIND for details in found):  # its other fields are none of our business
        found = [details for details in found if _rank(details) == WRONG_KIND]
    found.sort(key=lambda details: (_rank(details), _line_of(details["loc"], spots) or 0))
    told = [problem for details in found[:MAX_PROBLEMS] for problem in _problems(details, spots)]
    return JobFileError(source, told[:MAX_PROBLEMS], len(found[MAX_PROBLEMS:]) + len(told[MAX_PROBLEMS:]))


def _follows(details: ErrorDetails) -> bool:
    """Whether this only follows from a problem that is reported by itself: a list is long enough but for its invalid entries."""
    long_enough = details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]
    return details["type"] == CONSEQUENCE or long_enough


def _rank(details: ErrorDetails) -> int:
    if details["type"] == "extra_forbidden":
        return UNKNOWN
    if details["type"] == "missing":
        return MISSING
    return WRONG_KIND if details["loc"] in (("apiVersion",), ("kind",)) else WRONG


def _problems(details: ErrorDetails, spots: Mapping[FieldPath, Spot]) -> list[Problem]:
    path: FieldPath = details["loc"]
    if details["type"] == RULES_BROKEN:
        return [_rule(path, rule, spots) for rule in details["ctx"]["broken"]]
    line = _line_of(path, spots)
    if details["type"] == "extra_forbidden":
        return [Problem(_unknown(path), path, line)]
    node = find(path)
    phrase = allowed(node) if node else details["msg"]
    if details["type"] == "missing":
        return [Problem(f"missing, allowed: {phrase}", path, line)]
    place = path[:-1] if is_key(path) else path
    given = _given(details["input"], spots.get(place))
    return [Problem(f"got {given}, allowed: {phrase}{_hint(node, details['input'], given)}", place, line)]


def _rule(start: FieldPath, rule: Broken, spots: Mapping[FieldPath, Spot]) -> Problem:
    path = (*start, *rule.path)
    given = "missing" if rule.given is None else f"got {_given(rule.given, spots.get(path))}"
    return Problem(f"{given}, allowed: {rule.allowed}", path, _line_of(path, spots))


def _line_of(path: FieldPath, spots: Mapping[FieldPath, Spot]) -> int | None:
    """The line of the value at `path`, or of the nearest value around it."""
    return next((spots[path[:end]].line for end in range(len(path), -1, -1) if path[:end] in spots), None)


def _given(value: object, spot: Spot | None) -> str:
    if spot and spot.text and not isinstance(value, str):
        return one_line(spot.text[:MAX_SHOWN])
    return shown(value)


def _hint(node: Schema | None, value: object, given: str) -> str:
    """What to change, where a value of the wrong type shows what was meant."""
    wanted = node.get("type") if node else None
    if wanted in ("integer", "number") and isinstance(value, str) and re.fullmatch(r"-?[0-9][0-9.eE+-]*", value):
        return ", without quotes"
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        return ", without a decimal point"
    if wanted == "boolean" and isinstance(value, str) and value in ("true", "false"):
        return ", without quotes"
    if wanted == "string" and isinstance(value, bool | int | float) and "quotes" not in allowed(node or {}):
        return ", in quotes" if fits(node, given) else ""  # what it does not fit, it fits no better in quotes
    return ""


def _unknown(path: FieldPath) -> str:
    """What to say of a field that does not exist: the field that was probably meant, else what there is."""
    name, parent = str(path[-1]), find(path[:-1]) or {}
    names = list(parent.get("properties", ()))
    folded = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.7)
    if close:
        return f"unknown field, did you mean {folded[close[0]]}?"
    elsewhere = [known for known, _, _ in fields() if known[-1] == name]
    if len(elsewhere) == 1:
        return f"unknown field, did you mean {'.'.join(map(str, elsewhere[0])).replace('.[]', '[]')}?"
    return f"unknown field, allowed: {', '.join(names)}"
