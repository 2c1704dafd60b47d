"""A disk of its own for a job: small, to be filled and freed, and to be frozen for moments, as a disk that is slow or worn is.

It is an ext4 image, mounted in a namespace of this process, so that it vanishes with the process whatever happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from chaos.processes import CannotHere

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18


def own_mounts() -> None:
    """What this process mounts from here on, only it and its children see. Raises CannotHere."""
    if lacking := [tool for tool in ("mkfs.ext4", "mount", "umount", "fsfreeze") if shutil.which(tool) is None]:
        raise CannotHere(f"not installed: {', '.join(lacking)}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise CannotHere(f"no mount namespace: {os.strerror(ctypes.get_errno())}")


class Disk:
    """A mounted disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free(self) -> int:
        """Bytes that still fit."""
        facts = os.statvfs(self.folder)
        return facts.f_bavail * facts.f_frsize

    def fill(self) -> None:
        """Leave not a byte. To be called again when others have removed files meanwhile."""
        with self._ballast.open("ab") as f, contextlib.suppress(OSError):
            step = 1 << 20
            while step >= 512:
                try:
                    os.posix_fallocate(f.fileno(), f.seek(0, os.SEEK_END), step)
                except OSError:
                    step //= 2

    def clear(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Let every write wait."""
        subprocess.run(["fsfreeze", "--freeze", self.folder], check=True)

    def thaw(self) -> None:
        """Let the writes go on."""
        subprocess.run(["fsfreeze", "--unfreeze", self.folder], check=True)


@contextlib.contextmanager
def disk(folder: Path, image: Path, mebibytes: int) -> Iterator[Disk]:
    """A disk of this size, kept in the file `image` and mounted on the folder. Call `own_mounts` before. Raises CannotHere."""
    folder.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as f:
        f.truncate(mebibytes << 20)
    try:
        _run("mkfs.ext4", "-q", "-m", "0", image)  # no part of it is reserved
        _run("mount", "-o", "loop", image, folder)
    except CannotHere:
        image.unlink()
        raise
    shutil.rmtree(folder / "lost+found")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)
        image.unlink()


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotHere(f"{command[0]}: {done.stderr.strip()}")
