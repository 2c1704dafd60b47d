"""Processes are started in few places: each has an owner that ends them, and a warden or a deadline for when the owner dies."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTERS = {
    "runtime/fedjob/supervision.py": "server and scripts, each behind the warden",
    "runtime/fedjob/warden.py": "what it watches, and ends with all that came of it",
    "runtime/fedjob/local.py": "the first model's code, which is waited for and has a deadline",
}
_OF_OS = ("exec", "fork", "popen", "posix_spawn", "spawn", "startfile", "system")
_CALLS = {"Popen", "create_subprocess_exec", "create_subprocess_shell", "check_call", "check_output", "getoutput"}
SOURCES = sorted(p for room in ("runtime/fedjob", "operator/fedjob_operator") for p in (ROOT / room).rglob("*.py"))


def starts(source: str) -> list[str]:
    """Expressions that start a process, or a pool of them."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
            found += [m for m in modules if m.partition(".")[0] == "multiprocessing" or m == "ProcessPoolExecutor"]
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        of_os = owner == "os" and name.startswith(_OF_OS)
        if (
            of_os
            or name in _CALLS
            or (owner, name) in {("subprocess", "run"), ("subprocess", "call"), ("pty", "spawn")}
        ):
            found.append(f"{owner}.{name}")
    return found


def test_only_those_that_see_to_their_end_start_processes() -> None:
    found = {str(p.relative_to(ROOT)) for p in SOURCES if starts(p.read_text("utf-8"))}
    assert found == STARTERS.keys()


@pytest.mark.parametrize(
    "planted",
    [
        "subprocess.Popen(command)",
        "subprocess.run(command)",
        "os.fork()",
        "os.execvp(a, b)",
        "os.posix_spawn(a, b, c)",
        "import multiprocessing",
        "from multiprocessing.pool import Pool",
        "from concurrent.futures import ProcessPoolExecutor",
        "await asyncio.create_subprocess_exec(a)",
    ],
)
def test_a_new_place_is_found(planted: str) -> None:
    assert starts(planted)


@pytest.mark.parametrize("innocent", ["workflow.run()", "import threading", "os.path.join(a)", "os.kill(pid, 9)"])
def test_nothing_else_is_taken_for_one(innocent: str) -> None:
    assert not starts(innocent)
