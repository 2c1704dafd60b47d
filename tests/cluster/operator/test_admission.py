"""What the operator's token is refused although its role allows the verb: everything that is not what the operator makes."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import pytest

from cluster.controlplane import OPERATOR, ControlPlane
from cluster.kube import APPLY, MERGE, Kube, RefusedError, until
from cluster.samples import sample
from fedjob_operator import names
from fedjob_operator.names import Kind

LABELS = {"app.kubernetes.io/managed-by": "fedjob"}
JOB_SPEC: dict[str, Any] = {
    "template": {
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True},
            "containers": [
                {
                    "name": "client",
                    "image": "example/runtime:1",
                    "env": [{"name": "A", "value": "b"}],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "volumes": [{"name": "tls", "secret": {"secretName": "fj-a"}}, {"name": "tmp", "emptyDir": {}}],
        }
    }
}

RULES = {f"fedjob-operator-{rule}" for rule in ("children", "secrets", "jobs")}


@pytest.fixture
def forger(plane: ControlPlane, admin: Kube, namespace: str) -> Kube:
    """Whoever has the operator's token; the policies are in force."""
    found = plane.user(OPERATOR)

    def refused() -> bool:
        try:
            make(found, admin, namespace, names.CONFIG_MAP, "other", dryRun="All")
        except RefusedError as e:
            return "the operator writes objects whose name begins with fj-" in e.message
        return False

    until("the policies to be in force", refused)
    return found


def owner(admin: Kube, namespace: str) -> dict[str, Any]:
    """The FederatedJob of the test."""
    spec = {"workflow": {"rounds": 1}, "trainer": {"command": ["python", "a.py"]}, "sites": [{"name": "a"}]}
    found = admin.get(names.FEDERATED_JOB, namespace, "a") or admin.create(
        names.FEDERATED_JOB, namespace, "a", spec=spec
    )
    return {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "name": "a", "uid": found["metadata"]["uid"]}


def make(user: Kube, admin: Kube, namespace: str, kind: Kind, name: str, **more: Any) -> Any:
    """An object as the operator makes it, but for what is given: labels, owners, query, parts of the object."""
    query = {"dryRun": more.pop("dryRun")} if "dryRun" in more else {}
    owners = more.pop("owners", [owner(admin, namespace)])
    metadata = {"name": name, "namespace": namespace, "labels": more.pop("labels", LABELS), "ownerReferences": owners}
    body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **more}
    if kind is names.JOB:
        return user.call("POST", kind.path(namespace), body, **query)
    return user.call("PATCH", kind.path(namespace, name), body, APPLY, fieldManager="x", force="true", **query)


CERTIFICATE = {"type": "kubernetes.io/tls", "stringData": {"tls.key": "", "tls.crt": ""}}
OPAQUE = {"type": "Opaque", "stringData": {"password": ""}}
EVERYWHERE: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_what_the_operator_makes_is_taken(forger: Kube, admin: Kube, namespace: str) -> None:
    make(forger, admin, namespace, names.SECRET, "fj-a", **CERTIFICATE)
    make(forger, admin, namespace, names.SECRET, "fj-a", **CERTIFICATE)
    make(forger, admin, namespace, names.NETWORK_POLICY, "fj-a", spec=EVERYWHERE)
    make(forger, admin, namespace, names.JOB, "fj-a-s1", spec=JOB_SPEC)


@pytest.mark.parametrize(
    ("kind", "name", "more", "word"),
    [
        (names.SECRET, "registry-login", CERTIFICATE, "begins with fj-"),
        (names.SECRET, "fedjob-authority", CERTIFICATE, "begins with fj-"),  # of another namespace than the operator's
        (names.SECRET, "fj-a", {**CERTIFICATE, "labels": {}}, "bears the label"),
        (names.SECRET, "fj-a", {**CERTIFICATE, "owners": []}, "belongs to a FederatedJob"),
        (names.SECRET, "fj-a", OPAQUE, "no token of an account"),
        (names.CONFIG_MAP, "kube-root-ca.crt", {}, "begins with fj-"),
        (names.SERVICE, "api", {"spec": {"ports": [{"port": 1}]}}, "begins with fj-"),
        (names.NETWORK_POLICY, "allow-all", {"spec": EVERYWHERE}, "begins with fj-"),
        (names.NETWORK_POLICY, "fj-a", {"spec": EVERYWHERE, "owners": []}, "belongs to a FederatedJob"),
        (names.JOB, "miner", {"spec": JOB_SPEC}, "begins with fj-"),
    ],
)
def test_what_it_does_not_make_is_refused(
    forger: Kube, admin: Kube, namespace: str, kind: Kind, name: str, more: dict[str, Any], word: str
) -> None:
    with pytest.raises(RefusedError, match=word):
        make(forger, admin, namespace, kind, name, **more)


