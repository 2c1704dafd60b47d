"""`spec.model.initial.object`: what a name in the trainer's code may stand for."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedjob.errors import ConfigError
from fedjob.initial import evaluate
from fedjob.stored import open_stored

CODE = """
import numpy as np
import torch

weights = {"w": np.arange(3.0)}

def make():
    return {"w": np.arange(3.0)}

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.arange(3.0))

class Zoo:
    net = Net()

def build():
    return Net()

net = Net()
three = 3

def nothing():
    return None
"""
NUMBER = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A trainer's module that can be imported, under a name of its own."""
    name = f"trainer_{next(NUMBER)}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    "attribute",
    [
        pytest.param("weights", id="a state dict"),
        pytest.param("make", id="a function that makes a state dict"),
        pytest.param("Net", id="a module's class"),
        pytest.param("net", id="a module"),
        pytest.param("build", id="a function that makes a module"),
        pytest.param("Zoo.net", id="a module inside a class"),
    ],
)
def test_a_name_stands_for_a_state_dict(module: str, attribute: str) -> None:
    made = evaluate(f"{module}:{attribute}")
    assert list(made) == ["w"]
    assert torch.as_tensor(made["w"]).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        pytest.param("absent", "has no attribute 'absent'", id="a name that is not there"),
        pytest.param("Zoo.absent", "has no attribute 'absent'", id="a name that is not in the class"),
        pytest.param("three", "gives a int, allowed: a state dict, a module, or", id="a number"),
        pytest.param("nothing", "gives a NoneType, allowed:", id="a function that makes nothing"),
    ],
)
def test_anything_else_is_refused_with_the_field_and_the_name(module: str, attribute: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"spec\.model\.initial\.object '{module}:{attribute}'.*{message}"):
        evaluate(f"{module}:{attribute}")


def test_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="No module named 'no_such_trainer'"):
        evaluate("no_such_trainer:Net")


def run(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedjob.initial", name, "out.safetensors"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_writes_what_the_trainers_code_makes_in_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import numpy as np\nweights = {'layer': {'w': np.arange(3.0)}}\n")
    done = run(tmp_path, "train:weights")
    assert (done.returncode, done.stderr) == (0, "")
    stored = open_stored(tmp_path / "out.safetensors")
    assert stored.read(stored.layout.by_name["layer/w"], 0, 3).tolist() == [0.0, 1.0, 2.0]


def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("weights = {'w': object()}\n")
    done = run(tmp_path, "train:weights")
    assert done.returncode == 2
    assert done.stderr.startswith("w: an object cannot travel")
    assert not (tmp_path / "out.safetensors").exists()
