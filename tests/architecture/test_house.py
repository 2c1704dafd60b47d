"""What the architecture page promises about the house, kept true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("runtime", "operator") for p in (ROOT / room).rglob("*.py") if p.name != "wire_pb2.py")


def test_the_folder_operator_does_not_shadow_the_standard_library() -> None:
    """With the repository first on the path and no site-packages, `operator` is still Python's own."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import collections, json, operator; print(operator.__file__)"
    )
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert str(ROOT) not in out.stdout


def test_no_test_folder_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_importing_fedjob_loads_nothing_heavy() -> None:
    """A script's start, the operator and `fedjob --help` pay only for what they use."""
    code = "import sys, fedjob, fedjob.api; print([m for m in ('grpc', 'numpy', 'torch', 'cryptography', 'plotly') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_messages_on_the_wire_are_those_of_wire_proto(tmp_path: Path) -> None:
    """The checked-in code is what the compiler makes of wire.proto today."""
    subprocess.run([ROOT / "hack" / "proto", sys.executable, tmp_path], check=True)
    for name in ("wire_pb2.py", "wire_pb2.pyi"):
        assert (tmp_path / name).read_text() == (ROOT / "runtime" / "fedjob" / name).read_text()


def test_every_file_in_the_readmes_feature_table_exists() -> None:
    """In its column of tests as well; and each row has both."""
    section = (ROOT / "README.md").read_text().partition("## Where things are\n")[2].partition("\n## ")[0]
    rows = [re.split(r"\s*\|\s*", row)[1:-1] for row in section.splitlines() if row.startswith("|")][2:]
    assert len(rows) > 15
    for _, *columns in rows:
        assert len(columns) == 2
        for column in columns:
            files = re.findall(r"`([^`]+)`", column)
            assert files, column
            assert [f for f in files if not (ROOT / f).is_file()] == []


def test_every_path_that_a_page_names_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = r"`((?:runtime|operator|tests|hack|charts|images|docs|examples|benchmarks|crds)/[\w./-]+\.\w+)`"
    missing = [f"{p.name}: {f}" for p in pages for f in re.findall(named, p.read_text()) if not (ROOT / f).exists()]
    assert [told for told in missing if "build/" not in told] == []


def test_every_test_that_a_page_names_exists() -> None:
    told = re.findall(r"`(tests/[\w./]+\.py)::(test_\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(told) > 10
    assert [(f, test) for f, test in told if f"def {test}(" not in (ROOT / f).read_text()] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    folders = ("docs", "examples", "charts")
    pages = [ROOT / "README.md", *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_dispatched_through_strings(path: Path) -> None:
    """No `__getattr__`, no import by a computed name; a user's own object is the one exception (`initial`)."""
    tree = ast.parse(path.read_text())
    names = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert "__getattr__" not in names
    if path.name != "initial.py":
        assert not calls & {"importlib.import_module", "__import__", "eval", "exec"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_function_fits_a_screen_and_a_file_has_one_subject(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 560
    for n in ast.walk(ast.parse(text)):
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (n.end_lineno or 0) - n.lineno < 60, f"{n.name} at line {n.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_keys_are_closed_to_whom_the_umask_lets_in(path: Path) -> None:
    """Of files that stay, that is: a temporary folder is its process's own."""
    if path.name != "identity.py":
        assert not re.findall(r"0o[67]00\b|mkstemp|NamedTemporaryFile", path.read_text(encoding="utf-8"))
