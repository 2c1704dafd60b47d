"""Take over the first model that a job's code has made: `python -m fedjob.first_model FILE TARGET`.

The code ran where it sees no volume of the server; this process sees the volume and runs nothing of the job's. What it takes is a file,
never what a link leads to, and it takes one only once: a server that is started again goes on from the model that it began with,
though the code has run again.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

from .errors import ConfigError, exit_code_of
from .stored import replacing

_BLOCK_BYTES = 1 << 20


def take(source: Path, target: Path) -> None:
    """Copy `source` to `target`, whole or not at all, unless there is a target. Raises ConfigError."""
    if target.exists():
        return
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would be waited for
        with os.fdopen(descriptor, "rb") as file, replacing(target) as copy:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"spec.model.initial.object: {source} is no regular file")
            shutil.copyfileobj(file, copy, _BLOCK_BYTES)
    except OSError as e:
        raise ConfigError(f"spec.model.initial.object: {source}: {e.strerror}") from e


def main() -> int:
    """Take the file that the first argument names as the one that the second names; returns the exit code."""
    return exit_code_of(lambda: take(Path(sys.argv[1]), Path(sys.argv[2])))


if __name__ == "__main__":
    sys.exit(main())
