"""Where measures work: below build/, emptied before each use, so that the logs of the last run can be read."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
KEPT_BYTES = 16 << 20  # of a file: logs and histories stay, models go


def emptied(folder: Path) -> Path:
    """This folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def lightened(folder: Path) -> None:
    """Remove large files: a run's models and updates are many times its model."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size > KEPT_BYTES:
            path.unlink()
