"""helm for the tests of the charts: built by hack/control-plane, once."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from cluster.controlplane import ADMIN, ControlPlane
from cluster.helm import ROOT, Helm
from cluster.kube import Kube, RefusedError, until


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster: it renders."""
    return Helm(_binary(), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def installer(plane: ControlPlane, helm: Helm) -> Helm:
    """helm with the rights of an administrator of the control plane."""
    return Helm(helm.binary, helm.folder, plane.kubeconfig(ADMIN))


@pytest.fixture(scope="session")
def monitoring(plane: ControlPlane, admin: Kube) -> None:
    """The kinds of the Prometheus operator, from its own module."""
    done = subprocess.run([ROOT / "hack" / "monitoring-crds"], capture_output=True, text=True, check=True, timeout=120)
    for kind in ("servicemonitors", "podmonitors", "prometheusrules"):
        path = Path(done.stdout.strip(), f"monitoring.coreos.com_{kind}.yaml")
        plane.kubectl("apply", "--server-side", "-f", str(path))
        until(f"{kind} to be served", partial(_served, admin, f"/apis/monitoring.coreos.com/v1/{kind}"))


def _served(admin: Kube, path: str) -> bool:
    try:
        return bool(admin.call("GET", path))
    except RefusedError:
        return False


def _binary() -> Path:
    path = Path(os.environ["FEDJOB_CONTROL_PLANE"], "helm")
    assert path.exists(), "helm is missing: run hack/control-plane helm, as make e2e does"
    return path
