"""Patterns that come from a person are matched by `fedjob.api.globs` alone, which does not backtrack."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("runtime", "operator") for p in (ROOT / room).rglob("*.py") if p.name != "wire_pb2.py")

_COMPILES = frozenset({"compile", "fullmatch", "match", "search", "findall", "finditer", "split", "sub", "subn"})
_BACKTRACKS = frozenset({"fnmatch"})


def computed_patterns(source: str) -> list[str]:
    """What `source` does that may backtrack over text from outside: a regular expression that is no constant, fnmatch, PurePath.match."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in {"re", *_BACKTRACKS}:
            found.append(f"line {node.lineno}: from {node.module} import")
        if isinstance(node, ast.Import):
            found += [f"line {node.lineno}: import {name.name}" for name in node.names if name.name in _BACKTRACKS]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        is_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
        constant = bool(node.args) and _is_constant(node.args[0])
        if is_re and node.func.attr in _COMPILES and not constant:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if node.func.attr in {"match", "full_match"} and not is_re and not _is_constant_regex(node.func.value):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def _is_constant(pattern: ast.expr) -> bool:
    """Whether an expression stands in the source as a whole: a text, a constant of the module, or a text with such constants in it."""
    if isinstance(pattern, ast.JoinedStr):
        return all(_is_constant(v.value if isinstance(v, ast.FormattedValue) else v) for v in pattern.values)
    return isinstance(pattern, ast.Constant) or _is_constant_regex(pattern)


def _is_constant_regex(value: ast.expr) -> bool:
    """Whether the name is written as a constant of a module is: those hold expressions that stand in the source."""
    return isinstance(value, ast.Name) and value.id.isupper()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_pattern_from_outside_is_matched_by_backtracking(path: Path) -> None:
    assert computed_patterns(path.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import re\nre.fullmatch('.*'.join(parts), text)",
        "import re\nre.compile(pattern)",
        "import re\nre.compile(f'{_PART}{pattern}')",
        "from re import compile",
        "import fnmatch",
        "from fnmatch import fnmatchcase",
        "path.match(pattern)",
    ],
)
def test_a_planted_one_is_found(planted: str) -> None:
    assert computed_patterns(planted)
