"""The site's chart: what it renders to, and that the API server takes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm import ROOT, Helm, HelmError, one
from cluster.kube import Kube
from cluster.samples import sample
from fedjob.api import SitePolicy
from fedjob_operator import names

CHART = str(ROOT / "charts" / "fedjob-site")
VALUES: dict[str, Any] = {
    "site": {"name": "hospital-a", "displayName": "Hospital A"},
    "policy": {
        "floor": {"pod": {"maxPerJob": {"cpu": "8"}}},
        "rules": [{"name": "trial-42", "images": [{"repository": "registry.example/*"}], "data": ["scans"]}],
    },
    "caBundle": {"configMap": "company-authorities"},
    "data": [{"name": "scans", "claim": "scans-2026", "subPath": "v3"}],
    "claims": [{"name": "scans-2026", "size": "10Gi", "volumeName": "scans-volume", "storageClassName": ""}],
}


@pytest.fixture
def values(tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    return str(path)


def test_helm_finds_nothing_wrong_with_it(helm: Helm, values: str) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART, "-f", values)


def test_the_policy_is_one_that_the_runtime_reads_and_without_rules_lets_nothing_in(helm: Helm, values: str) -> None:
    found = one(helm.template("fedjob-site", "-f", values, namespace="hospital-a"), "SitePolicy", "default")
    policy = SitePolicy.model_validate({**found, "metadata": {"name": "default", "namespace": "hospital-a"}})
    assert policy.spec.rules[0].name == "trial-42"
    assert policy.spec.rules[0].approval == "Manual"
    assert policy.spec.data[0].sub_path == "v3"
    assert policy.spec.ca_bundle is not None
    assert (policy.spec.ca_bundle.config_map, policy.spec.ca_bundle.key) == ("company-authorities", "ca.crt")
    bare = one(helm.template("fedjob-site", "--set", "site.name=a"), "SitePolicy")
    assert bare["spec"]["rules"] == bare["spec"]["data"] == []
    assert "caBundle" not in bare["spec"]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("site.name=", "/site/name"),
        ("site.name=Hospital", "/site/name"),
        ("policy.rule=x", "rule"),
        (
            "policy.rules[0].name=a,policy.rules[0].images[0].repository=x,policy.rules[0].approval=Maybe",
            "/policy/rules/0/approval",
        ),
        ("data[0].name=scans", "claim"),
        ("claims[0].name=x,claims[0].size=much", "/claims/0/size"),
        ("hub.type=Remote", "type"),
        ("caBundle.configMap=Company_CA", "/caBundle/configMap"),
        ("caBundle.secret=x", "secret"),
    ],
)
def test_a_wrong_value_is_refused_and_named(helm: Helm, value: str, field: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template("fedjob-site", "--set", "site.name=a", "--set", value)
    assert f"'{field}'" in str(refused.value)


def test_a_users_labels_are_on_every_object_and_never_instead_of_the_charts(helm: Helm, values: str) -> None:
    more = (
        "--set",
        "commonLabels.team=a,commonLabels.app\\.kubernetes\\.io/name=x",
        "--set",
        "hub.register=true,rbac.grant=true",
    )
    found = helm.template("fedjob-site", "-f", values, *more, namespace="hospital-a")
    assert {o["kind"] for o in found} == {"SitePolicy", "FederatedSite", "PersistentVolumeClaim", "Role", "RoleBinding"}
    for one_of in found:
        labels = one_of["metadata"]["labels"]
        assert (labels["team"], labels["app.kubernetes.io/name"]) == ("a", "fedjob-site")


def test_a_site_is_registered_by_the_release_or_by_the_hubs_administrator_in_the_same_words(
    helm: Helm, installer: Helm, values: str
) -> None:
    more = ("--set", "hub.allowedNamespaces={team-a,team-b}")
    objects = helm.template("fedjob-site", "-f", values, *more, "--set", "hub.register=true", namespace="hospital-a")
    site = one(objects, "FederatedSite", "hospital-a")
    assert site["metadata"]["namespace"] == "fedjob-system"
    assert site["spec"]["local"] == {"namespace": "hospital-a"}
    assert site["spec"]["allowedNamespaces"] == ["team-a", "team-b"]
    told = installer.run("install", "s", CHART, "-n", "default", "-f", values, *more, "--dry-run=client")
    said = yaml.safe_load(told.partition("<<'EOF'\n")[2].partition("\n  EOF")[0])
    assert said["spec"] == {**site["spec"], "local": {"namespace": "default"}}


def test_rights_for_a_limited_hub_are_those_of_the_role(helm: Helm, values: str) -> None:
    everywhere, _ = yaml.safe_load_all((ROOT / "operator" / "role.yaml").read_text())
    without = helm.template("fedjob-site", "-f", values, "--set", "rbac.grant=false")
    assert not [o for o in without if "Role" in o["kind"]]
    objects = helm.template("fedjob-site", "-f", values, namespace="hospital-a")
    assert one(objects, "Role")["rules"] == everywhere["rules"]
    subject = {"kind": "ServiceAccount", "name": "fedjob-operator", "namespace": "fedjob-system"}
    assert one(objects, "RoleBinding")["subjects"] == [subject]


def test_an_approver_decides_and_changes_no_policy(plane: Any, admin: Kube, installer: Helm, namespace: str) -> None:
    who = "rbac.approvers[0].kind=User,rbac.approvers[0].name=jay,rbac.approvers[0].apiGroup=rbac.authorization.k8s.io"
    installer.run("install", "site", CHART, "-n", namespace, "--set", f"site.name=a,{who}")
    made = {**sample("SiteJob"), "metadata": {"name": "digits"}}
    admin.create(names.SITE_JOB, namespace, "digits", spec=made["spec"])
    patch = json.dumps({"spec": {"approval": {"decision": "Denied", "digest": "0123456789abcdef", "by": "jay"}}})
    as_jay = ("-n", namespace, "--as", "jay")
    plane.kubectl("patch", "sitejob", "digits", "--type", "merge", "-p", patch, *as_jay)
    assert admin.get(names.SITE_JOB, namespace, "digits")["spec"]["approval"]["decision"] == "Denied"
    assert (_may(plane, "list sitejobs", *as_jay), _may(plane, "get sitepolicies", *as_jay)) == ("yes", "yes")
    for what in ("patch sitepolicies", "delete sitejobs", "get secrets"):
        assert _may(plane, what, *as_jay) == "no", what


def _may(plane: Any, what: str, *who: str) -> str:
    """What kubectl says to the question; it says no with an exit code as well."""
    try:
        return str(plane.kubectl("auth", "can-i", *what.split(), *who).strip())
    except subprocess.CalledProcessError as e:
        return str(e.stdout.strip())


@pytest.fixture
def site(installer: Helm, namespace: str, values: str) -> str:
    """The site, installed in the test's namespace, its hub in the same."""
    options = ("--set", f"hub.register=true,hub.namespace={namespace},hub.allowedNamespaces={{{namespace}}}")
    installer.run("install", "site", CHART, "-n", namespace, "-f", values, *options)
    return namespace


def test_the_api_server_takes_it_and_uninstalling_leaves_the_data(installer: Helm, admin: Kube, site: str) -> None:
    assert admin.get(names.SITE_POLICY, site, "default")["spec"]["rules"][0]["inlineCode"] == "Deny"
    assert admin.get(names.FEDERATED_SITE, site, "hospital-a")["spec"]["approved"] is True
    installer.run("upgrade", "site", CHART, "-n", site, "--reuse-values", "--set", "policy.suspend=true")
    assert admin.get(names.SITE_POLICY, site, "default")["spec"]["suspend"] is True
    installer.run("uninstall", "site", "-n", site)
    assert admin.get(names.SITE_POLICY, site, "default") is None
    assert admin.get(names.FEDERATED_SITE, site, "hospital-a") is None
    assert admin.get(names.VOLUME_CLAIM, site, "scans-2026")["spec"]["volumeName"] == "scans-volume"
