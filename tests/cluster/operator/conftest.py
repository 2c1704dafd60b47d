"""The operator as a process with its own rights, and the hands that play users and kubelets, on the control plane of `cluster`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controlplane import ADMIN, OPERATOR, ControlPlane, free_port
from cluster.kube import PATIENCE_SECONDS, Kube, until
from cluster.replica import Kept, Operator, begin
from fedjob_operator import names

ROOT = Path(__file__).parents[3]
SYSTEM = "fedjob-system"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RUNNING = {  # status of a pod that is ready
    "phase": "Running",
    "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "PodScheduled")],
}


@pytest.fixture(scope="session", autouse=True)
def rights(request: pytest.FixtureRequest) -> None:
    """The operator's namespace, role and admission policies, as `operator/role.yaml` and `operator/admission.yaml` have them."""
    if not os.environ.get("FEDJOB_CONTROL_PLANE"):
        return
    plane: ControlPlane = request.getfixturevalue("plane")
    admin = plane.user(ADMIN)
    admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": SYSTEM}})
    subject = {"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}
    for role in yaml.safe_load_all((ROOT / "operator" / "role.yaml").read_text()):
        kind = role["kind"]
        place = f"{RBAC}/namespaces/{SYSTEM}" if kind == "Role" else RBAC
        admin.call("POST", f"{place}/{kind.lower()}s", role)
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role["metadata"]["name"]}
        body = {"metadata": {"name": "fedjob-operator"}, "roleRef": reference, "subjects": [subject]}
        admin.call("POST", f"{place}/{kind.lower()}bindings", body)
    for policy in policies():
        admin.call("POST", f"{ADMISSION}/validatingadmissionpolicies", policy)
        metadata = {"name": policy["metadata"]["name"]}
        spec = {"policyName": metadata["name"], "validationActions": ["Deny"]}
        admin.call("POST", f"{ADMISSION}/validatingadmissionpolicybindings", {"metadata": metadata, "spec": spec})


def policies() -> list[Any]:
    """What bounds the operator's writing, for the users of these tests."""
    text = (ROOT / "operator" / "admission.yaml").read_text()
    account = '== "system:serviceaccount:fedjob-system:fedjob-operator"'
    assert account in text
    return list(yaml.safe_load_all(text.replace(account, 'in ["operator", "limited"]')))


