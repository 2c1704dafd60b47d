"""A virtual environment for each peer and version, made on first use and kept for the next run.

Under ~/.cache/fedjob/bench/<peer>-<version>; delete the folder to install afresh.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path.home() / ".cache" / "fedjob" / "bench"
WHEELS = Path(__file__).parents[3] / "shared" / "wheels"  # where it exists: torch without its gigabytes of CUDA
INSTALL_SECONDS = 1200.0

# Requirements of one distribution that hold here and now, one a line; printed by the environment's own Python.
_REQUIREMENTS = """
import importlib.metadata, sys
from pip._vendor.packaging.requirements import Requirement
name, *unbound = sys.argv[1:]
for line in importlib.metadata.requires(name) or []:
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        print(requirement.name if requirement.name in unbound else str(requirement).split(";")[0])
"""


def environment(peer: str, version: str, *others: str, unbound: tuple[str, ...] = ()) -> Path:
    """The folder of a virtual environment that holds `peer==version`, torch and `others`.

    unbound: requirements of the peer whose version bounds are dropped.
    Raises subprocess.SubprocessError if pip fails or is late; what it left is removed before the next try.
    """
    folder = CACHE / f"{peer}-{version}"
    ready = folder / ".complete"
    if ready.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {peer} {version} into {folder} (once)", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=INSTALL_SECONDS)
    wanted = [f"{peer}=={version}", "torch", *others]
    if unbound:
        _pip(folder, "--no-deps", wanted[0])
        wanted[:1] = _requirements(folder, peer, unbound)
    _pip(folder, *wanted)
    ready.touch()
    return folder


def versions(folder: Path, *names: str) -> dict[str, str]:
    """Versions of the distributions `names` in an environment."""
    code = "import importlib.metadata as m, sys; print(*[m.version(n) for n in sys.argv[1:]])"
    found = subprocess.run(
        [folder / "bin/python", "-c", code, *names], check=True, capture_output=True, text=True, encoding="utf-8"
    )
    return dict(zip(names, found.stdout.split(), strict=True))


def _requirements(folder: Path, peer: str, unbound: tuple[str, ...]) -> list[str]:
    command: list[str | Path] = [folder / "bin/python", "-c", _REQUIREMENTS, peer, *unbound]
    found = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    return found.splitlines()


def _pip(folder: Path, *arguments: str) -> None:
    variables = dict(os.environ)
    if WHEELS.is_dir():
        variables["PIP_FIND_LINKS"] = f"{WHEELS} {variables.get('PIP_FIND_LINKS', '')}".strip()
        variables["PIP_CONSTRAINT"] = str(WHEELS / "constraints.txt")
    command: list[str | Path] = [
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *arguments,
    ]
    subprocess.run(command, check=True, env=variables, timeout=INSTALL_SECONDS)
