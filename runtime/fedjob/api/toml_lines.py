"""On which lines of a TOML file its values stand: tomllib does not tell.  PURE

Read beside the parser, from a text that it has taken: headers of tables, and the key before each `=` at the beginning of a line.
What stands inside a value, such as a table in a list, has the line of that value.
"""

import re
from collections import Counter
from collections.abc import Iterator

from fedjob.api.problems import Spot
from fedjob.api.schema import FieldPath

_PART = r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'"""
_NAME = rf"(?:{_PART})(?:[ \t]*\.[ \t]*(?:{_PART}))*"
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_NAME})[ \t]*\]")
_KEY = re.compile(rf"[ \t]*({_NAME})[ \t]*=")
# The rest of a text of several lines up to its closing quotes, which one or two more may stand before.
_REST_OF_BASIC = re.compile(r"""(?:[^\\]|\\.)*?"{3,5}""")
_REST_OF_LITERAL = re.compile(r".*?'{3,5}")
_SKIPPED = re.compile(r"""\"""|'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|#|[\[\]{}]""")


def toml_spots(text: str) -> dict[FieldPath, Spot]:
    """The line of each table and key. text: valid TOML."""
    spots: dict[FieldPath, Spot] = {}
    entries: Counter[FieldPath] = Counter()
    table: FieldPath = ()
    for number, line in _beginnings(text):
        if header := _HEADER.match(line):
            table = _within(entries, _path(header[2]))
            if header[1] == "[[":
                entries[table] += 1
                table = (*table, entries[table] - 1)
        elif key := _KEY.match(line):
            spots.setdefault((*table, *_path(key[1])), Spot(number))
            continue
        spots.setdefault(table, Spot(number))
    return spots


def _path(name: str) -> FieldPath:
    return tuple(part.strip("\"'") for part in re.findall(_PART, name))


def _within(entries: Counter[FieldPath], path: FieldPath) -> FieldPath:
    """The place of a table: below the newest entry of each list of tables on its way."""
    place: FieldPath = ()
    for step in path:
        if entries[place]:
            place = (*place, entries[place] - 1)
        place = (*place, step)
    return place


def _beginnings(text: str) -> Iterator[tuple[int, str]]:
    """Lines that begin outside of every value, with their numbers."""
    quote, depth = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not quote and not depth:
            yield number, line
        at, header = 0, not quote and not depth and _HEADER.match(line)
        if header:
            continue
        while at < len(line):
            if quote:
                end = _end(line, quote, at)
                if end < 0:
                    break
                quote, at = "", end
                continue
            found = _SKIPPED.search(line, at)
            if not found or found[0] == "#":
                break
            at = found.end()
            if found[0] in ('"""', "'''"):
                quote = found[0]
            elif found[0] in "[{":
                depth += 1
            elif found[0] in "]}":
                depth -= 1


def _end(line: str, quote: str, start: int) -> int:
    """Behind the closing quotes of a text of several lines, -1 if they are not on this line."""
    basic = quote == '"""'
    closed = _REST_OF_BASIC.match(line, start) if basic else _REST_OF_LITERAL.match(line, start)
    return closed.end() if closed else -1