@pytest.fixture
def start_operator(plane: ControlPlane, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Starts replicas; what still runs at the end of the test is killed."""
    started: list[Operator] = []

    def start(*more: str, url: str = "", identity: str = "replica-1", token: str = OPERATOR) -> Operator:
        metrics, reports = free_port(), free_port()
        arguments = [
            "--namespace", SYSTEM, "--identity", identity, "--runtime-image", "example/runtime:1",
            "--hub-url", f"https://127.0.0.1:{reports}", "--hub-name", "hub.test", *more,
        ]  # fmt: skip
        log = tmp_path / f"operator-{len(started)}.log"
        started.append(begin(arguments, plane.kubeconfig(token, url), log, metrics, reports))
        return started[-1]

    yield start
    for operator in started:
        if operator.alive:
            operator.kill()


@pytest.fixture
def keep_operator(start_operator: Callable[..., Operator]) -> Iterator[Callable[..., Kept]]:
    """Starts a replica and keeps it running."""
    kept: list[tuple[Kept, threading.Thread]] = []

    def keep(*more: str, **options: Any) -> Kept:
        replica = Kept(lambda: start_operator(*more, **options))
        thread = threading.Thread(target=replica.run, daemon=True)
        thread.start()
        kept.append((replica, thread))
        return replica

    yield keep
    for replica, thread in kept:
        replica.stop()
        thread.join(10)


@pytest.fixture
def namespace(admin: Kube, namespace: str) -> str:
    """The test's own namespace, with a policy that allows all and two sites that are open to it."""
    for site in sites_of(namespace):
        admin.create(names.FEDERATED_SITE, SYSTEM, site, spec={"approved": True, "allowedNamespaces": [namespace]})
    allow_all(admin, namespace)
    return namespace


def allow_all(admin: Kube, namespace: str) -> None:
    """Make the policy of a namespace that lets in all that the tests ask for."""
    rule = {
        "name": "all",
        "images": [{"repository": "example/runtime"}],
        "inlineCode": "Allow",
        "approval": "Automatic",
    }
    admin.create(names.SITE_POLICY, namespace, "default", spec={"rules": [rule]})


def sites_of(namespace: str) -> tuple[str, str]:
    """Names of the two sites of a test."""
    return f"a-{namespace}"[:63].rstrip("-"), f"b-{namespace}"[:63].rstrip("-")


@dataclass
class Kubelet:
    """Plays the kubelet in one namespace: writes the status of pods that the Job controller has made."""

    kube: Kube
    namespace: str

    def pods(self, role: str) -> list[Any]:
        """Pods of a role."""
        return self.kube.list(names.POD, self.namespace, f"{names.ROLE_LABEL}={role}")

    def live(self, role: str) -> list[Any]:
        """Pods of a role that may be alive."""
        return [pod for pod in self.pods(role) if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def run(self, role: str, count: int) -> list[Any]:
        """Wait for `count` live pods of a role, and let them run."""
        pods = until(f"{count} {role} pods", lambda: len(found := self.live(role)) >= count and found)
        for pod in pods:
            self.start(pod)
        return list(pods)

    def start(self, pod: Any) -> None:
        """The pod runs, and is ready."""
        self.write(pod, RUNNING)

    def run_all(self, role: str, count: int) -> None:
        """Let pods of a role run as they come, until `count` of them do."""
        ran: set[str] = set()

        def all_run() -> bool:
            for pod in self.live(role):
                if pod["metadata"]["uid"] not in ran:
                    self.start(pod)
                    ran.add(pod["metadata"]["uid"])
            return len(ran) >= count

        until(f"{count} {role} pods", all_run, 300.0)

    def end(self, pod: Any, code: int, words: str = "") -> None:
        """The pod's container ends."""
        name = pod["spec"]["containers"][0]["name"]
        ended = {"exitCode": code, "message": words, "reason": "Completed" if code == 0 else "Error"}
        container = {
            "name": name,
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        phase = "Succeeded" if code == 0 else "Failed"
        self.write(
            pod,
            {"phase": phase, "containerStatuses": [container], "conditions": [{"type": "Ready", "status": "False"}]},
        )

    def write(self, pod: Any, status: dict[str, Any]) -> None:
        """Write a pod's status."""
        self.kube.patch(names.POD, self.namespace, pod["metadata"]["name"], {"status": status}, "/status")

    def tell(self, pod: Any, reason: str, words: str) -> None:
        """An event about a pod."""
        about = {"kind": "Pod", **{key: pod["metadata"][key] for key in ("namespace", "name", "uid")}}
        name = f"{pod['metadata']['name']}.{reason.lower()}"
        event = {"involvedObject": about, "reason": reason, "message": words, "type": "Warning"}
        self.kube.create(names.EVENT, self.namespace, name, **event)

    def bury(self) -> None:
        """Pods that are being deleted go at last: nobody else confirms that they ended."""
        for pod in self.kube.list(names.POD, self.namespace):
            if "deletionTimestamp" in pod["metadata"]:
                body = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
                with contextlib.suppress(AssertionError):
                    self.kube.call("DELETE", names.POD.path(self.namespace, pod["metadata"]["name"]), body)


@pytest.fixture
def kubelet(admin: Kube, namespace: str) -> Kubelet:
    """The kubelet of the test's namespace."""
    return Kubelet(admin, namespace)


@dataclass
class TheJob:
    """A FederatedJob of the test."""

    kube: Kube
    namespace: str
    name: str

    @property
    def raw(self) -> Any:
        """As it is now, None if it is gone."""
        return self.kube.get(names.FEDERATED_JOB, self.namespace, self.name)

    @property
    def status(self) -> Any:
        """Its status."""
        return (self.raw or {}).get("status") or {}

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = [c for c in self.status.get("conditions") or () if c["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    def edit(self, **spec: Any) -> None:
        """Change its spec."""
        self.kube.patch(names.FEDERATED_JOB, self.namespace, self.name, {"spec": spec})

    def wait(self, kind: str, status: str, reason: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition."""
        until(f"{kind} {status} {reason}", lambda: self.condition(kind) == (status, reason) or None, seconds)


@pytest.fixture
def submit(admin: Kube, namespace: str) -> Callable[..., TheJob]:
    """Makes a FederatedJob of the sites a and b."""

    def make(name: str = "digits", **changes: Any) -> TheJob:
        spec = {
            "workflow": {"type": "FedAvg", "rounds": 3},
            "trainer": {"files": {"train.py": "print()"}},
            "sites": [{"name": name} for name in sites_of(namespace)],
            **changes,
        }
        admin.create(names.FEDERATED_JOB, namespace, name, spec=spec)
        return TheJob(admin, namespace, name)

    return make
