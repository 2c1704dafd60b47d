"""Tensors arrive as torch's where the sender had torch's: late or not, whatever the script's default device is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedjob.codec import Inflow, flatten

TREE: Any = {
    "w": torch.arange(6.0).reshape(2, 3).t(),
    "tied": torch.ones(2),
    "h": torch.ones(3, dtype=torch.bfloat16),
    "n": torch.tensor(3),
}


def file_of(tree: Any) -> bytes:
    outflow = flatten(tree)
    return bytes(outflow.read(0, outflow.layout.size))


def received(data: bytes) -> Any:
    inflow = Inflow()
    inflow.write(data)
    return inflow.tree()


def test_the_default_device_does_not_matter() -> None:
    """ "meta" stands for any device but the processor."""
    before = file_of(TREE)
    with torch.device("meta"):
        data = file_of(TREE)
        got = received(data)
    assert data == before
    assert {value.device.type for value in got.values()} == {"cpu"}
    assert all(torch.equal(got[name], TREE[name]) for name in TREE)


def test_a_script_that_imports_torch_late_gets_tensors(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(file_of(TREE))
    code = f"""
import sys
from pathlib import Path
from fedjob.codec import Inflow
assert "torch" not in sys.modules
inflow = Inflow()
inflow.write(Path({str(tmp_path / "model")!r}).read_bytes())
print(sorted({{type(value).__module__ for value in inflow.tree().values()}}))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['torch']"


def test_where_torch_is_not_installed_tensors_arrive_as_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(TREE)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not there: importing it fails
    got = received(data)
    assert {type(value) for value in got.values()} == {np.ndarray}
    assert (got["w"] == np.arange(6.0).reshape(2, 3).T).all()
    assert flatten({"w": np.ones(2)}).layout.specs[0].shape == (2,)
