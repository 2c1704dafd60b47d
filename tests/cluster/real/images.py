"""The images that hack/images builds, as a cluster finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedjob.version import __version__

_NAMES = ("operator", "runtime", "examples")


@dataclass(frozen=True)
class Images:
    """folder: where the archives are."""

    folder: Path
    operator: str = f"localhost/fedjob-operator:{__version__}"
    runtime: str = f"localhost/fedjob-runtime:{__version__}"
    examples: str = f"localhost/fedjob-examples:{__version__}"

    @property
    def archives(self) -> list[Path]:
        """One for each image."""
        return [self.folder / f"{name}.oci.tar" for name in _NAMES]

    def lacking(self) -> str:
        """Why there are no images, "" if they are there."""
        absent = [str(archive) for archive in self.archives if not archive.exists()]
        return f"not built: {', '.join(absent)}; hack/images builds them" if absent else ""
