"""What every use of torch must say, or a script's own settings would change what fedjob does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from torch.utils._device import _device_constructors

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("runtime", "operator") for p in (ROOT / room).rglob("*.py") if p.name != "wire_pb2.py")
MAKERS = {maker.__name__ for maker in _device_constructors()}  # those that heed `torch.set_default_device`


def without_device(source: str) -> list[int]:
    """Lines where torch makes a tensor on whatever device the script has chosen as its default."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return [
        n.lineno
        for n in calls
        if isinstance(n.func, ast.Attribute)
        and ast.unparse(n.func.value) == "torch"
        and n.func.attr in MAKERS
        and "device" not in {keyword.arg for keyword in n.keywords}
    ]


def test_the_rule_finds_what_it_is_for() -> None:
    planted = "torch.empty(3)\ntorch.zeros(2, device='cpu')\nx = [torch.tensor(1)]\ntorch.frombuffer(b)\nnp.empty(3)"
    assert without_device(planted) == [1, 3]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_tensor_is_made_on_a_device_that_is_named(path: Path) -> None:
    assert without_device(path.read_text()) == []


def lossy(source: str) -> list[int]:
    """Lines where JSON would turn what it cannot hold into something else."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    return [
        n.lineno
        for n in calls
        if (
            ast.unparse(n.func) in ("json.dump", "json.dumps") and {"default", "skipkeys"} & {k.arg for k in n.keywords}
        )
    ]


def test_the_rule_on_json_finds_what_it_is_for() -> None:
    assert lossy("json.dumps(x)\njson.dumps(x, default=str)\njson.dump(x, f, skipkeys=True)") == [2, 3]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_json_cannot_hold_is_never_turned_into_text(path: Path) -> None:
    if path.name != "logs.py":  # a line of a log is for people
        assert lossy(path.read_text()) == []


@pytest.mark.parametrize("name", ["client", "exchange", "model"])
def test_a_scripts_numbers_are_read_in_one_place(name: str) -> None:
    """`values` knows which things are one number, and names those that are not."""
    tree = ast.parse((ROOT / "runtime" / "fedjob" / f"{name}.py").read_text())
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert not calls & {"float", "complex"}
