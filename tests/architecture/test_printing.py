"""Nothing of the program reaches a terminal but through `terminal`, `screen` and the formatters of `logs`, which filter it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAYS_OUT = {"terminal.py", "screen.py", "logs.py"}
# Bytes of files, documents for programs, and processes of their own whose streams end in a file that is filtered when it is shown.
EXEMPT = {
    "runtime/fedjob/reader.py",  # a file's bytes to a program
    "runtime/fedjob/api/reference.py",  # pages made from our own schema
    "runtime/fedjob/refusals.py",  # gRPC's lines, parsed and written anew
    "runtime/fedjob/errors.py",  # of the processes that make the first model: their own words, and a name in the job
    "runtime/fedjob/warden.py",  # to a site's log file
    "operator/fedjob_operator/apicheck.py",  # a check of the installation: our own words
}
_CALLS = {"echo", "secho", "confirm", "prompt", "basicConfig", "StreamHandler"}
SOURCES = sorted(
    p
    for room in ("runtime/fedjob", "operator/fedjob_operator")
    for p in (ROOT / room).rglob("*.py")
    if p.name not in WAYS_OUT and str(p.relative_to(ROOT)) not in EXEMPT
)


def prints(source: str) -> list[str]:
    """Expressions of `source` that put text on a terminal, past the filter."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            way_out = name in ("print", "Console") or ("." in name and name.rpartition(".")[2] in _CALLS)
            if way_out:
                found.append(name)
            if name == "Live" and not any(k.arg == "console" for k in node.keywords):
                found.append(name)
            if (
                name.endswith(".update")
                and any(k.arg == "refresh" for k in node.keywords)
                and "Harmless(" not in ast.unparse(node)
            ):
                found.append(name)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout.write", "sys.stderr.write"):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_prints_past_the_filter(path: Path) -> None:
    assert prints(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "planted",
    [
        "typer.echo(x)",
        "print(x)",
        "Console().print(x)",
        "sys.stdout.write(x)",
        "live.update(view(), refresh=True)",
        "click.secho(x)",
        "logging.basicConfig(level=1)",
        "typer.confirm(x)",
    ],
)
def test_a_new_way_out_is_caught(planted: str) -> None:
    assert prints(planted) != []
