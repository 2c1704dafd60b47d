"""The kubelet of a node, and kube-proxy beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from ..certificates import Authority
from ..controlplane import ControlPlane
from ..processes import Processes
from .layout import DOMAIN, Layout, Node

PROXY = "kube-proxy-token"


def users(nodes: Iterable[Node]) -> dict[str, tuple[str, str]]:
    """Who they are to the API server: token → name, group. A kubelet may touch what concerns its own node."""
    kubelets = {_token(node): (f"system:node:{node.name}", "system:nodes") for node in nodes}
    return {**kubelets, PROXY: ("system:kube-proxy", "")}


def _token(node: Node) -> str:
    return f"{node.name}-token"


def write(of: Layout, node: Node, authority: Authority) -> None:
    """Write what the kubelet reads."""
    authority.issue(node.folder, "kubelet", (node.address,), subject=f"system:node:{node.name}", group="system:nodes")
    (node.folder / "resolv.conf").write_text("")  # pods know the cluster's names, and no others
    (node.folder / "kubelet.yaml").write_text(yaml.safe_dump(_configuration(of, node)))


def start(of: Layout, node: Node, plane: ControlPlane, processes: Processes) -> None:
    """Start both; containerd must answer. kube-proxy leads the addresses of Services and NodePorts to pods."""
    url = f"https://{of.control.address}:{plane.port}"
    processes.start(
        str(plane.binaries / "kubelet"),
        f"--config={node.folder}/kubelet.yaml",
        f"--kubeconfig={plane.kubeconfig(_token(node), url)}",
        f"--root-dir={node.folder}/kubelet",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
    )
    processes.start(
        str(plane.binaries / "kube-proxy"),
        f"--kubeconfig={plane.kubeconfig(PROXY, url)}",
        f"--hostname-override={node.name}",
        f"--cluster-cidr={of.pods}",
        "--proxy-mode=nftables",
        "--nodeport-addresses=0.0.0.0/0",  # by default this mode serves them at the node's first address only
        "--conntrack-max-per-core=0",  # a namespace may not set it
    )


def log_links(node: Node) -> list[Path]:
    """The links that the kubelet makes to its pods' logs, outside of its folder."""
    links = Path("/var/log/containers").glob("*")
    return [path for path in links if str(path.readlink()).startswith(f"{node.folder}/")]


def _configuration(of: Layout, node: Node) -> dict[str, object]:
    folder = node.folder
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(of.folder / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(folder / "kubelet.crt"),
        "tlsPrivateKeyFile": str(folder / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "resolvConf": str(folder / "resolv.conf"),
        "clusterDNS": [of.control.address],
        "clusterDomain": DOMAIN,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.namespace}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",  # a Secret that was renewed is in its pods within 15 seconds, not within two minutes
        # The machine's disk is not the cluster's own: what others write there should not evict pods, nor remove images.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
