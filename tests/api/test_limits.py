"""The table of limits: in step with its page, and each of its lines in force somewhere."""

from pathlib import Path

from fedjob.api import limits
from fedjob.api.reference import limits as page

ROOT = Path(__file__).parents[2]


def test_the_checked_in_page_is_the_generated_one() -> None:
    assert (ROOT / "docs/limits.md").read_text(encoding="utf-8") == page(), (
        "run: python -m fedjob.api.reference limits > docs/limits.md"
    )


def test_every_limit_is_used_by_code_outside_the_table() -> None:
    table = ROOT / "runtime/fedjob/api/limits.py"
    sources = [f for room in ("runtime", "operator") for f in (ROOT / room).rglob("*.py") if f != table]
    code = "\n".join(f.read_text(encoding="utf-8") for f in sources)
    names = [name for name, value in vars(limits).items() if isinstance(value, limits.Limit)]
    assert names
    assert [name for name in names if f"{name}.value" not in code] == []


def test_every_limit_says_why_and_what_happens_beyond() -> None:
    assert [limit.what for limit in limits.table() if not (limit.value > 0 and limit.reason and limit.beyond)] == []
