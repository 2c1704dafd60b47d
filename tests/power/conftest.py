"""A mounted disk whose power goes when a test says so."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from power.disk import Kept


class PowerDisk:
    """The mounted disk: `folder`. See `power.mount` for what it does."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self._process = process

    def _say(self, command: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def new(self) -> None:
        """An empty disk."""
        self._say("new")

    def fail_at(self, change: int) -> int:
        """Let the power go before a change, counted from now; returns how many there were. -1: never."""
        return self._say(f"at {change}")

    def power_back(self, kept: Kept, seed: int) -> None:
        """What of the unforced is there again: see `power.disk`."""
        self._say(f"cut {kept} {seed}")


def _cannot(why: str) -> None:
    if os.environ.get("FEDJOB_REQUIRE_FUSE"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDisk]:
    if importlib.util.find_spec("mfusepy") is None:
        _cannot("no mfusepy")
    folder = tmp_path_factory.mktemp("disk")
    process = subprocess.Popen(
        [sys.executable, "-m", "power.mount", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    if process.stdout.readline() != "mounted\n":
        _cannot(f"nothing can be mounted: {process.wait(10)}; it takes Linux, root, /dev/fuse and libfuse3")
    try:
        yield PowerDisk(folder, process)
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
        process.kill()
        process.wait(10)


@pytest.fixture
def power(mounted: PowerDisk) -> PowerDisk:
    """The disk, empty."""
    mounted.new()
    return mounted
