"""A node's own cgroup. Kubelets that share a root kill each other's pods."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path

from ..kube import until

MOUNT = Path("/sys/fs/cgroup")


def _hierarchies() -> list[Path]:
    """Where cgroups are made: under each controller of version 1, or in the one tree of version 2."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return [path for path in sorted(MOUNT.iterdir()) if path.is_dir() and not path.is_symlink()]


def create(name: str) -> None:
    """Make the cgroup. Of version 1, a cpuset without cores holds no process: it gets those of its parent."""
    for hierarchy in _hierarchies():
        made = hierarchy / name
        made.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if hierarchy != MOUNT and (made / setting).exists():
                (made / setting).write_text((hierarchy / setting).read_text())


def pids(name: str, pod: str) -> set[int]:
    """Processes of a pod, which is known by its UID, as this machine numbers them; the one that only holds its namespaces is among them."""
    folders = (folder for root in _hierarchies() for folder in (root / name).rglob(f"pod{pod}"))
    return {int(pid) for folder in folders for path in folder.rglob("cgroup.procs") for pid in _lines(path)}


def delete(name: str) -> None:
    """Kill what runs in the cgroup, and remove it."""
    roots = [hierarchy / name for hierarchy in _hierarchies()]
    until(f"the processes of the cgroup {name} to end", lambda: not _kill(roots), 30)
    for root in roots:
        if root.exists():
            until(f"{root} to go", partial(_remove, root), 30)


def _kill(roots: list[Path]) -> set[int]:
    """Send SIGKILL to everything in the cgroups; returns what was still there."""
    found = {int(pid) for root in roots for path in root.rglob("cgroup.procs") for pid in _lines(path)}
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):  # the cgroup has just gone
        return path.read_text().split()
    return []


def _remove(root: Path) -> bool:
    """Remove a tree of cgroups from its leaves; says whether all of it is gone."""
    for folder, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not root.exists()
