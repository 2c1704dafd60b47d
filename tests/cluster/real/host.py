"""What this machine must have for clusters, and what a cluster leaves on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "helm", "coredns",
            "local-path-provisioner")  # fmt: skip
COMMANDS = ("etcd", "containerd", "runc", "conntrack", "iptables", "nft", "ip", "nsenter", "umount")
FILES = ("/usr/lib/cni/ptp", "/bin/busybox")

_SYSTEM = ("/usr/sbin", "/sbin")


def prepare() -> None:
    """Have the system's own folders on the path, as root's shell has: containerd looks for runc and iptables there."""
    path = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*path, *(folder for folder in _SYSTEM if folder not in path)])


def lacking(binaries: Path | None) -> str:
    """Why no cluster can be here, "" if one can. binaries: the folder that hack/control-plane prints."""
    prepare()
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a cluster needs Linux and root"
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    absent += [path for path in FILES if not Path(path).exists()]
    if absent:
        return f"missing on this machine: {', '.join(absent)}; hack/packages cluster installs them"
    built = [name for name in PROGRAMS if binaries is None or not (binaries / name).exists()]
    return f"not built: {', '.join(built)}; hack/control-plane {' '.join(built)} builds them" if built else ""


def unmount(folder: Path) -> None:
    """Unmount what is mounted below a folder, the last first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [point for line in lines if (point := line.split()[4]).startswith(f"{folder}/")]
    for point in reversed(points):
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
