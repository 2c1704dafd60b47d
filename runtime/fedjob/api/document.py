"""The text of a job file as plain values, with the line of each: YAML, JSON or TOML.

YAML is read from the parser's events, not by PyYAML's loader, for three reasons. A job file means the same here and
on a cluster, so where YAML 1.1 and other readers disagree (010, 1:30, 0x10, dates, merge keys) the text is refused or taken
as a string. Every value keeps its line. And nothing is built before depth, size and aliases have been counted.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from fedjob.api.problems import JobFileError, Problem, Spot, shown
from fedjob.api.schema import FieldPath, Schema, allowed, find, fits
from fedjob.api.toml_lines import toml_spots
from fedjob.text import one_line

MAX_DEPTH = 32  # the deepest field lies at 7
MAX_DOTS = 256  # in one name of a TOML file; generous, as text inside a string is counted as well
MAX_VALUES = 100_000  # 256 sites with 64 variables each take 66,000

Spots = dict[FieldPath, Spot]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq")} | {None, "!"}
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"}
_FALSE = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
# PyYAML itself takes 1e-3, without a point, for a string; a cluster takes it for a number.
FLOAT = re.compile(
    r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
AMBIGUOUS = re.compile(r"[-+]?([0-9][0-9_]*|0[xX][0-9a-fA-F_]+|0o[0-7_]+|0[bB][01_]+|[0-9]+(:[0-9]+)+)")


def read_yaml(text: str, source: str) -> tuple[object, Spots]:
    """The one document in `text`, and the place of each value. Raises JobFileError."""
    reader = _YamlReader(text, source)
    try:
        return reader.document(), reader.spots
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        if mark and _character(text, mark) == "\t":
            what = "got a tab, allowed: spaces, for indentation and before a value"
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise JobFileError(source, [Problem(f"not valid YAML: {one_line(what)}", (), line, column)]) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        what = str(error).splitlines()[0] if str(error) else "a character that YAML does not allow"
        raise JobFileError(source, [Problem(f"not valid YAML: {one_line(what)}")]) from None


def _character(text: str, mark: Any) -> str:
    lines = text.splitlines()
    return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""


def read_json(text: str, source: str) -> tuple[object, Spots]:
    """The document in `text`, and the place of each value where that can be told. Raises JobFileError."""
    twice: list[str] = []

    def mapping(pairs: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) < len(pairs):
            twice.extend(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        return values

    try:
        document = json.loads(text, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        raise JobFileError(source, [Problem(f"not valid JSON: {error.msg}", (), error.lineno, error.colno)]) from None
    except RecursionError:
        raise JobFileError(source, [_too_deep()]) from None
    except ValueError:  # an integer of thousands of digits
        raise JobFileError(source, [Problem("got a number of thousands of digits, allowed: fewer")]) from None
    _check_size(document, source)
    try:
        _, spots = read_yaml(
            text, source
        )  # JSON is YAML, nearly: good for lines, and for the path of a field given twice
    except JobFileError as error:
        if twice:
            raise error if error.problems[0].path else _given_twice(source, sorted(twice)[0]) from None
        spots = {}
    if twice:
        raise _given_twice(source, sorted(twice)[0])
    return document, spots


def read_toml(text: str, source: str) -> tuple[object, Spots]:
    """The document in `text`, and the lines of its values, as far as they are told by tables and keys. Raises JobFileError."""
    _check_names(text, source)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line, column = str(error), None, None
        if place := re.search(r" \(at line (\d+), column (\d+)\)$", message):
            message, line, column = message[: place.start()], int(place[1]), int(place[2])
        raise JobFileError(source, [Problem(f"not valid TOML: {one_line(message)}", (), line, column)]) from None
    except RecursionError:
        raise JobFileError(source, [_too_deep()]) from None
    except ValueError as error:  # an impossible date, an integer of thousands of digits
        raise JobFileError(source, [Problem(f"not valid TOML: {one_line(str(error))}")]) from None
    _check_size(document, source)
    return document, toml_spots(text)


def _check_names(text: str, source: str) -> None:
    """Refuse names of very many parts first: the time that tomllib takes grows with the square of their number."""
    for number, line in enumerate(text.split("\n"), 1):
        if any(part.count(".") > MAX_DOTS for part in line.split("=")):
            raise JobFileError(source, [_too_deep(number)])


READERS = {".yaml": read_yaml, ".yml": read_yaml, ".json": read_json, ".toml": read_toml}


def _given_twice(source: str, name: str) -> JobFileError:
    return JobFileError(source, [Problem(f"the field {shown(name)} is given twice, allowed: once")])


def _too_deep(line: int | None = None) -> Problem:
    return Problem(f"nested too deep, allowed: at most {MAX_DEPTH} levels", (), line)


def _too_many(line: int | None = None) -> Problem:
    return Problem(f"too many values, aliases expanded, allowed: at most {MAX_VALUES}", (), line)


def _check_size(document: object, source: str) -> None:
    """Refuse what is too deep or too large, without recursion."""
    level, depth, seen = [document], 0, 0
    while level:
        depth, seen = depth + 1, seen + len(level)
        if depth > MAX_DEPTH:
            raise JobFileError(source, [_too_deep()])
        if seen > MAX_VALUES:
            raise JobFileError(source, [_too_many()])
        level = [child for value in level for child in _children(value)]


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _instead_of(text: str, node: Schema | None) -> str:
    """What to write in place of a number that YAML reads in more than one way; in quotes only where that is allowed then."""
    if node is not None and not fits(node, text):
        return allowed(node)
    return "a plain decimal number, or text in quotes"


class _YamlReader:
    """Builds the values of one YAML document from the parser's events."""

    def __init__(self, text: str, source: str) -> None:
        self.spots: Spots = {}
        self._source = source
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._anchors: dict[str, tuple[object, int]] = {}  # value, and how many values it stands for
        self._values = 0

    def document(self) -> object:
        """The document's value, None for an empty text."""
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), (), 1, None)
        next(self._events)  # the end of the document
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._fail("a second document, allowed: one job in a file", (), after)
        return value

    def _value(self, event: Any, path: FieldPath, depth: int, key: Any) -> object:
        """The value that begins with `event`. key: the event of its name in a mapping, where its line is taken from."""
        text = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else None
        self.spots[path] = Spot((key or event).start_mark.line + 1, text)
        before = self._values
        self._count(1, event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if event.tag not in _STANDARD_TAGS:
            self._fail(f"got the tag {shown(event.tag)}, allowed: no tags", path, event)
        if depth > MAX_DEPTH:
            raise JobFileError(self._source, [_too_deep(event.start_mark.line + 1)])
        value: object
        match event:
            case yaml.ScalarEvent():
                value = self._scalar(event, path)
            case yaml.SequenceStartEvent():
                value = self._sequence(path, depth)
            case _:
                value = self._mapping(path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise JobFileError(self._source, [_too_many(event.start_mark.line + 1)])

    def _alias(self, event: Any, path: FieldPath) -> object:
        if event.anchor not in self._anchors:
            self._fail(
                f"got the alias *{event.anchor}, allowed: an alias of a value that is complete above", path, event
            )
        value, size = self._anchors[event.anchor]
        self._count(size, event)
        return value

    def _sequence(self, path: FieldPath, depth: int) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, len(values)), depth + 1, None))
        return values

    def _mapping(self, path: FieldPath, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            name = self._name(key, path)
            if name in values:
                first = self.spots[*path, name].line
                self._fail(f"given twice, first on line {first}, allowed: once", (*path, name), key)
            values[name] = self._value(next(self._events), (*path, name), depth + 1, key)
        return values

    def _name(self, event: Any, path: FieldPath) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag not in _STANDARD_TAGS:
            self._fail("got a name that is not plain text, allowed: text", path, event)
        if event.implicit[0] and event.value == "<<":
            self._fail("got a merge key <<, allowed: every field written out", path, event)
        name = self._scalar(event, path)
        if not isinstance(name, str):
            self._fail(f"got {one_line(event.value) or 'nothing'} as a name, allowed: text, in quotes", path, event)
        return name

    def _scalar(self, event: Any, path: FieldPath) -> object:
        text: str = event.value
        if not event.implicit[0]:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INT.fullmatch(text) and len(text) <= 1000:
            return int(text)
        if FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if _INT.fullmatch(text) or AMBIGUOUS.fullmatch(text):
            self._fail(f"got {shown(text)[1:-1]}, allowed: {_instead_of(text, find(path))}", path, event)
        return text

    def _fail(self, message: str, path: FieldPath, event: Any) -> NoReturn:
        raise JobFileError(self._source, [Problem(message, path, event.start_mark.line + 1)])
