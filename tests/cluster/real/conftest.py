"""Fixtures of the tests on a real cluster: kubelet, containerd, images. One cluster of one node serves a whole run.

Where this machine lacks something they are skipped, and say what; with FEDJOB_REQUIRE_CLUSTER set they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.helm import Helm
from cluster.kube import Kube, until
from cluster.real import federation, host, installation
from cluster.real.cluster import Cluster, failure, running
from cluster.real.images import Images
from fedjob_operator.names import POD

NAME = "e2e"
START_SECONDS = 300  # with the import of images; for the first test that asks for the cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of a run waits for the cluster; none of them waits for ever."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(START_SECONDS + 300))


def _binaries() -> Path:
    """The folder of programs; ends the test where no cluster can be."""
    given = os.environ.get("FEDJOB_CONTROL_PLANE")
    if why := host.lacking(Path(given) if given else None):
        (pytest.fail if os.environ.get("FEDJOB_REQUIRE_CLUSTER") else pytest.skip)(why)
    assert given
    return Path(given)


@pytest.fixture(scope="session")
def binaries() -> Path:
    """The folder of programs that hack/control-plane prints."""
    return _binaries()


@pytest.fixture(scope="session")
def images() -> Images:
    """The images that hack/images has built."""
    found = Images(Path(os.environ.get("FEDJOB_IMAGES", "build/images")))
    if why := found.lacking():
        (pytest.fail if os.environ.get("FEDJOB_REQUIRE_CLUSTER") else pytest.skip)(why)
    return found


@pytest.fixture(scope="session")
def cluster(binaries: Path, images: Images) -> Iterator[Cluster]:
    """A real cluster with the images of fedjob."""
    with running(NAME, binaries) as made:
        for archive in images.archives:
            made.import_image(archive)
        yield made


@pytest.fixture(autouse=True)
def _stands(request: pytest.FixtureRequest) -> None:
    """A cluster that has lost a process fails the tests after it at once, with that process's last words."""
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").check()


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Kube:
    """The API server as an administrator sees it."""
    return cluster.admin


@pytest.fixture(scope="session")
def hub(cluster: Cluster, images: Images) -> Helm:
    """The hub, installed by its chart, and three hospitals; as the helm that installed it."""
    helm = installation.install(cluster, images)
    federation.found(cluster, images)
    return helm


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A test that failed shows what the cluster has to say: it is gone when a person comes to look."""
    report = yield
    if report.failed:
        clusters = (found for found in getattr(item, "funcargs", {}).values() if isinstance(found, Cluster))
        report.sections.extend(("the cluster", failure(made)) for made in clusters)
    return report


@pytest.fixture
def pod(cluster: Cluster, admin: Kube, namespace: str) -> Callable[..., Any]:
    """Makes a pod that Pod Security "restricted" lets in: `pod(name, image, command…, volumes={folder: claim})`."""

    def make(name: str, image: str, *command: str, volumes: dict[str, str] | None = None) -> Any:
        claims = list(enumerate((volumes or {}).items()))
        container = {
            "name": "main",
            "image": image,
            "command": list(command),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": f"v{i}", "mountPath": folder} for i, (folder, _) in claims],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": f"v{i}", "persistentVolumeClaim": {"claimName": claim}} for i, (_, claim) in claims],
        }
        return admin.create(POD, namespace, name, spec=spec, metadata={"labels": {"app": name}})

    return make


@pytest.fixture
def output(cluster: Cluster, admin: Kube, namespace: str) -> Callable[[str], str]:
    """What a pod has printed, once it has ended well."""

    def read(name: str) -> str:
        def ended() -> str:
            phase = str(admin.get(POD, namespace, name)["status"].get("phase"))
            assert phase != "Failed", cluster.plane.kubectl("logs", name, "--namespace", namespace)
            return phase if phase == "Succeeded" else ""

        until(f"the pod {name} to end", ended)
        return cluster.plane.kubectl("logs", name, "--namespace", namespace)

    return read
