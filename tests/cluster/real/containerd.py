"""containerd of one cluster: its own folder, socket and pod network; images go in from archives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..kube import until
from ..processes import Processes
from .layout import Layout

START_SECONDS = 30.0
IMPORT_SECONDS = 180.0


def start(of: Layout, processes: Processes, pause: str) -> None:
    """Start it, and return when it answers. pause: name of the image whose container holds a pod's namespaces."""
    (of.folder / "containerd.toml").write_text(_configuration(of, pause))
    network = of.folder / "cni"
    network.mkdir()
    (network / "10-pods.conflist").write_text(json.dumps(_pod_network(of)))
    processes.start("containerd", "--config", str(of.folder / "containerd.toml"))

    def answers() -> bool:
        processes.check()
        return of.socket.exists() and _ctr(of, "version").returncode == 0

    until("containerd to answer", answers, START_SECONDS)


def import_image(of: Layout, archive: Path) -> None:
    """Make the images of an OCI archive known to the cluster's pods. Raises RuntimeError."""
    done = _ctr(of, "images", "import", "--snapshotter", "overlayfs", str(archive))
    if done.returncode:
        raise RuntimeError(f"importing {archive}: {done.stderr.strip()}")


def images(of: Layout) -> set[str]:
    """Names of the images that are there."""
    return set(_ctr(of, "images", "list", "--quiet").stdout.split())


def _ctr(of: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ctr", "--address", str(of.socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS)


def sweep(of: Layout) -> None:
    """End the shims, which outlive containerd, and remove their sockets. containerd itself must have ended."""
    for address in of.folder.glob("containerd/state/io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
    until("the shims to end", lambda: not _kill(list(_shims(of))), 30)


def _shims(of: Layout) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            if "containerd-shim" in words[0] and str(of.socket) in words:
                yield int(path.parent.name)


def _kill(pids: list[int]) -> list[int]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def _configuration(of: Layout, pause: str) -> str:
    folder = of.folder / "containerd"
    return f"""
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
                    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{of.socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE, every pod would fail to lower its score
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{of.folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _pod_network(of: Layout) -> dict[str, object]:
    """A wire from each pod to the node and routes between them: no bridge, whose traffic the rules for Services would miss."""
    addresses = {
        "type": "host-local",
        "dataDir": str(of.folder / "cni-addresses"),
        "ranges": [[{"subnet": of.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    wires = {"type": "ptp", "ipMasq": True, "ipam": addresses}
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [wires, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
