"""What is printed from code is printed from today's code."""

from __future__ import annotations

from pathlib import Path

from fedjob.api.reasons import tables

ROOT = Path(__file__).parents[2]


def test_the_table_of_reasons_is_the_one_of_the_code() -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    printed = page.partition("<!-- printed by fedjob.api.reasons -->\n")[2].partition("<!-- end -->")[0]
    assert printed.strip() == tables().strip()
