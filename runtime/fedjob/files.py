"""Files and folders on the disk, also for a machine that loses its power."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(path: Path) -> None:
    """Force what a file holds to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    sync_file(folder)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, if they are not there; their names are on the disk then."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode, exist_ok=True)
        sync_folder(folder.parent)
