"""One real cluster: a control plane and nodes, in a network of their own, with names, Services and volumes.

`up` leaves a cluster that outlives the program, `running` one that ends with a block. Either way everything is written down in the
cluster's folder before it begins, so `down` finds it also after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from fedjob_operator.names import VOLUME_CLAIM

from ..controlplane import ADMIN, API_SERVER, USERS, ControlPlane
from ..kube import Kube, Raw, RefusedError, until
from ..processes import Processes, kill, owner, recorded
from . import busybox, containerd, dns, host, kubelet, layout, network, storage
from .layout import Layout, Node
from .node import install, switch_off, switch_on

PORT, ETCD_PORT = 6443, 2379
NODE_SECONDS = 60.0

_SCHEDULER = "scheduler-token"
_READY = "ready"  # a file of the folder: the cluster once stood


class InUseError(AssertionError):
    """Another process runs this cluster for as long as it lives itself."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that stands. layout: its place on this machine; plane: its API server and what reaches it; processes: by node."""

    layout: Layout
    plane: ControlPlane
    processes: Mapping[Node, Processes]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Where its pods run."""
        return self.layout.nodes

    def node(self, name: str) -> Node:
        """The node that Kubernetes knows by this name, such as a pod's `spec.nodeName`. Raises StopIteration if there is none."""
        return next(node for node in self.nodes if node.name == name)

    @property
    def kubeconfig(self) -> Path:
        """For its administrator."""
        return self.layout.folder / "kubeconfig"

    @property
    def admin(self) -> Kube:
        """The API server as its administrator sees it."""
        return self.plane.user(ADMIN)

    def check(self) -> None:
        """Raises AssertionError with the last words of a process that has ended by itself."""
        for processes in (self.plane.processes, *self.processes.values()):
            processes.check()

    def apply(self, *objects: Raw) -> None:
        """`kubectl apply` of some objects. Raises CalledProcessError with its words in stderr."""
        path = self.layout.folder / "applied.yaml"
        path.write_text(yaml.safe_dump_all(objects))
        self.plane.kubectl("apply", "--server-side", "--filename", str(path))

    def import_image(self, archive: Path) -> None:
        """Make the images of an OCI archive known to its pods, on every node."""
        for node in self.nodes:
            containerd.import_image(node, archive)

    def volume(self, namespace: str, claim: str) -> Path | None:
        """The folder of a claim on this machine, None before it has one."""
        found = self.admin.get(VOLUME_CLAIM, namespace, claim) or {}
        volume = found.get("spec", {}).get("volumeName")
        if volume is None:
            return None
        return Path(self.admin.call("GET", f"/api/v1/persistentvolumes/{volume}")["spec"]["hostPath"]["path"])


def up(name: str, binaries: Path, nodes: int = 1) -> Cluster:
    """A cluster that outlives this program; one that stands already is left as it is.

    Raises ValueError for a name or a number of nodes that does not do, InUseError, AssertionError if a part does not come up.
    """
    with _locked():
        _check_use(name)
        if (there := _standing(name, binaries)) is not None:
            if len(there.nodes) != nodes:
                raise ValueError(
                    f"the cluster {name} stands with {len(there.nodes)} nodes, not {nodes}; remove it first"
                )
            return there
        _remove(name)
        of = layout.reserve(name, nodes)
    return _start(_place(of, binaries, lasting=True))


@contextlib.contextmanager
def running(name: str, binaries: Path, nodes: int = 1) -> Iterator[Cluster]:
    """A cluster that runs inside the block. Those that a killed program left are removed first."""
    sweep()
    with _locked():
        _check_use(name)
        _remove(name)
        made = _place(layout.reserve(name, nodes), binaries, lasting=False)
        made.plane.processes.claim()
    try:
        yield _start(made)
    finally:
        down(name)


def down(name: str) -> bool:
    """End a cluster and remove all that it has on this machine; says whether there was one.

    Raises InUseError if another process that lives runs it for itself.
    """
    with _locked():
        _check_use(name)
        return _remove(name)


def _check_use(name: str) -> None:
    user = owner(layout.ROOT / name)
    if user is not None and user.alive() and user.pid != os.getpid():
        raise InUseError(f"the cluster {name} is in use by process {user.pid}")


