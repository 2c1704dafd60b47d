"""What the README gives people to use works as it stands there: its loop, its job, its commands, and the wheel it names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from fedjob.api import validate

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# What the loop takes for granted: a model, its training and its score.
GIVEN = """
import numpy as np

class MyNet:
    def __init__(self):
        self.weights = {"w": np.zeros(3, np.float32)}
    def state_dict(self):
        return dict(self.weights)
    def load_state_dict(self, state):
        self.weights = dict(state)

def train(model):
    model.weights["w"] = model.weights["w"] + 1

def evaluate(model):
    return float(model.weights["w"][0]) / 10

dataset = range(4)
"""


def block(language: str, begin: str) -> str:
    """The block of the page that begins so."""
    [found] = [b for b in re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S) if b.startswith(begin)]
    return str(found)


def test_the_loop_and_the_job_of_the_page_make_a_model(tmp_path: Path) -> None:
    job = block("yaml", "apiVersion: fedjob.dev")
    assert validate(yaml.safe_load(job)).spec.workflow.rounds == 10
    (tmp_path / "job.yaml").write_text(job.replace("rounds: 10", "rounds: 2"))
    (tmp_path / "train.py").write_text(GIVEN + block("python", "import fedjob"))
    command = [sys.executable, "-m", "fedjob.cli.main", "run", "job.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [model] = (tmp_path / "runs").glob("my-model-*/model.safetensors")
    assert np.array_equal(load_file(model)["w"], np.full(3, 2, np.float32))
    rounds = [json.loads(line) for line in model.with_name("history.jsonl").read_text().splitlines()]
    assert [r["metrics"]["accuracy"] for r in rounds if r.get("kind", "Train") == "Train"] == [0.0, pytest.approx(0.1)]


def test_a_wheel_has_all_that_the_commands_read(tmp_path: Path) -> None:
    """As `make wheel` builds it, but for the isolated environment."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    [wheel] = tmp_path.glob("fedjob-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in (("runtime", "fedjob"), ("operator", "fedjob_operator")):
        source = ROOT / folder
        found = {str(path.relative_to(source)) for path in (source / package).rglob("*") if path.is_file()}
        wanted = {path for path in found if path.endswith((".py", ".j2", ".proto", ".pyi", "py.typed", ".css", ".js"))}
        assert wanted - inside == set()
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True)
    program = "import sys; sys.path.insert(0, sys.argv[1]); import fedjob; print(fedjob.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", program, str(target)], capture_output=True, text=True, check=True
    ).stdout
    assert Path(told.strip()).is_relative_to(target)
