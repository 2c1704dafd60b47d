"""The hub's chart on a real API server: installed, upgraded, rolled back, uninstalled; and the operator with the rights it gives."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controlplane import ADMIN, ControlPlane, free_port
from cluster.helm import ROOT, Helm, HelmError, one
from cluster.kube import Kube, until
from fedjob_operator import names

CHART = str(ROOT / "charts" / "fedjob")
JOB = {
    "workflow": {"rounds": 2},
    "trainer": {"files": {"train.py": "print()"}},
    "sites": [{"name": "a-site"}],
}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def release(installer: Helm, namespace: str) -> Iterator[str]:
    """A release in the test's namespace. The plane has the definitions already; helm takes them over."""
    settings = f"rbac.namespaces={{{namespace}}}"
    installer.run("install", "fedjob", CHART, "-n", namespace, "--take-ownership", "--set", settings)
    yield namespace
    with contextlib.suppress(HelmError):
        installer.run("uninstall", "fedjob", "-n", namespace)


def test_a_dry_run_on_the_server_says_that_every_object_is_taken(installer: Helm, namespace: str) -> None:
    told = installer.run("install", "fedjob", CHART, "-n", namespace, "--dry-run=server", "--take-ownership")
    assert "kind: Deployment" in told
    assert f"-n {namespace}" in told.rpartition("NOTES:")[2]


@pytest.mark.usefixtures("monitoring")
def test_monitors_and_rules_are_what_the_prometheus_operator_takes(installer: Helm, admin: Kube, release: str) -> None:
    switches = ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")
    on = ",".join(f"metrics.{switch}.enabled=true" for switch in switches)
    options = ("--reuse-values", "--set", on, "--set", "metrics.scrapeFrom={monitoring}")
    installer.run("upgrade", "fedjob", CHART, "-n", release, *options)
    group = f"/apis/monitoring.coreos.com/v1/namespaces/{release}"
    [endpoint] = admin.call("GET", f"{group}/servicemonitors/fedjob-operator")["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    monitor = admin.call("GET", f"{group}/podmonitors/fedjob-jobs")["spec"]
    assert monitor["namespaceSelector"] == {"matchNames": [release]}
    rules = admin.call("GET", f"{group}/prometheusrules/fedjob")["spec"]
    assert rules == yaml.safe_load((ROOT / "charts" / "fedjob" / "files" / "alerts.yaml").read_text())
    board = admin.get(names.CONFIG_MAP, release, "fedjob-dashboard")["data"]["fedjob.json"]
    assert json.loads(board)["uid"] == "fedjob"


def test_the_operators_pods_pass_a_namespace_that_enforces_restricted(admin: Kube, release: str, helm: Helm) -> None:
    pods = until("the operator's pods", lambda: len(found := _pods(admin, release)) == 2 and found)
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"fedjob-operator"}
    test = one(helm.template("fedjob", namespace=release), "Pod")
    test["spec"]["serviceAccountName"] = "default"  # its own is made with it, by helm test
    admin.call("POST", f"{names.POD.path(release)}", test, dryRun="All")


def _pods(admin: Kube, namespace: str) -> list[Any]:
    return admin.list(names.POD, namespace, "app.kubernetes.io/name=fedjob-operator")


def test_upgrade_and_rollback_change_the_operator_and_nothing_of_a_job(
    installer: Helm, admin: Kube, release: str
) -> None:
    admin.create(names.FEDERATED_JOB, release, "digits", spec=JOB)
    before = _versions(admin, release)
    installer.run("upgrade", "fedjob", CHART, "-n", release, "--reuse-values", "--set", "workers=3")
    assert "--workers=3" in _arguments(admin, release)
    installer.run("rollback", "fedjob", "1", "-n", release)
    assert "--workers=8" in _arguments(admin, release)
    assert _versions(admin, release) == before


