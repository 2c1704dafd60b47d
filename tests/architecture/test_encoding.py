"""Text is UTF-8 whatever the locale: whoever opens a file as text, or reads a process's words, says so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("runtime", "operator", "images", "hack", "examples", "benchmarks")
PROGRAMS = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and (path.suffix == ".py" or path.read_bytes()[:40].startswith((b"#!/usr/bin/env python", b"#!/usr/bin/python")))
)  # fmt: skip
_TEXT = {"read_text", "write_text"}
_NO_PATHS = {"os", "tarfile", "zipfile", "self._spool"}
_PROCESSES = {"run", "Popen", "check_output", "check_call", "call", "getoutput"}


def without_encoding(text: str) -> list[str]:
    """Calls that leave the encoding to the locale."""
    found = []
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {k.arg: k.value for k in call.keywords}
        if "encoding" not in given and (name in _TEXT or _opens_text(call, name, given) or _reads_text(name, given)):
            found.append(f"line {call.lineno}: {ast.unparse(call)[:80]}")
    return found


def _opens_text(call: ast.Call, name: str, given: dict[str | None, ast.expr]) -> bool:
    """Whether it is `open(path, mode)` or `path.open(mode)`; `os.open` and `tarfile.open` are others."""
    if name not in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile"):
        return False
    of_path = isinstance(call.func, ast.Attribute) and name == "open"
    if isinstance(call.func, ast.Attribute) and name == "open" and ast.unparse(call.func.value) in _NO_PATHS:
        return False
    if of_path and call.args and not isinstance(call.args[0], ast.Constant):  # no mode: the open of something else
        return False
    place = 0 if of_path or name.endswith("File") else 1
    mode = given.get("mode") or (call.args[place] if len(call.args) > place else None)
    default = "r" if not name.endswith("File") else "w+b"
    text = mode.value if isinstance(mode, ast.Constant) and isinstance(mode.value, str) else default
    return "b" not in text


def _reads_text(name: str, given: dict[str | None, ast.expr]) -> bool:
    return name in _PROCESSES and bool({"text", "universal_newlines"} & given.keys())


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_program_leaves_the_encoding_of_text_to_the_locale(path: Path) -> None:
    assert without_encoding(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8', encoding='utf-8')", False),
        ("path.write_text(text)", True),
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("path.open()", True),
        ("(folder / 'lock').open('w')", True),
        ("path.open('ab')", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("os.fdopen(fd, 'w')", True),
        ("tempfile.TemporaryFile()", False),
        ("subprocess.run(c, text=True)", True),
        ("subprocess.run(c, text=True, encoding='utf-8')", False),
        ("subprocess.run(c)", False),
    ],
)
def test_the_rule_knows_each_way_to_open_text(call: str, wrong: bool) -> None:
    assert bool(without_encoding(call)) is wrong
