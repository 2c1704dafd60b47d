"""Wall clocks that can be set wrong, one for each process of a job: see clock.c, which is preloaded into them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from chaos.processes import CannotHere

_SOURCE = Path(__file__).with_name("clock.c")


class Clocks:
    """Clocks by the names of processes. Raises CannotHere without a C compiler."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("cc") is None:
            raise CannotHere("no C compiler (cc)")
        folder.mkdir(parents=True)
        self._folder = folder
        self._library = folder / "clock.so"
        built = subprocess.run(
            ["cc", "-O1", "-shared", "-fPIC", "-o", self._library, _SOURCE, "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            raise CannotHere(f"clock.c does not build: {built.stderr.strip()}")

    def environment(self, name: str) -> Mapping[str, str]:
        """What a process must be started with."""
        self.set(0, name)
        return {"LD_PRELOAD": str(self._library), "WRONG_CLOCK": str(self._folder / name)}

    def set(self, seconds: int, *names: str) -> None:
        """From now on their time of day is ahead by so much; below 0 it is behind."""
        for name in names:
            path = self._folder / name
            with path.open("r+b" if path.exists() else "wb") as f:  # in place: it is mapped
                f.write(struct.pack("<q", seconds))
