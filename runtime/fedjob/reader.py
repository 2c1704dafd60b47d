"""Hands out a file of a server's volume: `python -m fedjob.reader FILE OFFSET`, run inside a pod that has the volume.

Standard output gets the file's size, eight bytes, highest first, and then its bytes from the offset to that size: so whoever
reads knows when all is there, although the file may grow meanwhile and the stream that carries it may be cut anywhere.
Standard library only: a pod that reads shall start at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

EXIT_NO_FILE = 3
SIZE_BYTES = 8
_BLOCK = 1 << 20


def main() -> int:
    """Write the file that the command line names to standard output; returns the exit code."""
    path, offset = Path(sys.argv[1]), int(sys.argv[2])
    try:
        file = path.open("rb", buffering=0)
    except OSError as e:
        sys.stderr.write(f"{path}: {e.strerror}\n")
        return EXIT_NO_FILE
    with file:
        size = os.fstat(file.fileno()).st_size
        out = sys.stdout.buffer
        out.write(size.to_bytes(SIZE_BYTES, "big"))
        left = size - file.seek(offset)
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            out.write(block)
            left -= len(block)
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
