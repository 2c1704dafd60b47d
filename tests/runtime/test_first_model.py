"""The first model that a job's code made is taken over once, as a file, and never through a link."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedjob.errors import ConfigError
from fedjob.first_model import take


def test_the_file_is_taken_whole_and_what_is_there_stays(tmp_path: Path) -> None:
    """The code runs anew with each start of the server, and may draw other numbers: the job goes on from its own."""
    made, kept = tmp_path / "made", tmp_path / "kept"
    made.write_bytes(b"first" * (1 << 19))
    take(made, kept)
    assert kept.read_bytes() == made.read_bytes()
    made.write_bytes(b"second")
    take(made, kept)
    assert kept.read_bytes().startswith(b"first")


def _link(path: Path) -> None:
    path.with_name("update").write_bytes(b"of another site")
    path.symlink_to(path.with_name("update"))


@pytest.mark.parametrize(
    "plant", [_link, os.mkfifo, Path.mkdir, lambda _: None], ids=["a link", "a pipe", "a folder", "nothing"]
)
def test_what_is_no_file_is_refused_by_its_field(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "made")
    with pytest.raises(ConfigError, match=r"spec\.model\.initial\.object: .*made"):
        take(tmp_path / "made", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedjob.first_model", str(tmp_path / "made"), str(tmp_path / "kept")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    (tmp_path / "made").write_bytes(b"x")
    assert subprocess.run(command, check=False).returncode == 0
