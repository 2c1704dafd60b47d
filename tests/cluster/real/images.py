"""The images that hack/images builds, as a cluster finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedjob.version import __version__

_NAMES = ("operator", "runtime", "examples")


@dataclass(frozen=True)
class Images:
    """folder: where the archives are; registry and tag: how the images are named."""

    folder: Path
    registry: str = "localhost"
    tag: str = __version__

    @property
    def operator(self) -> str:
        """The operator's image."""
        return self._named("operator")

    @property
    def runtime(self) -> str:
        """Of servers, and of scripts that name no image."""
        return self._named("runtime")

    @property
    def examples(self) -> str:
        """The runtime with what the examples import."""
        return self._named("examples")

    @property
    def archives(self) -> list[Path]:
        """One for each image."""
        return [self.folder / f"{name}.oci.tar" for name in _NAMES]

    def lacking(self) -> str:
        """Why there are no images, "" if they are there."""
        absent = [str(archive) for archive in self.archives if not archive.exists()]
        return f"not built: {', '.join(absent)}; hack/images builds them" if absent else ""

    def _named(self, name: str) -> str:
        return f"{self.registry}/fedjob-{name}:{self.tag}"
