"""What the hub's chart renders to: properties, not copies of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm import Helm, HelmError, one
from fedjob_operator.bounds import ServerBounds
from fedjob_operator.names import METRICS_LABEL
from fedjob_operator.settings import KUBE_DNS, SERVER_LIMITS, SERVER_REQUESTS, CaBundle, Settings

ROOT = Path(__file__).parents[3]
ALL_ON = (
    "--set=metrics.serviceMonitor.enabled=true",
    "--set=metrics.podMonitor.enabled=true",
    "--set=metrics.prometheusRule.enabled=true",
    "--set=metrics.dashboard.enabled=true",
    "--set=metrics.scrapeFrom={monitoring}",
    "--set=imagePullSecrets={pull}",
    "--set=caBundle.configMap=company-authorities",
    "--set=jobsAtOnce=4",
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
        ("trustDomain=a..b", "/trustDomain"),
        ("serviceAccount.create=false", "/serviceAccount/name"),
        ("serviceAccount.name=a..b", "/serviceAccount/name"),
        ("priorityClassName=Bad Name", "/priorityClassName"),
        ("commonLabels.team=a b", "/commonLabels/team"),
        ("podLabels.team=a/b", "/podLabels/team"),
        ("podLabels.-team=a", "-team"),
        ("nodeSelector.zone=a b", "/nodeSelector/zone"),
        ("resources.limit.cpu=1", "limit"),
        ("resources.limits.cpu=much", "/resources/limits/cpu"),
        ("tolerations[0].foo=1", "foo"),
        ("tolerations[0].effect=Never", "/tolerations/0/effect"),
        ("affinity.nodes=x", "nodes"),
        ("topologySpreadConstraints[0].maxSkew=1", "topologyKey"),
        ("extraEnv[0].value=x", "name"),
        ("extraEnv[0].name=POD_NAME,extraEnv[0].value=x", "/extraEnv/0/name"),
        ("podSecurityContext.runAsUser=0", "/podSecurityContext/runAsUser"),
        ("podSecurityContext.runAsNonRoot=false", "runAsNonRoot"),
        ("jobs.podSecurityContext.privileged=true", "privileged"),
        ("jobs.podLabels.fedjob\\.dev/role=server", "fedjob.dev/role"),
        ("jobs.podLabels.team=a b", "/jobs/podLabels/team"),
        ("jobs.env[0].name=A-B,jobs.env[0].value=x", "/jobs/env/0/name"),
        ("networkPolicy.apiServerCIDRs={10.0.0.1}", "/networkPolicy/apiServerCIDRs/0"),
        ("networkPolicy.extraEgress[0].form=x", "form"),
        ("server.resources.limits.memory=much", "/server/resources/limits/memory"),
        ("server.storageClassName=Fast Disk", "/server/storageClassName"),
        ("metrics.annotations=sometimes", "/metrics/annotations"),
        ("metrics.prometheusRule.runbookUrl=docs", "/metrics/prometheusRule/runbookUrl"),
    ],
)
def test_a_wrong_value_is_refused_and_named(helm: Helm, value: str, field: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template("fedjob", "--set", value)
    assert f"'{field}'" in str(refused.value)


def _given(folder: Path, **values: Any) -> str:
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    return f"--values={path}"


def test_a_users_labels_are_on_every_object_and_never_instead_of_the_charts(helm: Helm, tmp_path: Path) -> None:
    mine = {"cost-centre": "42", "app.kubernetes.io/name": "mine", "app.kubernetes.io/managed-by": "fedjob"}
    bare = {(o["kind"], o["metadata"]["name"]): o for o in helm.template("fedjob", *ALL_ON)}
    for found in helm.template("fedjob", *ALL_ON, _given(tmp_path, commonLabels=mine)):
        labels = found["metadata"]["labels"]
        assert labels.pop("cost-centre") == "42"
        assert labels == bare[(found["kind"], found["metadata"]["name"])]["metadata"]["labels"]
        if found["kind"] == "Deployment":
            assert found["spec"]["template"]["metadata"]["labels"]["cost-centre"] == "42"
            assert "cost-centre" not in found["spec"]["selector"]["matchLabels"]


def test_labels_and_annotations_of_the_pods_are_merged_the_charts_labels_stay_and_the_users_annotations_win(
    helm: Helm, tmp_path: Path
) -> None:
    given = _given(
        tmp_path,
        commonLabels={"team": "all"},
        podLabels={"app.kubernetes.io/name": "x", "team": "a"},
        podAnnotations={"prometheus.io/scrape": "false", "mine": "yes"},
    )
    text = helm.run("template", "fedjob", str(ROOT / "charts" / "fedjob"), given)
    _no_key_twice(text)
    deployment = one([found for found in yaml.safe_load_all(text) if found], "Deployment")
    pod = deployment["spec"]["template"]["metadata"]
    assert pod["labels"].items() >= {**deployment["spec"]["selector"]["matchLabels"], "team": "a"}.items()
    assert pod["annotations"] == {"prometheus.io/scrape": "false", "prometheus.io/port": "8080", "mine": "yes"}


def _no_key_twice(text: str) -> None:
    for document in yaml.compose_all(text):
        nodes = [document]
        while nodes:
            node = nodes.pop()
            if isinstance(node, yaml.MappingNode):
                keys = [key.value for key, _ in node.value]
                assert len(keys) == len(set(keys)), keys
                nodes += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value


def test_on_openshift_the_namespace_says_who_pods_run_as_and_they_stay_restricted(helm: Helm, tmp_path: Path) -> None:
    nobody = {"runAsUser": None, "runAsGroup": None}
    given = _given(tmp_path, podSecurityContext=nobody, jobs={"podSecurityContext": {**nobody, "fsGroup": None}})
    found = helm.template("fedjob", given)
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert [pod["securityContext"] for pod in pods(found)] == [restricted, restricted]
    assert _settings(found).job_pods.security == {"fsGroupChangePolicy": "OnRootMismatch"}


def test_what_all_pods_of_jobs_have_reaches_the_operator(helm: Helm, tmp_path: Path) -> None:
    proxy = "http://proxy.example:3128/$(POD_NAME)?$$(POD_NAME)$5"
    jobs: dict[str, Any] = {
        "podLabels": {"team": "a"},
        "podAnnotations": {"linkerd.io/inject": "disabled"},
        "env": [{"name": "HTTPS_PROXY", "value": proxy}],
    }
    found = helm.template("fedjob", _given(tmp_path, jobs=jobs))
    told = _settings(found).job_pods
    assert (told.labels, told.annotations) == (jobs["podLabels"], jobs["podAnnotations"])
    assert told.variables == {"HTTPS_PROXY": proxy.replace("$", "$$")}  # the kubelet reads $$ as $
    assert told.security is not None
    assert told.security["fsGroup"] == 65532


def test_what_a_job_may_ask_for_its_server_reaches_the_operator(helm: Helm, tmp_path: Path) -> None:
    assert _settings(helm.template("fedjob")).bounds == ServerBounds(), "nothing is listed by default"
    allowed: dict[str, Any] = {
        "max": {"nvidia.com/gpu": "2"},
        "maxStorage": "1Ti",
        "priorityClassNames": ["high"],
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "nodeLabels": {"pool": ["servers-*"]},
        "serviceAnnotations": ["service.beta.kubernetes.io/*"],
        "initialModel": {"images": [{"repository": "registry.example/team/*"}], "inlineCode": "Deny"},
    }
    found = _settings(helm.template("fedjob", _given(tmp_path, server={"allowed": allowed}))).bounds
    assert found == ServerBounds.model_validate(allowed)


def _settings(objects: list[Any]) -> Settings:
    from fedjob_operator.arguments import read

    return read(_container(objects)["args"])[0]


def test_the_pod_of_helms_test_runs_where_the_operator_does(helm: Helm, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "priorityClassName": "system-cluster-critical",
    }
    for pod in pods(helm.template("fedjob", _given(tmp_path, **given))):
        assert {name: pod[name] for name in given} == given


def test_a_replica_on_a_lost_node_is_replaced_as_soon_as_the_pods_of_jobs_are(helm: Helm) -> None:
    replica = one(helm.template("fedjob"), "Deployment")["spec"]["template"]["spec"]
    lost = {t["key"]: t["tolerationSeconds"] for t in replica["tolerations"] if t["effect"] == "NoExecute"}
    assert lost == dict.fromkeys(
        ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"), Settings.node_lost_seconds
    )


def test_the_operators_way_out_is_as_narrow_or_wide_as_it_is_told(helm: Helm, tmp_path: Path) -> None:
    more = {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 443}]}
    policy: dict[str, Any] = {"apiServerCIDRs": ["10.0.0.1/32", "fd00::1/128"], "extraEgress": [more]}
    rules = one(helm.template("fedjob", _given(tmp_path, networkPolicy=policy)), "NetworkPolicy")["spec"]["egress"]
    assert rules[-1] == more
    assert rules[-2]["to"] == [{"ipBlock": {"cidr": cidr}} for cidr in policy["apiServerCIDRs"]]
    assert "to" not in one(helm.template("fedjob"), "NetworkPolicy")["spec"]["egress"][-1]


def test_further_variables_of_the_operator_come_after_its_own(helm: Helm, tmp_path: Path) -> None:
    mine = {"name": "TZ", "value": "Europe/Berlin"}
    assert _container(helm.template("fedjob", _given(tmp_path, extraEnv=[mine])))["env"][-1] == mine


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
    plain = helm.template("fedjob", "--set", "rbac.aggregate=false")
    assert not [o for o in plain if o["kind"].startswith("ClusterRole")]
    assert one(plain, "Role", "-own")["rules"] == own["rules"]
    assert one(plain, "Role", "fedjob-operator")["metadata"]["namespace"] == "fedjob-system"
    assert arguments(plain)["--watch-namespaces"] == "fedjob-system"

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

    found = helm.template("fedjob", "--set", "rbac.clusterWide=true,rbac.aggregate=false")
    assert one(found, "ClusterRole")["rules"] == everywhere["rules"]
    assert one(found, "Role", "-own")["rules"] == own["rules"]
    assert one(found, "ClusterRoleBinding")["subjects"][0]["namespace"] == "fedjob-system"
    assert "--watch-namespaces" not in arguments(found)
    with pytest.raises(HelmError, match=r"rbac\.clusterWide: true means every namespace"):
        helm.template("fedjob", "--set", "rbac.clusterWide=true,rbac.namespaces={a}")


def test_what_the_operator_writes_is_bounded_for_the_releases_own_account(helm: Helm) -> None:
    source = list(yaml.safe_load_all((ROOT / "operator" / "admission.yaml").read_text()))
    options = ("--set", "serviceAccount.name=pilot")
    found = helm.template("fedjob", *options, release="north", namespace="hub-1")
    policies = [o for o in found if o["kind"] == "ValidatingAdmissionPolicy"]
    bindings = [o["spec"] for o in found if o["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert [b["policyName"] for b in bindings] == [p["metadata"]["name"] for p in policies]
    assert all(binding["validationActions"] == ["Deny"] for binding in bindings)
    assert [p["metadata"]["name"] for p in policies] == [
        f"north-fedjob-operator-{part}.hub-1" for part in ("children", "secrets", "jobs")
    ]
    for policy, plain in zip(policies, source, strict=True):
        [condition] = policy["spec"]["matchConditions"]
        assert condition["expression"] == 'request.userInfo.username == "system:serviceaccount:hub-1:pilot"'
        assert policy["spec"]["validations"] == plain["spec"]["validations"]
        assert policy["spec"]["matchConstraints"] == plain["spec"]["matchConstraints"]
    [authority] = [v["expression"] for v in policies[0]["spec"]["variables"] if v["name"] == "authority"]
    assert 'request.namespace == "hub-1"' in authority
    assert not [o for o in helm.template("fedjob", "--set", "rbac.admission=false") if "Admission" in o["kind"]]


def test_what_the_operator_is_told_is_what_it_understands(helm: Helm) -> None:
    """Every argument, read by the operator's own parser."""
    from fedjob_operator.arguments import read

    found = helm.template(
        "fedjob", *ALL_ON, "--set", "rbac.namespaces={a},runtimeImage.tag=v7,image.registry=registry.example/x"
    )
    given = one(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    settings, ports, _ = read(given)
    assert settings.runtime_image == "registry.example/x/fedjob-runtime:v7"
    assert settings.namespaces == ("a",)
    assert settings.image_pull_secrets == ("pull",)
    assert settings.jobs_at_once == 4
    assert settings.ca_bundle == CaBundle("company-authorities", "ca.crt")
    assert settings.scrape_from == ("monitoring",)
    hub = one(found, "Service", "-hub")
    host = f"{hub['metadata']['name']}.{hub['metadata']['namespace']}.svc"
    assert settings.hub_name == host
    assert settings.hub_url == f"https://{host}:{hub['spec']['ports'][0]['port']}"
    ports_of = {p["name"]: p["containerPort"] for p in _container(found)["ports"]}
    assert ports_of == {"metrics": ports.metrics, "reports": ports.reports}


def test_servers_have_the_charts_resources_and_storage_class(helm: Helm) -> None:
    from fedjob_operator.arguments import read

    def settings(*values: str) -> Any:
        found = helm.template("fedjob", *values)
        return read(one(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"])[0]

    plain = settings()
    assert (plain.server_requests, plain.server_limits, plain.storage_class) == (SERVER_REQUESTS, SERVER_LIMITS, "")
    mine = settings("--set=server.storageClassName=gp3,server.resources.limits.cpu=2,server.resources.requests=null")
    assert (mine.server_requests, mine.storage_class) == ((), "gp3")
    assert mine.server_limits == (("cpu", "2"), ("memory", "1Gi"))


@pytest.mark.parametrize(
    ("values", "operator", "jobs"),
    [
        ((), True, "yes"),
        (("metrics.serviceMonitor.enabled=true",), False, "yes"),
        (("metrics.podMonitor.enabled=true",), True, "no"),
        (("metrics.podMonitor.enabled=true", "metrics.annotations=Always"), True, "yes"),
        (("metrics.annotations=Never",), False, "no"),
    ],
)
def test_what_a_monitor_finds_has_no_annotations_besides(
    helm: Helm, values: tuple[str, ...], operator: bool, jobs: str
) -> None:
    """Else it is scraped twice."""
    found = helm.template("fedjob", "--set", ",".join(("metrics.scrapeFrom={monitoring}", *values)))
    notes = one(found, "Deployment")["spec"]["template"]["metadata"].get("annotations") or {}
    assert ("prometheus.io/scrape" in notes) is operator
    assert arguments(found)["--scrape-annotations"] == jobs


def test_every_alert_leads_to_its_place_in_the_runbook_if_that_is_named(helm: Helm) -> None:
    on = "--set=metrics.prometheusRule.enabled=true"

    def rules(*values: str) -> list[Any]:
        groups = one(helm.template("fedjob", on, *values), "PrometheusRule")["spec"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    assert not any("runbook_url" in rule["annotations"] for rule in rules())
    page = "https://example.com/fedjob/operations"
    found = rules(f"--set=metrics.prometheusRule.runbookUrl={page}")
    assert len(found) > 20
    assert all(rule["annotations"]["runbook_url"] == f"{page}#{rule['alert'].lower()}" for rule in found)


def _container(objects: list[Any]) -> Any:
    return one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_a_package_holds_what_the_links_lead_to(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", str(ROOT / "charts" / "fedjob"), "--destination", str(tmp_path))
    [archive] = tmp_path.glob("*.tgz")
    rendered = yaml.safe_load_all(helm.run("template", "fedjob", str(archive)))
    kinds = [found["kind"] for found in rendered if found]
    assert kinds.count("CustomResourceDefinition") == 4
    assert kinds.count("ValidatingAdmissionPolicy") == 3
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


def test_a_pod_monitor_selects_the_pods_of_jobs_whose_metrics_may_be_read(helm: Helm) -> None:
    selector = one(helm.template("fedjob", *ALL_ON), "PodMonitor")["spec"]["selector"]
    assert selector == {"matchLabels": {"app.kubernetes.io/managed-by": "fedjob", METRICS_LABEL: "job"}}


def test_names_are_asked_of_the_clusters_name_servers_by_the_operator_and_by_jobs(helm: Helm) -> None:
    kube_dns = [dict(KUBE_DNS)]
    block = [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    for options, peers in (((), kube_dns), (("--set-json", f"networkPolicy.dns={json.dumps(block)}"), block)):
        found = helm.template("fedjob", *options)
        rules = one(found, "NetworkPolicy")["spec"]["egress"]
        assert [rule["to"] for rule in rules if {"protocol": "UDP", "port": 53} in rule["ports"]] == [peers]
        arguments = one(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
        assert [json.loads(a.removeprefix("--dns=")) for a in arguments if a.startswith("--dns=")] == [peers]
    moved = helm.template("fedjob", "--set-json", "networkPolicy.dnsPorts=[53,5353]")
    [ports] = [rule["ports"] for rule in one(moved, "NetworkPolicy")["spec"]["egress"] if rule.get("to") == kube_dns]
    assert ports == [{"protocol": p, "port": n} for n in (53, 5353) for p in ("UDP", "TCP")]
    assert "--dns-ports=53,5353" in one(moved, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    nobody = helm.template("fedjob", "--set-json", "networkPolicy.dns=[]")
    assert [len(rule["ports"]) for rule in one(nobody, "NetworkPolicy")["spec"]["egress"]] == [2]
    assert "--dns=[]" in one(nobody, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]


def test_the_operator_selects_nothing_that_it_makes(helm: Helm) -> None:
    """Its own objects must not look like children of a job: those carry this label, and are swept."""
    for found in helm.template("fedjob", *ALL_ON):
        assert (found["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") != "fedjob"