def names() -> list[str]:
    """The clusters of this machine, in the order of names."""
    return layout.names()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Nobody else makes or removes a cluster inside the block."""
    layout.ROOT.mkdir(parents=True, exist_ok=True)
    with (layout.ROOT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep() -> None:
    """Remove the clusters whose program has ended without doing so."""
    with _locked():
        for name in names():
            user = owner(layout.ROOT / name)
            if user is not None and not user.alive():
                _remove(name)


def _standing(name: str, binaries: Path) -> Cluster | None:
    of = layout.find(name)
    if of is None or not (of.folder / _READY).exists():
        return None
    records = [recorded(folder) for folder in (of.folder, *(node.folder for node in of.nodes))]
    if not all(found and all(record.alive() for record in found) for found in records):
        return None
    return _place(of, binaries, lasting=True)


def _place(of: Layout, binaries: Path, *, lasting: bool) -> Cluster:
    plane = _plane(of, binaries, Processes(of.folder, of.control.enter, lasting))
    return Cluster(of, plane, {node: Processes(node.folder, node.enter, lasting) for node in of.nodes})


def _plane(of: Layout, binaries: Path, processes: Processes) -> ControlPlane:
    scheduler = {_SCHEDULER: ("system:kube-scheduler", "")}
    address = of.control.address
    more = {
        API_SERVER: ("--bind-address=0.0.0.0", f"--advertise-address={address}", "--allow-privileged"),
        "kube-controller-manager": ("--node-monitor-period=2s", "--node-monitor-grace-period=16s"),
    }
    users = {**USERS, **scheduler, **kubelet.users(of.nodes), **dns.USERS, **storage.USERS}
    return ControlPlane(of.folder, binaries, processes, of.inside, ETCD_PORT, PORT, users, more)


def _start(made: Cluster) -> Cluster:
    of, plane = made.layout, made.plane
    host.prepare()
    network.create(of)
    authority = plane.start((of.inside, of.control.address, f"kubernetes.default.svc.{layout.DOMAIN}"))
    shutil.copy(plane.kubeconfig(ADMIN), made.kubeconfig)
    binaries = plane.binaries
    plane.run(str(binaries / "kube-scheduler"), f"--kubeconfig={plane.kubeconfig(_SCHEDULER)}", "--leader-elect=false")
    for node in made.nodes:
        install(of, node, authority)
        switch_on(of, node, plane, made.processes[node])
    busybox.write(of.folder / "busybox.tar")
    made.import_image(of.folder / "busybox.tar")
    made.apply(*dns.RIGHTS, *storage.OBJECTS)
    dns.start(of, plane, plane.processes)
    storage.start(of, plane, plane.processes)

    for node in made.nodes:
        until(f"the node {node.name} to be ready", partial(ready, made, node), NODE_SECONDS)
    until("names to be answered", lambda: dns.ready(of), NODE_SECONDS)
    (of.folder / _READY).touch()
    return made


def ready(made: Cluster, node: Node) -> bool:
    """Whether pods can run on a node. Raises AssertionError with the last words of a process that has ended."""
    made.check()
    try:
        seen = made.admin.call("GET", f"/api/v1/nodes/{node.name}")
        made.admin.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")  # pods are refused before
    except RefusedError:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in seen["status"].get("conditions", ()))


def _remove(name: str) -> bool:
    """The order matters: what would restart something ends before it, and what is mounted before the folder goes."""
    if name not in names():
        return False
    host.prepare()
    if (of := layout.find(name)) is not None:
        kill(of.folder)
        for node in of.nodes:
            switch_off(node)
            for link in kubelet.log_links(node):
                link.unlink()
        host.unmount(of.folder)  # disks of tests
        network.delete(of, last=set(names()) <= {name})
    shutil.rmtree(layout.ROOT / name)
    return True


def failure(made: Cluster) -> str:
    """What a person wants to see when something did not come up: pods, events, the kubelet's last words."""
    with contextlib.suppress(subprocess.SubprocessError):
        pods = made.plane.kubectl("get", "pods", "--all-namespaces", "--output", "wide")
        slices = made.plane.kubectl("get", "endpointslices", "--all-namespaces")
        events = made.plane.kubectl("get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp")
        said = "".join(
            f"{path.name}:\n{path.read_text()[-3000:]}\n"
            for node in made.nodes
            for path in sorted(node.folder.glob("kube*.log"))
        )
        return f"{pods}\n{slices}\n{events[-6000:]}\n{said}"
    return ""
