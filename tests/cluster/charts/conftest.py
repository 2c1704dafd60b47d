"""helm for the tests of the charts: built by hack/control-plane, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.controlplane import ADMIN, ControlPlane
from cluster.helm import Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster: it renders."""
    return Helm(_binary(), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def installer(plane: ControlPlane, helm: Helm) -> Helm:
    """helm with the rights of an administrator of the control plane."""
    return Helm(helm.binary, helm.folder, plane.kubeconfig(ADMIN))


def _binary() -> Path:
    path = Path(os.environ["FEDJOB_CONTROL_PLANE"], "helm")
    assert path.exists(), "helm is missing: run hack/control-plane helm, as make e2e does"
    return path
