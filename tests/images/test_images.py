"""What is said of an image: its list of parts, and what it stands on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_list_of_parts_has_the_packages_of_the_base(tmp_path: Path) -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("this machine has no dpkg")
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    for path in (first, again):
        path.write_text(json.dumps({"bomFormat": "CycloneDX", "components": [{"type": "library", "name": "pydantic"}]}))
        subprocess.run([sys.executable, str(ROOT / "images" / "parts"), str(path)], check=True)
    assert first.read_bytes() == again.read_bytes()
    parts = json.loads(first.read_text())["components"]
    assert parts[0]["name"] == "pydantic"
    versions = {part["name"]: part["version"] for part in parts[1:]}
    assert versions["python"] == sys.version.split()[0]
    told = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "libc6"], capture_output=True, text=True, check=True)
    assert versions["libc6"] == told.stdout
    assert len({part["bom-ref"] for part in parts[1:]}) == len(parts) - 1
    assert all(part["purl"].startswith("pkg:deb/debian/") for part in parts[1:] if part["name"] != "python")


def test_a_base_that_is_asked_for_and_cannot_be_pulled_is_no_other_one(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        pytest.skip("needs root and buildah")
    base = "localhost:9/none@sha256:" + "0" * 64
    environment = {**os.environ, "BASE": base, "ENGINE": "buildah"}
    done = subprocess.run(
        [str(ROOT / "hack" / "images"), "operator"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"BASE: {base} cannot be pulled" in done.stderr
    assert "building" not in done.stderr
