"""Fixtures of the tests that need a real API server. `make e2e` runs them; without its binaries they are skipped, and say so.

All tests of a run share one control plane, and each has a namespace of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import measures
from cluster.apiproxy import ApiProxy
from cluster.controlplane import ADMIN, ControlPlane, control_plane
from cluster.kube import Kube, RefusedError, until
from fedjob_operator import names

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BINARIES = "FEDJOB_CONTROL_PLANE"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs binaries that are not there.

    With ONLY=O4,O6 what belongs to no measure named is left out; without FULL=1 what takes long: each has a shorter form.
    """
    full = bool(os.environ.get("FULL"))
    wanted = {name for name in os.environ.get("ONLY", "").split(",") if name}
    missing = not (os.environ.get(BINARIES) and shutil.which("etcd"))
    why = pytest.mark.skip(reason=f"needs etcd and {BINARIES}=$(hack/control-plane), as make e2e sets it")
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        names = _measures_of(item)
        item.user_properties += [("measure", name) for name in names]
        if missing:
            item.add_marker(why)
        if (wanted and not wanted & names) or (not full and item.get_closest_marker("full")):
            items.remove(item)
            config.hook.pytest_deselected(items=[item])


def _measures_of(item: pytest.Item) -> set[str]:
    return {str(marker.args[0]) for marker in item.iter_markers("measure")}


_tallies: dict[str, measures.Tally] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count a test for its measures: its own run, and a setup or teardown that did not go well."""
    properties = dict(report.user_properties)
    if "measure" not in properties or (report.when != "call" and report.passed):
        return
    figures: list[Any] = [value for key, value in report.user_properties if key == "measured"]
    for key, name in report.user_properties:
        if key == "measure":
            tally = _tallies.setdefault(str(name), measures.Tally())
            tally.add(report.nodeid, report.outcome, report.duration, figures)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each measure, and write their entries to the file that MEASURES names."""
    for line in measures.table(_tallies):
        terminalreporter.write_line(line)
    if path := os.environ.get("MEASURES"):
        measures.write(Path(path), _tallies)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Give a figure of this test's measure: `measured(value, unit, goal, met, **detail)`."""

    def give(value: object, unit: str, goal: str, met: bool, **detail: object) -> None:
        figure = {"value": value, "unit": unit, "goal": goal, "met": met, "detail": detail}
        request.node.user_properties.append(("measured", figure))

    return give


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """One control plane for all tests, with the CRDs."""
    with control_plane(Path(os.environ[BINARIES])) as made:
        admin = made.user(ADMIN)
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            install(admin, yaml.safe_load(path.read_text()))
        yield made


def install(admin: Kube, definition: dict[str, Any]) -> None:
    """Make a kind known, and wait until it is served."""
    name = definition["metadata"]["name"]
    admin.call("POST", DEFINITIONS, definition, fieldValidation="Strict")
    spec = definition["spec"]
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    until(f"the API server to serve {name}", lambda: _served(admin, name, path))


def _served(admin: Kube, name: str, path: str) -> bool:
    conditions = admin.call("GET", f"{DEFINITIONS}/{name}")["status"].get("conditions") or ()
    if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
        return False
    try:
        return bool(admin.call("GET", path))
    except RefusedError:
        return False


@pytest.fixture(scope="session")
def admin(plane: ControlPlane) -> Kube:
    """The API server as an administrator sees it."""
    return plane.user(ADMIN)


@pytest.fixture
def namespace(admin: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own that enforces Pod Security "restricted", with its service account.

    Jobs that the test leaves are deleted: the operators of later tests would see to them.
    """
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].rstrip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"generateName": f"{name}-", "labels": labels}}
    made = str(admin.call("POST", "/api/v1/namespaces", body)["metadata"]["name"])
    until(f"the service account of {made}", lambda: _has_account(admin, made))  # pods are refused before
    yield made
    _delete_jobs(admin, made)


def _delete_jobs(admin: Kube, namespace: str) -> None:
    """The jobs of a namespace, and what sites anywhere have of them: without an operator nobody else would."""
    with contextlib.suppress(RefusedError):  # a plane without our kinds
        for job in admin.list(names.FEDERATED_JOB, namespace):
            admin.delete(names.FEDERATED_JOB, namespace, job["metadata"]["name"])
        for part in admin.list(names.SITE_JOB):
            if part["spec"]["job"]["namespace"] == namespace:
                admin.delete(names.SITE_JOB, part["metadata"]["namespace"], part["metadata"]["name"])


def _has_account(admin: Kube, namespace: str) -> bool:
    try:
        return bool(admin.call("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default"))
    except RefusedError:
        return False


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[ApiProxy]:
    """A proxy before the API server, which counts calls and makes faults."""
    with ApiProxy(plane.port, plane.ca, plane.folder / "server.crt", plane.folder / "server.key") as made:
        yield made


@pytest.fixture(name="until")
def until_fixture() -> Any:
    """Wait for a condition: `until(what, found)`."""
    return until
