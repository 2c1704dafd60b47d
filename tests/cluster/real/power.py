"""Parts of a cluster go away and come back: a node's power, containerd, the API server.

What is started here ends with the thread that started it, unless the cluster is a lasting one: strike from the test's own thread.
"""

from __future__ import annotations

from ..controlplane import API_SERVER
from ..kube import RefusedError, until
from . import containerd
from .cluster import NODE_SECONDS, Cluster, ready
from .layout import Node
from .node import switch_off, switch_on


def node_stop(cluster: Cluster, of: Node) -> None:
    """The node loses its power: nobody hears a word of it any more. Its disk keeps what was written."""
    switch_off(of)
    cluster.processes[of].forget()


def node_start(cluster: Cluster, of: Node) -> None:
    """A node that has no power gets it back; returns when its kubelet has told so, and it takes pods."""
    before = _heard(cluster, of)
    switch_on(cluster.layout, of, cluster.plane, cluster.processes[of])
    until(f"the node {of.name} to be back", lambda: _heard(cluster, of) != before and ready(cluster, of), NODE_SECONDS)


def _heard(cluster: Cluster, of: Node) -> str:
    """When the kubelet last said that it lives, "" if it never did."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{of.name}"
    try:
        return str(cluster.admin.call("GET", path)["spec"]["renewTime"])
    except RefusedError:
        return ""


def containerd_restart(cluster: Cluster, of: Node) -> None:
    """SIGKILL to containerd, and another one; containers run on under their shims. Returns when it answers."""
    processes = cluster.processes[of]
    processes.end("containerd")
    containerd.start(of, processes)


def api_server_stop(cluster: Cluster) -> None:
    """SIGKILL to the API server. Everything else runs on, and nobody can ask or tell anything."""
    cluster.plane.processes.end(API_SERVER)


def api_server_start(cluster: Cluster) -> None:
    """The API server again, as it was; returns when it is ready."""
    cluster.plane.start_api_server()
