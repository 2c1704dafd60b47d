"""A page that says by which test something is shown names one that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
NAMED = sorted(
    {
        (page.name, *found)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for found in _NAMED.findall(page.read_text("utf-8"))
    }
)


@cache
def defined_in(file: str) -> set[str]:
    """Names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("page", "file", "test"), NAMED)
def test_a_test_that_a_page_names_exists(page: str, file: str, test: str) -> None:
    assert (ROOT / file).is_file(), page
    assert not test or test in defined_in(file), page


def test_pages_name_tests() -> None:
    assert len(NAMED) > 25