@pytest.mark.parametrize("kind", [names.SECRET, names.CONFIG_MAP, names.NETWORK_POLICY], ids=lambda kind: kind.name)
def test_what_others_made_is_neither_changed_nor_taken_over(
    forger: Kube, admin: Kube, namespace: str, kind: Kind
) -> None:
    """Not even under a name of ours."""
    every: dict[Kind, dict[str, Any]] = {names.NETWORK_POLICY: {"spec": EVERYWHERE}, names.SECRET: CERTIFICATE}
    parts = every.get(kind, {})
    admin.create(kind, namespace, "fj-theirs", **parts)
    with pytest.raises(RefusedError, match="changes only what it made"):
        make(forger, admin, namespace, kind, "fj-theirs", **parts)


def test_a_job_of_others_is_not_deleted(forger: Kube, admin: Kube, namespace: str) -> None:
    admin.create(names.JOB, namespace, "payroll", spec=JOB_SPEC)
    with pytest.raises(RefusedError, match="begins with fj-"):
        forger.call("DELETE", names.JOB.path(namespace, "payroll"))


@pytest.mark.parametrize(("labels", "word"), [({}, "bears the label"), (LABELS, "")], ids=["theirs", "ours"])
def test_an_assignment_of_others_is_not_deleted(
    forger: Kube, admin: Kube, namespace: str, labels: dict[str, str], word: str
) -> None:
    admin.create(names.SITE_JOB, namespace, "fj-a", metadata={"labels": labels}, spec=sample("SiteJob")["spec"])
    with pytest.raises(RefusedError, match=word) if word else nullcontext():
        forger.call("DELETE", names.SITE_JOB.path(namespace, "fj-a"))


HOST = {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}
TOKENS = {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}
LOGIN = {"volumes": [{"name": "s", "secret": {"secretName": "registry-login"}}]}


@pytest.mark.parametrize(
    ("pod", "container", "word"),
    [
        ({"serviceAccountName": "admin"}, {}, "the account default and no token"),
        ({"automountServiceAccountToken": True}, {}, "the account default and no token"),
        ({"automountServiceAccountToken": None}, {}, "the account default and no token"),
        ({"hostNetwork": True}, {}, "share nothing with their node"),
        ({"hostPID": True}, {}, "share nothing with their node"),
        ({"hostIPC": True}, {}, "share nothing with their node"),
        (HOST, {}, "volumes of jobs"),
        (TOKENS, {}, "volumes of jobs"),
        (LOGIN, {}, "volumes of jobs"),
        ({"securityContext": {}}, {}, "do not run as root"),
        (
            {},
            {
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"], "add": ["SYS_TIME"]},
                }
            },
            "no privilege",
        ),
        ({}, {"securityContext": {"allowPrivilegeEscalation": False}}, "no privilege"),
        ({}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "b", "key": "c"}}}]}, "plain values"),
        ({}, {"envFrom": [{"secretRef": {"name": "b"}}]}, "plain values"),
    ],
)
@pytest.mark.parametrize("where", ["containers", "initContainers"])
def test_a_job_with_more_rights_than_ours_is_refused(
    forger: Kube, admin: Kube, namespace: str, pod: dict[str, Any], container: dict[str, Any], word: str, where: str
) -> None:
    spec = deepcopy(JOB_SPEC)
    inner = spec["template"]["spec"]
    plain = inner["containers"][0]
    inner.update(pod)
    changed = {**plain, **container, "name": "changed"}
    inner[where] = [*inner.get(where, ()), changed]
    with pytest.raises(RefusedError, match=word):
        make(forger, admin, namespace, names.JOB, "fj-a-s2", spec=spec)


def test_the_rules_compile(forger: Kube, admin: Kube) -> None:
    """The API server's own check of the types."""
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def checked(name: str) -> dict[str, Any] | None:
        policy = admin.call("GET", f"{policies}/{name}")
        status: dict[str, Any] = policy["status"]
        return status if status.get("observedGeneration") == policy["metadata"]["generation"] else None

    for name in sorted(RULES):
        assert until(f"{name} to be checked", partial(checked, name))["typeChecking"] == {}


def test_a_patch_by_another_way_is_judged_alike(forger: Kube, admin: Kube, namespace: str) -> None:
    admin.create(names.SECRET, namespace, "registry-login")
    with pytest.raises(RefusedError, match="ValidatingAdmissionPolicy"):
        forger.call("PATCH", names.SECRET.path(namespace, "registry-login"), {"metadata": {"labels": LABELS}}, MERGE)
