"""What is said of an image: its list of parts, and what it stands on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _parts(**more: Any) -> dict[str, Any]:
    """A list of parts as cyclonedx-py writes it, of one package and pip."""
    component = {
        "type": "library",
        "name": "PyYAML",
        "version": "6.0.3",
        "purl": "pkg:pypi/pyyaml@6.0.3",
        "bom-ref": "yaml",
    }
    pip = {"type": "library", "name": "pip", "version": "26.0", "purl": "pkg:pypi/pip@26.0", "bom-ref": "pip"}
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [{**component, **more}, pip]}


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment with that package, and pip."""
    for name, version in (("PyYAML", "6.0.3"), ("pip", "26.0")):
        folder = tmp_path / "venv" / "lib" / "python3.11" / "site-packages" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    return tmp_path / "venv"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """images/parts, in this process: reading the schema's formats takes seconds."""
    loader = SourceFileLoader("parts", str(ROOT / "images" / "parts"))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


def _main(program: ModuleType, monkeypatch: pytest.MonkeyPatch, *paths: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["parts", *map(str, paths)])
    return int(program.main())


def test_the_list_of_parts_has_the_packages_of_the_base(
    program: ModuleType, tmp_path: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("this machine has no dpkg")
    listed, lock = tmp_path / "list.json", tmp_path / "lock.txt"
    lock.write_text("pyyaml==6.0.3 \\\n    --hash=sha256:0\n")
    texts = []
    for _ in range(2):
        listed.write_text(json.dumps(_parts()))
        assert _main(program, monkeypatch, listed, venv, lock) == 0
        texts.append(listed.read_bytes())
    assert texts[0] == texts[1]
    parts = json.loads(texts[0])["components"]
    versions = {part["name"]: part["version"] for part in parts}
    assert versions["PyYAML"] == "6.0.3"
    assert versions["python"] == sys.version.split()[0]
    told = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "libc6"], capture_output=True, text=True, check=True)
    assert versions["libc6"] == told.stdout
    assert len({part["bom-ref"] for part in parts}) == len(parts)


@pytest.mark.parametrize(
    ("change", "pins", "fault"),
    [
        ({"type": "librarian"}, "pyyaml==6.0.3", "breaks the schema of CycloneDX 1.6"),
        ({"version": "6.0.2"}, "pyyaml==6.0.3", "pyyaml 6.0.3 is installed and not in the list"),
        ({"name": "yaml"}, "pyyaml==6.0.3", "yaml 6.0.3 is in the list and not installed"),
        ({}, "pyyaml==6.0.2", "pyyaml 6.0.3 is installed, and no lock names that version"),
    ],
)
def test_a_list_that_is_wrong_or_not_whole_ends_the_build(
    program: ModuleType,
    tmp_path: Path,
    venv: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    pins: str,
    fault: str,
) -> None:
    monkeypatch.setattr(program, "debian", list)
    listed, lock = tmp_path / "list.json", tmp_path / "lock.txt"
    listed.write_text(json.dumps(_parts(**change)))
    lock.write_text(pins)
    assert _main(program, monkeypatch, listed, venv, lock) == 1
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize("base", ["", "docker.io/library/python:3.11-slim-bookworm"])
def test_a_release_is_refused_on_a_base_without_a_digest(base: str) -> None:
    environment = {**os.environ, "RELEASE": "1"} | ({"BASE": base} if base else {})
    done = subprocess.run(
        [str(ROOT / "hack" / "images"), "operator"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "RELEASE: BASE must have a digest" in done.stderr


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
