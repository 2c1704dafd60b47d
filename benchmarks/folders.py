"""Where measures work: build/bench/, emptied before each use, so that the logs of the last run can be read."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"


def emptied(name: str) -> Path:
    """An empty folder of this name."""
    folder = BUILD / "bench" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
