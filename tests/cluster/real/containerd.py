"""containerd of one node: its own folder, socket and pod network; images go in from archives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc

from ..kube import until
from ..processes import Processes
from .layout import Node

START_SECONDS = 30.0
IMPORT_SECONDS = 180.0
_VERSION = "/runtime.v1.RuntimeService/Version"  # of the CRI
_VERSION_SECONDS = 5.0


def write(node: Node, pause: str) -> None:
    """Write what it reads. pause: name of the image whose container holds a pod's namespaces."""
    (node.folder / "containerd.toml").write_text(_configuration(node, pause))
    network = node.folder / "cni"
    network.mkdir()
    (network / "10-pods.conflist").write_text(json.dumps(_pod_network(node)))


def start(node: Node, processes: Processes) -> None:
    """Start it, and return when it serves a kubelet. Containers that run under shims are taken over before."""
    processes.start("containerd", "--config", str(node.folder / "containerd.toml"))

    def serves() -> bool:
        processes.check()
        return node.socket.exists() and _answers_kubelets(node)

    until("containerd to serve a kubelet", serves, START_SECONDS)


def _answers_kubelets(node: Node) -> bool:
    """What a kubelet asks first, and ends at once if it is refused: containerd answers `ctr` before it has found its pods again."""
    with grpc.insecure_channel(f"unix:{node.socket}") as channel:
        try:
            channel.unary_unary(_VERSION)(b"", timeout=_VERSION_SECONDS)
        except grpc.RpcError:
            return False
    return True


def import_image(node: Node, archive: Path) -> None:
    """Make the images of an OCI archive known to the node's pods. Raises RuntimeError."""
    done = _ctr(node, "images", "import", "--snapshotter", "overlayfs", str(archive))
    if done.returncode:
        raise RuntimeError(f"importing {archive}: {done.stderr.strip()}")


def images(node: Node) -> set[str]:
    """Names of the images that are there."""
    return set(_ctr(node, "images", "list", "--quiet").stdout.split())


def _ctr(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ctr", "--address", str(node.socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS)


def sweep(node: Node) -> None:
    """End the shims, which outlive containerd, and remove their sockets. containerd itself must have ended."""
    for address in node.folder.glob("containerd/state/io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
    until("the shims to end", lambda: not _kill(list(_shims(node))), 30)


def _shims(node: Node) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            if "containerd-shim" in words[0] and str(node.socket) in words:
                yield int(path.parent.name)


def _kill(pids: list[int]) -> list[int]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def _configuration(node: Node, pause: str) -> str:
    folder = node.folder / "containerd"
    return f"""
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
                    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{node.socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE, every pod would fail to lower its score
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{node.folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _pod_network(node: Node) -> dict[str, object]:
    """A wire from each pod to the node and routes between them: no bridge, whose traffic the rules for Services would miss."""
    addresses = {
        "type": "host-local",
        "dataDir": str(node.folder / "cni-addresses"),
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    wires = {"type": "ptp", "ipam": addresses}
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [wires, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
