"""What the hub's chart renders to: properties, not copies of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm import Helm, HelmError, one
from fedjob_operator.settings import KUBE_DNS, CaBundle

ROOT = Path(__file__).parents[3]
ALL_ON = (
    "--set=metrics.serviceMonitor.enabled=true",
    "--set=metrics.podMonitor.enabled=true",
    "--set=metrics.prometheusRule.enabled=true",
    "--set=metrics.dashboard.enabled=true",
    "--set=metrics.scrapeFrom={monitoring}",
    "--set=imagePullSecrets={pull}",
    "--set=caBundle.configMap=company-authorities",
    "--set=nodeSelector.kubernetes\\.io/os=linux",
)


def pods(objects: list[Any]) -> list[Any]:
    found = [o["spec"]["template"]["spec"] for o in objects if o["kind"] in ("Deployment", "Job")]
    return found + [o["spec"] for o in objects if o["kind"] == "Pod"]


def arguments(objects: list[Any]) -> dict[str, str]:
    given = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    return dict(argument.split("=", 1) for argument in given)


def test_helm_finds_nothing_wrong_with_it(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(ROOT / "charts" / "fedjob"))
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(ROOT / "charts" / "fedjob"), *ALL_ON)


@pytest.mark.parametrize("values", [(), ALL_ON], ids=["defaults", "all-on"])
def test_every_pod_is_restricted_and_only_what_asks_the_api_server_has_a_token(helm: Helm, values: Any) -> None:
    found = helm.template("fedjob", *values)
    assert len(pods(found)) == 2
    for pod in pods(found):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["command"][:2] == ["python", "-m"]
        if values:
            assert pod["imagePullSecrets"] == [{"name": "pull"}]
            assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    accounts = [o for o in found if o["kind"] == "ServiceAccount"]
    assert all(account["automountServiceAccountToken"] is False for account in accounts)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("replicas=many", "/replicas"),
        ("replica=2", "replica"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.name=x", "name"),
        ("crds.keep=please", "/crds/keep"),
        ("controllers={hub,spoke}", "/controllers/1"),
        ("rbac.namespaces={Team_A}", "/rbac/namespaces/0"),
        ("metrics.podMonitor.interval=soon", "/metrics/podMonitor/interval"),
        ("extraArgs={workers}", "/extraArgs/0"),
        ("networkPolicy.dns[0].cidr=10.0.0.0/8", "cidr"),
    ],
)
def test_a_wrong_value_is_refused_and_named(helm: Helm, value: str, field: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template("fedjob", "--set", value)
    assert f"'{field}'" in str(refused.value)


def test_a_monitor_that_the_network_policies_would_starve_is_refused_with_the_fix(helm: Helm) -> None:
    with pytest.raises(HelmError, match=r"metrics\.scrapeFrom: empty"):
        helm.template("fedjob", "--set", "metrics.podMonitor.enabled=true")
    helm.template("fedjob", "--set", "metrics.podMonitor.enabled=true", "--set", "networkPolicy.enabled=false")


def test_the_definitions_are_those_of_the_repository_and_stay_unless_told_otherwise(helm: Helm) -> None:
    source = {crd["metadata"]["name"]: crd for crd in map(_yaml, sorted((ROOT / "crds").glob("*.yaml")))}
    kept = [o for o in helm.template("fedjob") if o["kind"] == "CustomResourceDefinition"]
    assert {crd["metadata"]["name"] for crd in kept} == set(source)
    for crd in kept:
        assert crd["spec"] == source[crd["metadata"]["name"]]["spec"]
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    loose = [o for o in helm.template("fedjob", "--set", "crds.keep=false") if o["kind"] == kept[0]["kind"]]
    assert len(loose) == len(kept)
    assert not any("annotations" in crd["metadata"] for crd in loose)
    assert not [o for o in helm.template("fedjob", "--set", "crds.enabled=false") if o["kind"] == kept[0]["kind"]]


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_rights_are_those_of_the_role_and_end_at_the_namespaces_named(helm: Helm) -> None:
    everywhere, own = yaml.safe_load_all((ROOT / "operator" / "role.yaml").read_text())
    found = helm.template("fedjob", "--set", "rbac.aggregate=false")
    assert one(found, "ClusterRole")["rules"] == everywhere["rules"]
    assert one(found, "Role", "-own")["rules"] == own["rules"]
    assert one(found, "ClusterRoleBinding")["subjects"][0]["namespace"] == "fedjob-system"
    assert "--watch-namespaces" not in arguments(found)

    narrow = helm.template("fedjob", "--set", "rbac.namespaces={a,b},rbac.aggregate=false")
    assert not [o for o in narrow if o["kind"].startswith("ClusterRole")]
    roles = [o for o in narrow if o["kind"] == "Role" and o["metadata"]["name"] == "fedjob-operator"]
    assert {role["metadata"]["namespace"] for role in roles} == {"a", "b", "fedjob-system"}
    assert all(role["rules"] == everywhere["rules"] for role in roles)
    assert arguments(narrow)["--watch-namespaces"] == "a,b"

    given = helm.template("fedjob", "--set", "rbac.granted={c},rbac.aggregate=false")
    assert not [o for o in given if o["kind"].startswith("ClusterRole")]
    assert one(given, "Role", "fedjob-operator")["metadata"]["namespace"] == "fedjob-system"
    assert arguments(given)["--watch-namespaces"] == "c"


def test_what_the_operator_is_told_is_what_it_understands(helm: Helm) -> None:
    """Every argument, read by the operator's own parser."""
    from fedjob_operator.__main__ import _read

    found = helm.template(
        "fedjob", *ALL_ON, "--set", "rbac.namespaces={a},runtimeImage.tag=v7,image.registry=registry.example/x"
    )
    given = one(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    settings, ports, _ = _read(given)
    assert settings.runtime_image == "registry.example/x/fedjob-runtime:v7"
    assert settings.namespaces == ("a",)
    assert settings.image_pull_secrets == ("pull",)
    assert settings.ca_bundle == CaBundle("company-authorities", "ca.crt")
    assert settings.scrape_from == ("monitoring",)
    hub = one(found, "Service", "-hub")
    host = f"{hub['metadata']['name']}.{hub['metadata']['namespace']}.svc"
    assert settings.hub_name == host
    assert settings.hub_url == f"https://{host}:{hub['spec']['ports'][0]['port']}"
    ports_of = {p["name"]: p["containerPort"] for p in _container(found)["ports"]}
    assert ports_of == {"metrics": ports.metrics, "reports": ports.reports}


def _container(objects: list[Any]) -> Any:
    return one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_a_package_holds_what_the_links_lead_to(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", str(ROOT / "charts" / "fedjob"), "--destination", str(tmp_path))
    [archive] = tmp_path.glob("*.tgz")
    rendered = yaml.safe_load_all(helm.run("template", "fedjob", str(archive)))
    kinds = [found["kind"] for found in rendered if found]
    assert kinds.count("CustomResourceDefinition") == 4
    assert "ClusterRole" in kinds


def test_a_digest_takes_the_place_of_the_tag(helm: Helm) -> None:
    digest = "sha256:" + "0" * 64
    found = helm.template("fedjob", "--set", f"image.digest={digest},image.tag=x")
    assert _container(found)["image"] == f"fedjob-operator@{digest}"


def test_one_replica_has_no_budget_that_would_stop_a_drain(helm: Helm) -> None:
    assert one(helm.template("fedjob"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    alone = helm.template("fedjob", "--set", "replicas=1")
    assert not [o for o in alone if o["kind"] == "PodDisruptionBudget"]


def test_network_policy_lets_in_reports_and_scrapers_only(helm: Helm) -> None:
    spec = one(helm.template("fedjob", *ALL_ON), "NetworkPolicy")["spec"]
    reports, scrapes = spec["ingress"]
    assert reports["from"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"fedjob.dev/role": "server"}}}]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}} in scrapes["from"]
    assert all("ports" in rule for rule in spec["egress"])


def test_names_are_asked_of_the_clusters_name_servers_by_the_operator_and_by_jobs(helm: Helm) -> None:
    kube_dns = [dict(KUBE_DNS)]
    block = [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    for options, peers in (((), kube_dns), (("--set-json", f"networkPolicy.dns={json.dumps(block)}"), block)):
        found = helm.template("fedjob", *options)
        rules = one(found, "NetworkPolicy")["spec"]["egress"]
        assert [rule["to"] for rule in rules if {"protocol": "UDP", "port": 53} in rule["ports"]] == [peers]
        arguments = one(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
        assert [json.loads(a.removeprefix("--dns=")) for a in arguments if a.startswith("--dns=")] == [peers]
    nobody = helm.template("fedjob", "--set-json", "networkPolicy.dns=[]")
    assert [len(rule["ports"]) for rule in one(nobody, "NetworkPolicy")["spec"]["egress"]] == [2]
    assert "--dns=[]" in one(nobody, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]


def test_the_operator_selects_nothing_that_it_makes(helm: Helm) -> None:
    """Its own objects must not look like children of a job: those carry this label, and are swept."""
    for found in helm.template("fedjob", *ALL_ON):
        assert (found["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") != "fedjob"
