"""Where the clusters of this machine are: folders, names, addresses.  PURE but for reading which numbers are taken

A cluster is a control plane and nodes, each a machine of its own: a network namespace, so ports never clash. All machines of all clusters
meet at one bridge, in a namespace of its own; the control plane has also a wire to this machine, over which people and tests reach the API
server. Of the cluster NAME with the number n:

    this machine ─ fj-NAME ═ host0 ─ fedjob-NAME ─ wan0 ═ fj-NAME ──────┐
      10.66.<n>.1      10.66.<n>.2                10.67.<n>.1            ├ bridge in fedjob-wan
                                     fedjob-NAME.1 ─ wan0 ═ fj-NAME.1 ──┘
                                                10.67.<n>.2
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
MOST_NODES = 9  # of one cluster: their names have one digit, and fit into a network interface's

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?")
_PLACE = "place"


@dataclass(frozen=True)
class Machine:
    """One network namespace of a cluster. cluster, number: whose; index: 0 for the control plane, from 1 for nodes."""

    cluster: str
    number: int
    index: int = 0

    @property
    def name(self) -> str:
        """The cluster's for the control plane; for a node the one that Kubernetes knows it by. No cluster has a dot in its name."""
        return f"{self.cluster}.{self.index}" if self.index else self.cluster

    @property
    def namespace(self) -> str:
        """Its network namespace; of a node also the cgroup."""
        return f"fedjob-{self.name}"

    @property
    def wire(self) -> str:
        """The bridge's end of its wire."""
        return f"fj-{self.name}"

    @property
    def address(self) -> str:
        """Where all machines of all clusters reach it."""
        return f"10.67.{self.number}.{1 + self.index}"

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command begins with to run in its network. Not `ip netns exec`: that hides the cgroups."""
        return ("nsenter", f"--net=/var/run/netns/{self.namespace}", "--")


@dataclass(frozen=True)
class Node(Machine):
    """A machine that runs pods."""

    @property
    def folder(self) -> Path:
        """Everything that it has on the disk."""
        return ROOT / self.cluster / self.name

    @property
    def pods(self) -> str:
        """The addresses of its pods."""
        return f"10.{200 + self.number}.{self.index}.0/24"

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"


@dataclass(frozen=True)
class Layout:
    """One cluster's place. number: tells its addresses from those of others; size: how many nodes."""

    name: str
    number: int
    size: int = 1

    @property
    def folder(self) -> Path:
        """Everything that it has on the disk; each node has a folder in it."""
        return ROOT / self.name

    @property
    def control(self) -> Machine:
        """Where the control plane runs, and what serves the whole cluster."""
        return Machine(self.name, self.number)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Where its pods run."""
        return tuple(Node(self.name, self.number, index) for index in range(1, self.size + 1))

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All of them, the control plane first."""
        return (self.control, *self.nodes)

    @property
    def wire(self) -> str:
        """This machine's end of the wire to the control plane."""
        return f"fj-{self.name}"

    @property
    def outside(self) -> str:
        """This machine's address on that wire."""
        return f"10.66.{self.number}.1"

    @property
    def inside(self) -> str:
        """The control plane's address on it: the API server, from here."""
        return f"10.66.{self.number}.2"

    @property
    def pods(self) -> str:
        """The addresses of pods, on whatever node."""
        return f"10.{200 + self.number}.0.0/16"


def names() -> list[str]:
    """The clusters that have a folder, in the order of names."""
    return sorted(path.name for path in ROOT.glob("*") if path.is_dir())


def reserve(name: str, size: int) -> Layout:
    """Make a cluster's folder with the first number that is free. To be called under a lock.

    Raises ValueError for a name that does not fit into a network interface's and for a size that is not possible, FileExistsError if
    the cluster is there.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a cluster's name has at most 10 of a-z, 0-9 and -, and begins with a letter; got {name!r}")
    if not 1 <= size <= MOST_NODES:
        raise ValueError(f"a cluster has 1 to {MOST_NODES} nodes; got {size}")
    taken = {place.number for place in map(find, names()) if place is not None}
    number = min(set(range(MOST)) - taken)
    folder = ROOT / name
    folder.mkdir(parents=True)
    (folder / _PLACE).write_text(f"{number} {size}")
    return Layout(name, number, size)


def find(name: str) -> Layout | None:
    """The cluster of a name; None if it has nothing but perhaps a folder, for one that was killed before it had more."""
    try:
        number, size = map(int, (ROOT / name / _PLACE).read_text().split())
    except (OSError, ValueError):
        return None
    return Layout(name, number, size)
