"""fedjob on a real cluster, installed as its users install it: the hub's chart, with the images of this checkout."""

from __future__ import annotations

from ..helm import ROOT, Helm
from .cluster import Cluster
from .images import Images

SYSTEM = "fedjob-system"
NAME = "fedjob-operator"
REPLICAS = 2  # the chart's default
SELECTOR = f"app.kubernetes.io/name={NAME}"

_SECONDS = "120s"


def install(cluster: Cluster, images: Images) -> Helm:
    """Install the chart into a namespace that enforces Pod Security "restricted", and wait until the operator is ready."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    helm = Helm(cluster.plane.binaries / "helm", cluster.layout.folder, cluster.kubeconfig)
    values = (
        f"image.registry={images.registry},image.tag={images.tag},runtimeImage.tag={images.tag},rbac.clusterWide=true"
    )
    chart = str(ROOT / "charts" / "fedjob")
    helm.run("install", "fedjob", chart, "--namespace", SYSTEM, "--set", values, "--wait", "--timeout", _SECONDS)
    return helm
