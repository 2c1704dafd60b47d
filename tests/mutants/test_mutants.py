"""The lists that `make mutants` works from name what is there."""

from __future__ import annotations

import tomllib
from pathlib import Path

from mutants.run import HERE, ROOT, Found, _changed_lines

MODULES = tomllib.loads((HERE / "modules.toml").read_text())


def _source(module: str) -> Path:
    room = "operator" if module.startswith("fedjob_operator") else "runtime"
    return ROOT / room / f"{module.replace('.', '/')}.py"


def test_every_module_and_every_test_file_exists() -> None:
    assert [m for m in MODULES if not _source(m).exists()] == []
    assert [t for tests in MODULES.values() for t in tests if not (ROOT / "tests" / t).exists()] == []


def test_an_argued_mutant_is_of_a_line_that_is_still_there() -> None:
    for module, entries in tomllib.loads((HERE / "equivalent.toml").read_text()).items():
        text = " ".join(_source(module).read_text().split())
        for entry in entries:
            assert " ".join(entry["was"].split()) in text, f"{module}: {entry['was']}"
            assert len(entry["why"]) > 20, f"{module}: {entry['was']}: no argument"


def test_a_mutant_is_named_by_its_line_before_and_after() -> None:
    diff = "--- a\n+++ a\n@@ -1,3 +1,3 @@\n def f(x):\n-    return x + 1\n+    return x - 1\n"
    assert _changed_lines(diff) == ("return x + 1", "return x - 1")
    assert Found(killed=3, lived={"a": diff}, equivalent={"b": diff}).all == 5
