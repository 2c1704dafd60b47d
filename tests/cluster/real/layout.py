"""Where the clusters of this machine are: folders, names, addresses.  PURE but for reading which numbers are taken

Each cluster lives in a network namespace, so ports never clash. It has one wire to this machine, over which people and tests reach its
API server, and one to a bridge in a namespace of its own, over which clusters reach each other:

    this machine ── fj-NAME ═ host0 ── namespace fedjob-NAME ── wan0 ═ fj-NAME ── bridge in namespace fedjob-wan
       10.66.<100+n>.1     10.66.<100+n>.2                   10.66.0.<10+n>
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/var/tmp/fedjob-clusters")  # a disk, because containerd's overlays need one
WAN = "fedjob-wan"
SERVICES = "10.96.0.0/12"
DOMAIN = "cluster.local"
MOST = 40  # clusters at once

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?")
_NUMBER = "number"


@dataclass(frozen=True)
class Layout:
    """One cluster's place. number: tells its addresses from those of others."""

    name: str
    number: int

    @property
    def folder(self) -> Path:
        """Everything that it has on the disk."""
        return ROOT / self.name

    @property
    def namespace(self) -> str:
        """Its network namespace, and its cgroup."""
        return f"fedjob-{self.name}"

    @property
    def wire(self) -> str:
        """This machine's end of the wire to it, and the bridge's end of the other."""
        return f"fj-{self.name}"

    @property
    def outside(self) -> str:
        """This machine's address on the wire."""
        return f"10.66.{100 + self.number}.1"

    @property
    def inside(self) -> str:
        """The cluster's address on that wire: its API server, from here."""
        return f"10.66.{100 + self.number}.2"

    @property
    def node(self) -> str:
        """Its node's address, which other clusters reach: its NodePorts, its API server."""
        return f"10.66.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """The addresses of its pods."""
        return f"10.{200 + self.number}.0.0/24"

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command begins with to run in its network. Not `ip netns exec`: that hides the cgroups."""
        return ("nsenter", f"--net=/var/run/netns/{self.namespace}", "--")

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"


def numbers() -> dict[str, int]:
    """The clusters that have a folder, and the number of each; -1 for one that was killed before it had one."""
    folders = [path for path in ROOT.glob("*") if path.is_dir()]
    return {folder.name: _number(folder / _NUMBER) for folder in folders}


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1


def reserve(name: str) -> Layout:
    """Make a cluster's folder with the first number that is free. To be called under a lock.

    Raises ValueError for a name that does not fit into a network interface's, FileExistsError if the cluster is there.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a cluster's name has at most 10 of a-z, 0-9 and -, and begins with a letter; got {name!r}")
    number = min(set(range(MOST)) - set(numbers().values()))
    folder = ROOT / name
    folder.mkdir(parents=True)
    (folder / _NUMBER).write_text(str(number))
    return Layout(name, number)


def find(name: str) -> Layout | None:
    """The cluster of a name, None if there is none."""
    number = numbers().get(name)
    return None if number is None else Layout(name, number)
