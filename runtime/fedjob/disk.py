"""Room on the disk of the state: who may begin to write, and what happens when there is none.

An update is let in only if the disk has room for all that every update let in before it has yet to write, and for the next
state. So sixteen sites that come at once never leave a disk full of halves: those for whom there is no room wait, and come
again, until there is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from .quantities import bytes_text

_NAMED = 3  # of those that hold room, the first
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """Whether an error says that a disk, or the share of it that this process may use, is full."""
    return error.errno in _FULL


def unwritten(fd: int, size: int) -> int:
    """Bytes of a file of `size` for which the disk has not yet given room; a hole has none."""
    return max(size - os.fstat(fd).st_blocks * 512, 0)


def claim(folder: Path, spares: Path, promised: Mapping[str, int], reserve: int) -> None:
    """Check that there is room for what is `promised`, site -> bytes, and `reserve` more.

    Files in `spares` are given up if that helps. Raises OSError (ENOSPC), which says how much is missing, and who holds most.
    """
    wanted = sum(promised.values()) + reserve
    if wanted > _free(folder):
        for path in spares.glob("*"):
            path.unlink(missing_ok=True)
    if wanted > (free := _free(folder)):
        most = sorted(promised.items(), key=lambda of: -of[1])[:_NAMED]
        held = ", ".join(f"{site} {bytes_text(size)}" for site, size in most if size)
        why = f"{bytes_text(wanted)} needed for updates ({held}) and the next state, {bytes_text(free)} free"
        raise OSError(errno.ENOSPC, why, str(folder))


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
