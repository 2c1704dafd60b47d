"""Would the tests notice? `make mutants`, or

    python -m mutants.run --only fedjob.chunks,fedjob_operator.lease --sample 100 --seed 7

Changes one thing at a time in a module of modules.toml and runs the tests that stand beside it there. Writes build/mutants.json
and prints a table; a mutant that lives is printed as a diff. What was tried stays in build/mutants/MODULE: the next run tries
what a change of the module has made new, and, where a test has changed, what had lived. It needs mutmut: pip install fedjob[mutants].
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "mutants"

_WORKSPACE = """
[tool.mutmut]
source_paths = ["src/fedjob", "src/fedjob_operator"]
only_mutate = ["src/{path}.py"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
timeout_constant = 30.0
timeout_multiplier = 3.0
use_git_change_detection = false
use_setproctitle = false

[tool.pytest.ini_options]
addopts = "--import-mode=importlib -q -p no:cacheprovider -p no:xdist -p mutants.profile --hypothesis-profile=mutants"
pythonpath = ["tests"]
timeout = 30
markers = ["measure(name): of a measure", "full: at its whole size"]
"""


@dataclass(frozen=True)
class Found:
    """What became of a module's mutants. lived: name -> diff; equivalent: those of them that are argued to be no change."""

    killed: int
    lived: Mapping[str, str]
    equivalent: Mapping[str, str]

    @property
    def all(self) -> int:
        """Mutants tried."""
        return self.killed + len(self.lived) + len(self.equivalent)


def main() -> int:
    """The exit code: 1 if less than nine of ten were killed or argued in a module."""
    tests = tomllib.loads((HERE / "modules.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(tests), metavar="MODULE,…", help="default: all of modules.toml")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="so many of each module, drawn; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    given = parser.parse_args()
    modules = given.only.split(",")
    if unknown := set(modules) - tests.keys():
        parser.error(f"not in {HERE / 'modules.toml'}: {', '.join(sorted(unknown))}")
    argued = tomllib.loads((HERE / "equivalent.toml").read_text())
    found = {}
    for module in modules:
        found[module] = _tried(module, tests[module], argued.get(module, []), given.sample, given.seed)
        sys.stdout.write("".join(f"\n{name}\n{diff}\n" for name, diff in found[module].lived.items()))
        sys.stdout.flush()
    _write(found)
    return int(any(f.killed + len(f.equivalent) < 0.9 * f.all for f in found.values()))


def _tried(module: str, tests: list[str], argued: list[dict[str, str]], sample: int, seed: int) -> Found:
    folder = BUILD / module
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in {"src/fedjob": "runtime/fedjob", "src/fedjob_operator": "operator/fedjob_operator"}.items():
        _link(folder / name, ROOT / target)
    _link(folder / "tests", ROOT / "tests")
    names = [f"tests/{name}" for name in tests]
    (folder / "pyproject.toml").write_text(_WORKSPACE.format(path=module.replace(".", "/"), tests=json.dumps(names)))
    _forget(folder, [ROOT / name for name in names])
    done = subprocess.run(
        [sys.executable, "-m", "mutants.engine", str(sample), str(seed)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,  # a file could grow no more while a test plays a full disk
        stderr=subprocess.STDOUT,
        check=False,
    )
    (folder / "log").write_bytes(done.stdout)
    if done.returncode:
        tail = done.stdout.decode(errors="replace")[-3000:]
        raise SystemExit(f"{tail}\n{module}: mutmut failed; see {folder / 'log'}")
    outcomes = json.loads((folder / "result.json").read_text())
    lived = {name: o["diff"] for name, o in outcomes.items() if o["diff"]}
    equivalent = {name: diff for name, diff in lived.items() if _changed_lines(diff) in map(_argument, argued)}
    return Found(len(outcomes) - len(lived), {n: d for n, d in lived.items() if n not in equivalent}, equivalent)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)


def _forget(folder: Path, tests: list[Path]) -> None:
    """A test that has changed may kill what had lived; and which tests reach which function is found anew."""
    text = hashlib.sha256(b"".join(path.read_bytes() for path in tests)).hexdigest()
    seen = folder / "tests.sha256"
    if seen.exists() and seen.read_text() != text:
        (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        for meta in (folder / "mutants").rglob("*.meta"):
            facts: dict[str, Any] = json.loads(meta.read_text())
            codes = facts["exit_code_by_key"]
            facts["exit_code_by_key"] = {name: code if code == 1 else None for name, code in codes.items()}
            meta.write_text(json.dumps(facts))
    seen.write_text(text)


def _argument(entry: Mapping[str, str]) -> tuple[str, str]:
    return entry["was"], entry["now"]


def _changed_lines(diff: str) -> tuple[str, str]:
    """What the one changed place was, and what it became; lines joined by a space."""
    body = diff.splitlines()[2:]
    return (
        " ".join(line[1:].strip() for line in body if line.startswith("-")),
        " ".join(line[1:].strip() for line in body if line.startswith("+")),
    )


def _write(found: Mapping[str, Found]) -> None:
    path = BUILD.with_suffix(".json")
    facts = json.loads(path.read_text()) if path.exists() else {}
    for module, f in found.items():
        facts[module] = {
            "killed": f.killed,
            "all": f.all,
            "equivalent": sorted(f.equivalent),
            "lived": dict(sorted(f.lived.items())),
        }
    path.write_text(json.dumps(dict(sorted(facts.items())), indent=1))
    out = sys.stdout.write
    out(f"\n{'module':40} killed  argued   lived     all\n")
    for module, f in found.items():
        share = f.killed / f.all if f.all else 1.0
        out(f"{module:40} {f.killed:6} {len(f.equivalent):7} {len(f.lived):7} {f.all:7}  {share:.0%}\n")


if __name__ == "__main__":
    sys.exit(main())