def _arguments(admin: Kube, namespace: str) -> list[str]:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/fedjob-operator"
    found: list[str] = admin.call("GET", path)["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def _versions(admin: Kube, namespace: str) -> dict[str, Any]:
    """Generation of each definition and version of the job: what a change would show in."""
    found = {crd["metadata"]["name"]: crd["metadata"]["generation"] for crd in admin.call("GET", DEFINITIONS)["items"]}
    return found | {"job": admin.get(names.FEDERATED_JOB, namespace, "digits")["metadata"]["resourceVersion"]}


def test_uninstall_leaves_definitions_and_jobs_and_a_second_install_finds_them(
    installer: Helm, admin: Kube, release: str
) -> None:
    admin.create(names.FEDERATED_JOB, release, "digits", spec=JOB)
    installer.run("uninstall", "fedjob", "-n", release)
    assert admin.get(names.FEDERATED_JOB, release, "digits")
    assert len([c for c in admin.call("GET", DEFINITIONS)["items"] if c["spec"]["group"] == names.GROUP]) == 4
    roles = admin.call("GET", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{release}/roles")["items"]
    assert not roles
    installer.run("install", "fedjob", CHART, "-n", release, "--set", f"rbac.namespaces={{{release}}}")
    assert admin.get(names.FEDERATED_JOB, release, "digits")


class Replica:
    """The operator as a process, with the token of the chart's own service account and the chart's own arguments."""

    def __init__(self, plane: ControlPlane, admin: Kube, namespace: str, log: Path) -> None:
        token = _token(admin, namespace, "fedjob-operator")
        self.metrics, reports = free_port(), free_port()
        content = yaml.safe_load(plane.kubeconfig(ADMIN).read_text())
        content["users"][0]["user"] = {"token": token}
        kubeconfig = log.with_name("kubeconfig")
        kubeconfig.write_text(yaml.safe_dump(content))
        ports = ["--metrics-port", str(self.metrics), "--reports-port", str(reports)]
        command = [sys.executable, "-m", "fedjob_operator", *_arguments(admin, namespace), *ports]
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": namespace, "POD_NAME": "replica-1"}
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)


def _token(admin: Kube, namespace: str, account: str) -> str:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return str(admin.call("POST", path, body)["status"]["token"])


@pytest.fixture
def replica(plane: ControlPlane, admin: Kube, release: str, tmp_path: Path) -> Iterator[Replica]:
    """A replica of the release, limited to one namespace, by Roles alone."""
    made = Replica(plane, admin, release, tmp_path / "operator.log")
    yield made
    made.process.kill()
    made.process.wait(10)


def test_the_roles_of_a_limited_release_are_enough_for_a_job(
    plane: ControlPlane, admin: Kube, release: str, replica: Replica
) -> None:
    admin.create(names.FEDERATED_SITE, release, "a-site", spec={"approved": True, "allowedNamespaces": [release]})
    rule = {"name": "all", "images": [{"repository": "fedjob-runtime"}], "inlineCode": "Allow", "approval": "Automatic"}
    admin.create(names.SITE_POLICY, release, "default", spec={"rules": [rule]})
    admin.create(names.FEDERATED_JOB, release, "digits", spec=JOB)
    until("the server's pod", lambda: admin.list(names.POD, release, f"{names.ROLE_LABEL}={names.SERVER}"))
    until("the assignment", lambda: admin.list(names.SITE_JOB, release))
    account = f"system:serviceaccount:{release}:fedjob-operator"
    refused = [e["requestURI"] for e in plane.audit(account) if e.get("responseStatus", {}).get("code") == 403]
    assert refused == []
    assert replica.process.poll() is None


def _check(plane: ControlPlane, token: Path, namespace: str, port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedjob_operator.apicheck", "--namespace", namespace, "--server", plane.url,
               "--token", str(token), "--ca", str(plane.ca), "--operator", f"http://127.0.0.1:{port}"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_charts_own_test_sees_what_works_and_what_does_not(
    plane: ControlPlane, admin: Kube, helm: Helm, release: str, replica: Replica, tmp_path: Path
) -> None:
    """What the pod of `helm test` runs, with the rights that its own objects give."""
    for found in helm.template("fedjob", namespace=release):
        if (found["metadata"].get("annotations") or {}).get("helm.sh/hook") == "test" and found["kind"] != "Pod":
            group = "/api/v1" if found["kind"] == "ServiceAccount" else "/apis/rbac.authorization.k8s.io/v1"
            admin.call("POST", f"{group}/namespaces/{release}/{found['kind'].lower()}s", found)
    token = tmp_path / "token"
    token.write_text(_token(admin, release, "fedjob-test"))
    until("the Lease", lambda: admin.get(names.LEASE, release, "fedjob-operator"))
    until("the operator to be ready", lambda: _check(plane, token, release, replica.metrics).returncode == 0)
    assert not admin.list(names.FEDERATED_JOB, release)

    replica.process.kill()
    replica.process.wait(10)
    after = _check(plane, token, release, replica.metrics)
    assert after.returncode == 1
    assert "is not ready" in after.stdout
    assert "ok   it refuses spec.workflow.rounds: 0 by name" in after.stdout

    admin.delete(names.LEASE, release, "fedjob-operator")
    assert "no operator has taken the Lease" in _check(plane, token, release, replica.metrics).stdout
    token.write_text("nobody")
    assert "FAIL a FederatedJob is refused: 401" in _check(plane, token, release, replica.metrics).stdout


def test_a_site_gives_a_limited_operator_its_rights_itself(
    plane: ControlPlane, admin: Kube, installer: Helm, namespace: str, tmp_path: Path
) -> None:
    """The hub's administrator has no rights in the site's namespace, and the release no Role there."""
    site = f"{namespace}-s"
    granted = f"rbac.granted={{{site}}}"
    installer.run("install", "fedjob", CHART, "-n", namespace, "--take-ownership", "--set", granted)
    rule = {"name": "all", "images": [{"repository": "fedjob-runtime"}], "inlineCode": "Allow", "approval": "Automatic"}
    values = {
        "site": {"name": "a-site"},
        "hub": {"namespace": namespace, "register": True, "allowedNamespaces": [namespace]},
        "policy": {"rules": [rule]},
        "rbac": {"grant": True},
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(values))
    chart = str(ROOT / "charts" / "fedjob-site")
    installer.run("install", "site", chart, "-n", site, "--create-namespace", "-f", str(tmp_path / "site.yaml"))
    replica = Replica(plane, admin, namespace, tmp_path / "operator.log")
    try:
        admin.create(names.FEDERATED_JOB, namespace, "digits", spec=JOB)
        until("the site's assignment", lambda: [s for s in admin.list(names.SITE_JOB, site) if _accepted(s)])
        account = f"system:serviceaccount:{namespace}:fedjob-operator"
        assert [e["requestURI"] for e in plane.audit(account) if e.get("responseStatus", {}).get("code") == 403] == []
    finally:
        replica.process.kill()
        replica.process.wait(10)


def _accepted(site_job: Any) -> bool:
    conditions = (site_job.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Accepted" and c["status"] == "True" for c in conditions)
