"""The kubelet of a cluster's node, and kube-proxy beside it."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..certificates import Authority
from ..controlplane import ControlPlane
from .layout import DOMAIN, Layout

NODE, PROXY = "node-token", "kube-proxy-token"


def users(node: str) -> dict[str, tuple[str, str]]:
    """Who they are to the API server: token → name, group. node: name of the node."""
    return {NODE: (f"system:node:{node}", "system:nodes"), PROXY: ("system:kube-proxy", "")}


def start(of: Layout, plane: ControlPlane, authority: Authority) -> None:
    """Start the kubelet; its node has the cluster's name. containerd must answer."""
    authority.issue(of.folder, "kubelet", (of.node,), subject=f"system:node:{of.name}", group="system:nodes")
    (of.folder / "resolv.conf").write_text("")  # pods know the cluster's names, and no others
    path = of.folder / "kubelet.yaml"
    path.write_text(yaml.safe_dump(_configuration(of)))
    plane.run(
        str(plane.binaries / "kubelet"),
        f"--config={path}",
        f"--kubeconfig={plane.kubeconfig(NODE)}",
        f"--root-dir={of.folder}/kubelet",
        f"--hostname-override={of.name}",
        f"--node-ip={of.node}",
    )


def start_proxy(of: Layout, plane: ControlPlane) -> None:
    """Start kube-proxy, which leads the addresses of Services and NodePorts to pods."""
    plane.run(
        str(plane.binaries / "kube-proxy"),
        f"--kubeconfig={plane.kubeconfig(PROXY)}",
        f"--hostname-override={of.name}",
        f"--cluster-cidr={of.pods}",
        "--proxy-mode=nftables",
        "--nodeport-addresses=0.0.0.0/0",  # by default this mode serves them at the node's first address only
        "--conntrack-max-per-core=0",  # a namespace may not set it
    )


def log_links(of: Layout) -> list[Path]:
    """The links that the kubelet makes to its pods' logs, outside of its folder."""
    return [path for path in Path("/var/log/containers").glob("*") if str(path.readlink()).startswith(f"{of.folder}/")]


def _configuration(of: Layout) -> dict[str, object]:
    folder = of.folder
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(folder / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(folder / "kubelet.crt"),
        "tlsPrivateKeyFile": str(folder / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{of.socket}",
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "resolvConf": str(folder / "resolv.conf"),
        "clusterDNS": [of.node],
        "clusterDomain": DOMAIN,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{of.namespace}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "nodeStatusUpdateFrequency": "4s",
        # The machine's disk is not the cluster's own: what others write there should not evict pods, nor remove images.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
