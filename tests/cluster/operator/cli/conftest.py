"""The `fedjob` command as a data scientist runs it who has the role `edit` in one namespace; the test is the kubelet of its pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controlplane import ADMIN, SCIENTIST, ControlPlane
from cluster.kubelet_port import KubeletPort, add_node, bind
from cluster.operator.conftest import RBAC, RUNNING, sites_of
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

COMPLETE = json.dumps({"reason": "RoundsCompleted", "message": ""})
CLI_SECONDS = 300  # each test starts many processes

Fedjob = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def edit_jobs(plane: ControlPlane) -> None:
    """Jobs are part of the role `edit`, as the chart has it."""
    labels = {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    rules = [{"apiGroups": ["fedjob.dev"], "resources": ["federatedjobs"], "verbs": verbs}]
    plane.user(ADMIN).call(
        "POST", f"{RBAC}/clusterroles", {"metadata": {"name": "edit-jobs", "labels": labels}, "rules": rules}
    )


@pytest.fixture
def scientist(admin: Any, namespace: str, edit_jobs: None, plane: ControlPlane, until: Any) -> Any:
    """The role `edit` in the test's namespace; the API server as its bearer sees it."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    subject = {"kind": "User", "name": "scientist", "apiGroup": "rbac.authorization.k8s.io"}
    body = {"metadata": {"name": "scientist"}, "roleRef": reference, "subjects": [subject]}
    admin.call("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", body)
    kube = plane.user(SCIENTIST)
    until("the role to hold", lambda: may_list(kube, namespace))
    return kube


def may_list(kube: Any, namespace: str) -> bool:
    """Whether jobs may be listed."""
    try:
        return bool(kube.list(names.FEDERATED_JOB, namespace) == [])
    except AssertionError:
        return False


@pytest.fixture
def fedjob(plane: ControlPlane, namespace: str, tmp_path: Path) -> Fedjob:
    """Runs the command in the test's namespace, without a terminal."""

    def run(*words: str, code: int = 0, token: str = SCIENTIST, where: bool = True) -> subprocess.CompletedProcess[str]:
        place = ["--kubeconfig", str(plane.kubeconfig(token)), "-n", namespace] if where else []
        command = [sys.executable, "-m", "fedjob.cli.main", *words, *place]
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def job_file(namespace: str, tmp_path: Path) -> Path:
    """A job file with its script, for the two sites of the test."""
    (tmp_path / "train.py").write_text("import net\n")
    (tmp_path / "net.py").write_text("x = 1\n")
    (tmp_path / "patients.csv").write_text("name\n")
    spec = {
        "workflow": {"rounds": 3},
        "trainer": {"command": ["python", "train.py"]},
        "sites": [{"name": name} for name in sites_of(namespace)],
    }
    document = {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": {"name": "digits"}, "spec": spec}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "job.yaml"


@pytest.fixture
def node(plane: ControlPlane, admin: Any, namespace: str) -> Iterator[KubeletPort]:
    """A node called as the namespace is, whose kubelet is the test."""
    port = KubeletPort()
    port.start(plane.folder / "server.crt", plane.folder / "server.key")
    remove = add_node(admin, namespace[:60].rstrip("-"), port.port)
    yield port
    remove()
    port.stop()


def place(admin: Any, namespace: str, pod: Any, container: str) -> None:
    """The pod runs on the node."""
    bind(admin, pod, namespace[:60].rstrip("-"))
    running = {
        "name": container,
        "image": "x",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {}},
    }
    status = {**RUNNING, "containerStatuses": [running]}
    admin.patch(names.POD, namespace, pod["metadata"]["name"], {"status": status}, "/status")


def started(admin: Any, kubelet: Any, job: Any, namespace: str) -> dict[str, str]:
    """Server and clients run on the node; the name of each one's pod."""
    (server,) = kubelet.run(SERVER, 1)
    place(admin, namespace, server, SERVER)
    job.wait("ServerReady", "True", "Ready")
    found = {SERVER: server["metadata"]["name"]}
    for pod in kubelet.run(CLIENT, 2):
        place(admin, namespace, pod, CLIENT)
        found[pod["metadata"]["labels"][names.SITE_LABEL]] = pod["metadata"]["name"]
    return found
