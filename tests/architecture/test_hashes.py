"""A hash that trust rests on is whole: half of a SHA-256 can be made to collide in minutes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("runtime", "operator") for p in (ROOT / room).rglob("*.py") if p.name != "wire_pb2.py")

# Names of objects, in which the API server's own UID is hashed and whose owner is looked at, and of authorities, which the hub alone makes.
NAMES = {"operator/fedjob_operator/names.py": 1, "operator/fedjob_operator/pki.py": 1}


def cut(source: str) -> int:
    """How often `source` takes a part of a digest in hexadecimal digits."""
    slices = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Slice))
    calls = (n.value for n in slices if isinstance(n.value, ast.Call))
    return sum(isinstance(call.func, ast.Attribute) and call.func.attr in {"hexdigest", "hex"} for call in calls)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_digest_is_cut_but_for_a_name(path: Path) -> None:
    assert cut(path.read_text()) == NAMES.get(str(path.relative_to(ROOT)), 0)


def test_a_planted_one_is_found() -> None:
    assert cut("hashlib.sha256(text).hexdigest()[:16]") == 1
    assert cut("certificate.fingerprint(hashes.SHA256()).hex()[:32]") == 1
