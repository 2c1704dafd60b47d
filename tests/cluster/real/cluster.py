"""One real cluster: a control plane and a node, in a network of its own, with names, Services and volumes.

`up` leaves a cluster that outlives the program, `running` one that ends with a block. Either way everything is written down in the
cluster's folder before it begins, so `down` finds it also after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..controlplane import ADMIN, USERS, ControlPlane
from ..kube import Kube, Raw, RefusedError, until
from ..processes import Processes, kill, owner, recorded
from . import busybox, cgroups, containerd, dns, host, kubelet, layout, network, storage
from .layout import Layout

PORT, ETCD_PORT = 6443, 2379
NODE_SECONDS = 60.0

_SCHEDULER = "scheduler-token"
_READY = "ready"  # a file of the folder: the cluster once stood


class InUseError(AssertionError):
    """Another process runs this cluster for as long as it lives itself."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that stands. plane: its API server and what reaches it; layout: its place on this machine."""

    layout: Layout
    plane: ControlPlane

    @property
    def kubeconfig(self) -> Path:
        """For its administrator."""
        return self.layout.folder / "kubeconfig"

    @property
    def admin(self) -> Kube:
        """The API server as its administrator sees it."""
        return self.plane.user(ADMIN)

    def apply(self, *objects: Raw) -> None:
        """`kubectl apply` of some objects. Raises CalledProcessError with its words in stderr."""
        path = self.layout.folder / "applied.yaml"
        path.write_text(yaml.safe_dump_all(objects))
        self.plane.kubectl("apply", "--server-side", "--filename", str(path))

    def import_image(self, archive: Path) -> None:
        """Make the images of an OCI archive known to its pods."""
        containerd.import_image(self.layout, archive)

    def volume(self, namespace: str, claim: str) -> Path | None:
        """The folder of a claim on this machine, None before it has one."""
        return next(iter(storage.folder(self.layout).glob(f"pvc-*_{namespace}_{claim}")), None)


def up(name: str, binaries: Path) -> Cluster:
    """A cluster that outlives this program; one that stands already is left as it is.

    Raises ValueError for a name that does not do, InUseError, AssertionError if a part does not come up.
    """
    with _locked():
        _check_use(name)
        if (there := _standing(name, binaries)) is not None:
            return there
        _remove(name)
        of = layout.reserve(name)
    return _start(of, binaries, Processes(of.folder, of.enter, lasting=True))


@contextlib.contextmanager
def running(name: str, binaries: Path) -> Iterator[Cluster]:
    """A cluster that runs inside the block. Those that a killed program left are removed first."""
    sweep()
    with _locked():
        _check_use(name)
        _remove(name)
        of = layout.reserve(name)
        processes = Processes(of.folder, of.enter)
        processes.claim()
    try:
        yield _start(of, binaries, processes)
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
    return sorted(layout.numbers())


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
    if of is None or not (of.folder / _READY).exists() or not all(r.alive() for r in recorded(of.folder)):
        return None
    return Cluster(of, _plane(of, binaries, Processes(of.folder, of.enter, lasting=True)))


def _plane(of: Layout, binaries: Path, processes: Processes) -> ControlPlane:
    scheduler = {_SCHEDULER: ("system:kube-scheduler", "")}
    more = {
        "kube-apiserver": ("--bind-address=0.0.0.0", f"--advertise-address={of.node}", "--allow-privileged"),
        "kube-controller-manager": ("--node-monitor-period=2s", "--node-monitor-grace-period=16s"),
    }
    users = {**USERS, **scheduler, **kubelet.users(of.name), **dns.USERS, **storage.USERS}
    return ControlPlane(of.folder, binaries, processes, of.inside, ETCD_PORT, PORT, users, more)


def _start(of: Layout, binaries: Path, processes: Processes) -> Cluster:
    host.prepare()
    network.create(of)
    cgroups.create(of.namespace)
    plane = _plane(of, binaries, processes)
    containerd.start(of, processes, busybox.NAME)
    authority = plane.start((of.inside, of.node, f"kubernetes.default.svc.{layout.DOMAIN}"))
    made = Cluster(of, plane)
    shutil.copy(plane.kubeconfig(ADMIN), made.kubeconfig)

    kubelet.start(of, plane, authority)
    kubelet.start_proxy(of, plane)
    plane.run(str(binaries / "kube-scheduler"), f"--kubeconfig={plane.kubeconfig(_SCHEDULER)}", "--leader-elect=false")
    busybox.write(of.folder / "busybox.tar")
    made.import_image(of.folder / "busybox.tar")
    made.apply(*dns.RIGHTS, *storage.OBJECTS)
    dns.start(of, plane, processes)
    storage.start(of, plane, processes)

    until(f"the node {of.name} to be ready", lambda: _node_is_ready(made), NODE_SECONDS)
    until("names to be answered", lambda: dns.ready(of), NODE_SECONDS)
    (of.folder / _READY).touch()
    return made


def _node_is_ready(made: Cluster) -> bool:
    made.plane.processes.check()
    try:
        node = made.admin.call("GET", f"/api/v1/nodes/{made.layout.name}")
        made.admin.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")  # pods are refused before
    except RefusedError:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))


def _remove(name: str) -> bool:
    """The order matters: what would restart something ends before it, and what is mounted before the folder goes."""
    number = layout.numbers().get(name)
    if number is None:
        return False
    host.prepare()
    of = Layout(name, number)
    kill(of.folder)
    containerd.sweep(of)
    cgroups.delete(of.namespace)
    host.unmount(of.folder)
    network.delete(of, last=set(names()) <= {name})
    for link in kubelet.log_links(of):
        link.unlink()
    shutil.rmtree(of.folder)
    return True


def failure(made: Cluster) -> str:
    """What a person wants to see when something did not come up: pods, events, the kubelet's last words."""
    with contextlib.suppress(subprocess.SubprocessError):
        pods = made.plane.kubectl("get", "pods", "--all-namespaces", "--output", "wide")
        events = made.plane.kubectl("get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp")
        return f"{pods}\n{events[-6000:]}"
    return ""
