"""A file is written in few places: what must outlive a loss of power goes through `stored` and `files`, the rest is said here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITERS = {
    "runtime/fedjob/stored.py": "forced to disk before it takes its name",
    "runtime/fedjob/server.py": "the published model, by `files.sync_file`; the word to the kubelet, for a process that lives",
    "runtime/fedjob/journal.py": "for a process that is killed; a loss of power costs answers, which are asked again",
    "runtime/fedjob/records.py": "history is forced to disk with the state (`checkpoint`); the status is written again at once",
    "runtime/fedjob/spool.py": "chunks of an answer: each has a digest, and what is damaged is asked again",
    "runtime/fedjob/exchange.py": "a site's kept state, for a process that is killed",
    "runtime/fedjob/config.py": "of a run that is being started",
    "runtime/fedjob/site_folder.py": "of a run that is being started",
    "runtime/fedjob/local.py": "of a run that is being started: a lock, an empty file",
    "runtime/fedjob/identity.py": "keys of a local run; those of a cluster are in Secrets",
    "runtime/fedjob/report.py": "a page that the next report makes again",
    "runtime/fedjob/supervision.py": "logs",
    "runtime/fedjob/refusals.py": "the terminal",
    "runtime/fedjob/terminal.py": "/dev/null",
    "runtime/fedjob/cluster/results.py": "copies of what a cluster has",
    "runtime/fedjob/cluster/download.py": "a copy of what a cluster has, checked by its digest",
    "operator/fedjob_operator/crd.py": "the resource definitions, for the repository",
}
_METHODS = {"write_text", "write_bytes", "touch", "rename"}
SOURCES = sorted(p for room in ("runtime/fedjob", "operator/fedjob_operator") for p in (ROOT / room).rglob("*.py"))


def writes(source: str) -> list[str]:
    """Expressions that make, change or name a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        values = [*node.args, *(k.value for k in node.keywords)]
        modes = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
        opened = name in ("open", "fdopen") and (
            any(set(mode) & set("wax+") and len(mode) <= 3 for mode in modes)
            or any(flag in ast.unparse(v) for v in values for flag in ("O_WRONLY", "O_RDWR", "O_CREAT"))
        )
        moved = owner in ("os", "shutil") and name in ("replace", "rename", "link", "copyfile", "copy", "move")
        if opened or moved or name in _METHODS:
            found.append(ast.unparse(node.func))
    return found


def test_files_are_written_only_where_it_is_said_what_becomes_of_them_when_power_is_lost() -> None:
    found = {str(p.relative_to(ROOT)) for p in SOURCES if writes(p.read_text("utf-8"))}
    assert found == WRITERS.keys()


@pytest.mark.parametrize(
    "planted",
    [
        "path.write_text(text)",
        "open(path, 'w')",
        "path.open(mode='ab')",
        "os.open(path, os.O_RDWR | os.O_CREAT)",
        "os.fdopen(fd, 'wb')",
        "os.replace(a, b)",
        "temporary.rename(path)",
        "shutil.copyfile(a, b)",
        "(folder / name).touch()",
    ],
)
def test_a_new_place_is_found(planted: str) -> None:
    assert writes(planted)


@pytest.mark.parametrize("innocent", ["path.open('rb')", "os.open(path, os.O_RDONLY)", "text.replace('a', 'b')"])
def test_nothing_else_is_taken_for_one(innocent: str) -> None:
    assert not writes(innocent)
