"""Whether a run's disk takes anything at all. On one that does not, the server can tell nobody: its status and log are there too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from . import disk
from .records import STATUS_FILE

_LEAST_BYTES = 4096  # one page: less than that is no file


def lacking(run: Path) -> str:
    """Why the server's next status would find no room in the run's folder, in the system's words; "" if it would."""
    try:
        with tempfile.TemporaryFile(dir=run / "state") as probe:  # without a name: a kill leaves nothing
            probe.write(bytes(max(_size(run / STATUS_FILE), _LEAST_BYTES)))
            probe.flush()
    except OSError as e:  # of other troubles the server's own words are better
        return (e.strerror or str(e)) if disk.is_full(e) else ""
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
