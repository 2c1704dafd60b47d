"""One node of a cluster: what it has on the disk, and how it is switched on and off.

Switched off is what a machine is without power: no process, no mount, no network; its disk stays as it is.
"""

from __future__ import annotations

import shutil

from ..certificates import Authority
from ..controlplane import ControlPlane
from ..processes import Processes, kill
from . import busybox, cgroups, containerd, host, kubelet, network
from .layout import Layout, Node


def install(of: Layout, node: Node, authority: Authority) -> None:
    """Write all that the node reads when it is switched on."""
    node.folder.mkdir()
    containerd.write(node, busybox.NAME)
    kubelet.write(of, node, authority)


def switch_on(of: Layout, node: Node, plane: ControlPlane, processes: Processes) -> None:
    """Make its network and start its processes; returns when containerd answers, before the node is ready."""
    network.create_node(of, node)
    cgroups.create(node.namespace)
    containerd.start(node, processes)
    kubelet.start(of, node, plane, processes)


def switch_off(node: Node) -> None:
    """End everything of it at once, so that nobody hears of it; whatever of it is not there is no error.

    The wire goes first: no connection is closed for others to see. Then what would restart something ends before it.
    """
    network.delete_machine(node)
    kill(node.folder)
    containerd.sweep(node)
    cgroups.delete(node.namespace)
    host.unmount(node.folder)
    shutil.rmtree(node.folder / "containerd" / "state", ignore_errors=True)  # on a real machine, in memory
