"""The objects that are made: what a security team asks, what the runtime reads back, and names that fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob.api import FederatedJob, validate
from fedjob.cluster import volume
from fedjob.config import ServerConfig, SiteConfig
from fedjob_operator import names
from fedjob_operator.build import client, server, site_job
from fedjob_operator.settings import KUBE_DNS, CaBundle, JobPods, Settings, job_pods
from fedjob_operator.trust import Trust

SETTINGS = Settings("fedjob-system", "runtime:1", "test", hub_url="https://hub:8443", hub_name="hub")
TRUST = Trust("issuer", "-----BEGIN CERTIFICATE-----")
UID = "0a1b2c3d-0000-4000-8000-000000000000"


def job_of(**spec: Any) -> FederatedJob:
    body = {
        "workflow": {"type": "FedAvg", "rounds": 3},
        "trainer": {"files": {"train.py": "print()", "lib/a.py": "x = 1"}},
        "sites": [{"name": "a", "data": "xrays", "env": [{"name": "LR", "value": "2"}]}, {"name": "b"}],
        **spec,
    }
    return validate({
        "apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": {"name": "digits", "namespace": "team-a"}, "spec": body,
    })  # fmt: skip


def of(**spec: Any) -> server.Of:
    return server.Of(job_of(**spec), UID, 1, SETTINGS)


def at(**spec: Any) -> client.At:
    manifest = site_job.site_job(of(**spec), "a", "team-a", TRUST, forgiven=0, suspend=False)
    raw = {**manifest, "metadata": {**manifest["metadata"], "uid": "site-uid", "generation": 1}}
    return client.At(raw, SETTINGS, {"name": "xrays", "claim": "xrays-1", "subPath": "v3"})


def pods() -> list[dict[str, Any]]:
    gpu = {
        "files": {"train.py": ""},
        "nodes": 2,
        "processesPerNode": 4,
        "resources": {"limits": {"nvidia.com/gpu": "4", "memory": "8Gi"}},
    }
    variants = [
        of(),
        of(model={"initial": {"object": "train:model"}}),
        replace(
            of(model={"initial": {"object": "train:model"}}), settings=replace(SETTINGS, ca_bundle=CaBundle("company"))
        ),
        of(server={"resources": {"limits": {"memory": "1Gi"}}}),
    ]
    told = replace(at(), authorities=CaBundle("company"))
    clients = [client.job(one, 1) for one in (at(), at(trainer=gpu), told)]
    made = [*(server.job(one, 1) for one in variants), *clients]
    return [create.manifest["spec"]["template"]["spec"] for create in made]


ASKED = job_pods(
    json.dumps({
        "labels": {"team": "a", names.ROLE_LABEL: "client"},
        "annotations": {"sidecar.istio.io/inject": "false", "prometheus.io/scrape": "false"},
        "security": {"supplementalGroups": [7], "runAsNonRoot": False},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "LR", "value": "0"}],
    })
)  # fmt: skip


def asked_pods() -> list[dict[str, Any]]:
    """The pods of a server with a first model to make, and of a client, where the installation puts something on all."""
    settings = replace(SETTINGS, job_pods=ASKED)
    first = replace(of(model={"initial": {"object": "train:model"}}), settings=settings)
    made = [server.job(first, 1), client.job(replace(at(), settings=settings), 1)]
    return [create.manifest["spec"]["template"] for create in made]


@pytest.mark.parametrize(("pod", "role"), list(zip(asked_pods(), ("server", "client"), strict=True)))
def test_what_the_installation_puts_on_all_pods_is_there_and_takes_nothing_of_ours_away(
    pod: dict[str, Any], role: str
) -> None:
    labels, notes = pod["metadata"]["labels"], pod["metadata"]["annotations"]
    assert (labels["team"], labels[names.ROLE_LABEL], labels[names.MANAGED_BY]) == ("a", role, names.MANAGER)
    scraped = {"server": "true", "client": "false"}[role]  # a client is, if its site says who may
    assert (notes["sidecar.istio.io/inject"], notes["prometheus.io/scrape"]) == ("false", scraped)
    assert pod["spec"]["securityContext"] == {
        "supplementalGroups": [7],
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_what_a_site_puts_on_its_pods_goes_over_what_the_installation_puts_on_all() -> None:
    told = replace(at(), settings=replace(SETTINGS, job_pods=ASKED), pods={"labels": {"team": "b"}})
    assert client.job(told, 1).manifest["spec"]["template"]["metadata"]["labels"]["team"] == "b"


def test_scripts_and_the_code_of_a_first_model_have_the_installations_variables_under_the_jobs_and_servers_have_none() -> (
    None
):
    served, trained = asked_pods()

    def variables(container: dict[str, Any]) -> dict[str, str]:
        return {variable["name"]: variable["value"] for variable in container["env"]}

    assert variables(trained["spec"]["containers"][0])["HTTPS_PROXY"] == "http://proxy:3128"
    assert variables(trained["spec"]["containers"][0])["LR"] == "2"
    assert variables(served["spec"]["initContainers"][0])["HTTPS_PROXY"] == "http://proxy:3128"
    assert "HTTPS_PROXY" not in variables(served["spec"]["containers"][0])


def test_the_volume_says_who_has_written_it_if_that_is_not_the_user_of_the_images() -> None:
    def notes(pods: JobPods) -> dict[str, str]:
        found: dict[str, str] = server.volume_claim(replace(of(), settings=replace(SETTINGS, job_pods=pods)))[
            "metadata"
        ]["annotations"]
        return found

    assert json.loads(notes(ASKED)[names.SECURITY_ANNOTATION]) == ASKED.security
    assert names.SECURITY_ANNOTATION not in notes(JobPods())


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"label": {}}', '{"labels": ["a"]}', '{"env": [{"name": "A"}]}', '{"env": 1}']
)
def test_what_pods_are_to_have_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match=r"got .*, allowed: JSON such as"):
        job_pods(text)


def test_a_server_has_what_the_installation_gives_but_for_resources_that_the_job_names() -> None:
    def given(**spec: Any) -> tuple[Any, Any]:
        pod = server.job(of(model={"initial": {"object": "train:model"}}, **spec), 1).manifest["spec"]["template"][
            "spec"
        ]
        return pod["containers"][0]["resources"], pod["initContainers"][0]["resources"]

    requests = {"cpu": "100m", "memory": "512Mi"}
    assert given() == ({"requests": requests, "limits": {"memory": "1Gi"}}, {"requests": requests})
    mine = {"limits": {"memory": "4Gi"}}  # of which Kubernetes makes the request as well
    said = {"requests": {"cpu": "100m"}, **mine}
    assert given(server={"resources": mine}) == (said, said)
    asked = {"requests": {"memory": "2Gi", "cpu": "2"}}  # a limit below the request would be refused
    assert given(server={"resources": asked}) == (asked, asked)


def test_a_server_goes_where_the_job_says_and_whoever_reads_its_volume_later_too() -> None:
    toleration = {"key": "example.com/pool", "operator": "Exists"}
    where = {"nodeSelector": {"pool": "servers"}, "tolerations": [toleration], "priorityClassName": "high"}
    placed = replace(of(server={"scheduling": where}), settings=replace(SETTINGS, image_pull_secrets=("pull",)))
    pod = server.job(placed, 1).manifest["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == where["nodeSelector"]
    assert pod["priorityClassName"] == "high"
    assert toleration in pod["tolerations"]
    assert len(pod["tolerations"]) == 3, "those for lost nodes as well"
    note = server.volume_claim(placed)["metadata"]["annotations"][names.PLACEMENT_ANNOTATION]
    read = volume.reader(
        {"metadata": {"name": "digits", "uid": UID}}, "claim", "runtime:1", {}, volume.placement(note)
    )  # fmt: skip
    assert (read["spec"]["nodeSelector"], read["spec"]["tolerations"], read["spec"]["imagePullSecrets"]) == (
        where["nodeSelector"], [toleration], [{"name": "pull"}],
    )  # fmt: skip
    assert names.PLACEMENT_ANNOTATION not in server.volume_claim(of())["metadata"]["annotations"]
    assert volume.placement("not json") == {}
    assert volume.placement('{"hostNetwork": true}') == {}


def test_a_volume_is_asked_for_with_the_class_that_it_was_made_with() -> None:
    assert "storageClassName" not in server.volume_claim(of())["spec"]
    assert server.volume_claim(replace(of(), storage_class="fast"))["spec"]["storageClassName"] == "fast"


@pytest.mark.parametrize("annotated", [True, False])
def test_annotations_for_a_prometheus_without_monitors_are_there_only_where_it_is_one(annotated: bool) -> None:
    told = replace(SETTINGS, scrape_annotations=annotated)
    site = replace(at(), settings=told, scrape_from=("monitoring",))
    for made in (server.job(replace(of(), settings=told), 1), client.job(site, 1)):
        assert ("prometheus.io/scrape" in made.manifest["spec"]["template"]["metadata"]["annotations"]) is annotated


@pytest.mark.parametrize("pod", pods())
def test_every_pod_is_restricted_has_no_token_and_writes_to_volumes_only(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert not any("hostPath" in volume for volume in volumes.values())
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)


def test_what_the_pods_read_is_what_the_runtime_understands() -> None:
    made = server.config_map(of())
    config = ServerConfig.model_validate_json(made["data"][names.CONFIG_FILE])
    assert (config.uid, config.attempt, config.job) == (UID, 1, job_of())
    assert config.report is not None
    assert config.report.url == "https://hub:8443/v1alpha1/namespaces/team-a/federatedjobs/digits/progress"
    site = SiteConfig.model_validate_json(client.config_map(at())["data"][names.CONFIG_FILE])
    assert (site.site, site.sites, site.server) == ("a", ("a", "b"), of().address)
    assert site.server_name in server.certificate(of()).dns_names
    narrow = {"exchange": {"params": "Diff", "include": ["*.lora_*"], "dtype": "BF16"}}
    told = SiteConfig.model_validate_json(client.config_map(at(model=narrow))["data"][names.CONFIG_FILE])
    assert (told.params_type, told.include, told.wire_dtype) == ("DIFF", ("*.lora_*",), "BF16")


def test_a_sites_own_environment_goes_over_the_trainers_and_ours_over_both() -> None:
    assignment = at(
        trainer={"files": {"train.py": ""}, "env": [{"name": "LR", "value": "1"}, {"name": "SEED", "value": "0"}]}
    )
    container = client.job(assignment, 1).manifest["spec"]["template"]["spec"]["containers"][0]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert (variables["LR"], variables["SEED"]) == ("2", "0")
    assert variables["FEDJOB_DATA"] == names.DATA_FOLDER
    assert variables["FEDJOB_CONFIG"].endswith(names.CONFIG_FILE)


def test_a_script_trusts_the_authorities_that_its_site_names_and_the_connection_to_its_server_does_not_change() -> None:
    bare = at(trainer={"files": {"train.py": ""}, "env": [{"name": "CURL_CA_BUNDLE", "value": "/mine"}]})
    told = replace(bare, authorities=CaBundle("company", "roots.pem"))
    pod = client.job(told, 1).manifest["spec"]["template"]["spec"]
    volume = next(v for v in pod["volumes"] if v["name"] == "ca-bundle")
    assert volume["configMap"] == {"name": "company", "items": [{"key": "roots.pem", "path": "ca.crt"}]}
    container = pod["containers"][0]
    assert {"name": "ca-bundle", "mountPath": "/etc/fedjob-ca", "readOnly": True} in container["volumeMounts"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE"):
        assert variables[name] == "/etc/fedjob-ca/ca.crt"
    assert variables["CURL_CA_BUNDLE"] == "/mine"  # a variable that the site's policy let the job set
    assert client.config_map(told) == client.config_map(bare)
    assert "ca-bundle" not in json.dumps(client.job(bare, 1).manifest)


def test_the_hubs_authorities_are_for_the_code_that_makes_a_first_model_and_not_for_the_server() -> None:
    hub = replace(SETTINGS, ca_bundle=CaBundle("company"))
    one = replace(of(model={"initial": {"object": "train:model"}}), settings=hub)
    pod = server.job(one, 1).manifest["spec"]["template"]["spec"]
    assert [v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "ca-bundle"] == ["company"]
    maker, process = pod["initContainers"][0], pod["containers"][0]
    assert {"name": "SSL_CERT_FILE", "value": "/etc/fedjob-ca/ca.crt"} in maker["env"]
    assert "ca-bundle" in {mount["name"] for mount in maker["volumeMounts"]}
    assert "ca-bundle" not in json.dumps(process)
    assert "SSL_CERT_FILE" not in json.dumps(process)
    assert "ca-bundle" not in json.dumps(server.job(replace(of(), settings=hub), 1).manifest)


def test_the_code_of_a_first_model_shares_no_volume_with_the_server_and_only_our_own_carries_the_model_over() -> None:
    """The server's volume holds every site's update: what a job brings to the hub sees neither it nor a key."""
    foreign = {"image": "registry.example/other:1", "files": {"train.py": ""}, "command": ["python", "train.py"]}
    pod = server.job(of(model={"initial": {"object": "train:model"}}, trainer=foreign), 1).manifest["spec"]["template"][
        "spec"
    ]
    by_image: dict[str, dict[str, dict[str, Any]]] = {}
    for container in (*pod["initContainers"], *pod["containers"]):
        by_image.setdefault(container["image"], {}).update(
            {mount["name"]: mount for mount in container["volumeMounts"]}
        )
    theirs, ours = by_image.pop("registry.example/other:1"), by_image.pop(SETTINGS.runtime_image)
    assert by_image == {}
    assert set(theirs) == {"first-model", "first-scratch", "trainer"}
    assert set(theirs) & set(ours) == {"first-model"}
    maker, taker = pod["initContainers"]
    assert maker["command"][-1] == taker["command"][-2]
    assert next(m for m in taker["volumeMounts"] if m["name"] == "first-model")["readOnly"] is True
    assert {v["name"] for v in pod["volumes"] if "emptyDir" in v} == {"first-model", "first-scratch", "scratch"}


def test_no_folder_on_a_nodes_disk_is_without_a_limit() -> None:
    for pod in pods():
        folders = [volume for volume in pod["volumes"] if "emptyDir" in volume]
        assert folders
        assert all("sizeLimit" in volume["emptyDir"] for volume in folders)
    trainer = {"files": {"train.py": ""}, "resources": {"limits": {"ephemeral-storage": "300Gi"}}}
    made = client.job(at(trainer=trainer), 1).manifest["spec"]["template"]["spec"]["volumes"]
    on_disk = {v["name"]: v["emptyDir"]["sizeLimit"] for v in made if "medium" not in v.get("emptyDir", {"medium": ""})}
    assert on_disk == {"state": "300Gi", "scratch": "300Gi"}


def test_files_keep_their_names_and_folders() -> None:
    made = client.config_map(at())["data"]
    volume = next(
        v for v in client.job(at(), 1).manifest["spec"]["template"]["spec"]["volumes"] if v["name"] == "trainer"
    )
    assert {item["path"]: made[item["key"]] for item in volume["configMap"]["items"]} == {
        "train.py": "print()",
        "lib/a.py": "x = 1",
    }


@pytest.mark.parametrize(
    ("trainer", "command"),
    [
        ({"files": {"train.py": ""}}, ["python", "train.py"]),
        ({"command": ["./run"]}, ["./run"]),
        ({"files": {"train.py": ""}, "processesPerNode": 2},
         ["python", "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "train.py"]),
    ],
)  # fmt: skip
def test_the_scripts_command(trainer: dict[str, Any], command: list[str]) -> None:
    made = client.job(at(trainer=trainer), 1).manifest["spec"]
    assert made["template"]["spec"]["containers"][0]["command"] == command
    assert made["completionMode"] == "NonIndexed"


def test_several_nodes_find_each_other() -> None:
    assignment = at(
        trainer={
            "files": {"train.py": ""},
            "nodes": 3,
            "processesPerNode": 2,
            "resources": {"limits": {"nvidia.com/gpu": "2"}},
        }
    )
    made = client.job(assignment, 4).manifest
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    command = pod["containers"][0]["command"]
    assert f"--master-addr={made['metadata']['name']}-0.{pod['subdomain']}" in command
    assert "--node-rank=$(JOB_COMPLETION_INDEX)" in command
    headless = next(m for m in client.surroundings(assignment) if m["kind"] == "Service")
    assert (headless["metadata"]["name"], headless["spec"]["clusterIP"]) == (pod["subdomain"], "None")
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_the_sites_pods_are_queued_and_placed_as_asked_and_the_server_is_not() -> None:
    toleration = {"key": "team", "operator": "Equal", "value": "a"}
    scheduling = {
        "queueName": "q",
        "priorityClassName": "high",
        "tolerations": [toleration],
    }
    made = client.job(at(scheduling=scheduling), 1).manifest
    pod = made["spec"]["template"]["spec"]
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"][names.QUEUE_LABEL] == "q"
    assert pod["priorityClassName"] == "high"
    assert toleration in pod["tolerations"]
    assert not {"runtimeClassName", "nodeSelector"} & pod.keys()
    assert "suspend" not in server.job(of(scheduling=scheduling), 1).manifest["spec"]


def test_a_site_says_where_the_pods_run_and_marks_them_and_takes_none_of_our_marks_away() -> None:
    own = {
        "runtimeClassName": "gvisor",
        "nodeSelector": {"pool": "research"},
        "labels": {"egress": "none", names.ROLE_LABEL: "server"},
        "annotations": {"contact": "the office"},
    }
    made = client.job(replace(at(), pods=own), 1).manifest["spec"]["template"]
    assert (made["spec"]["runtimeClassName"], made["spec"]["nodeSelector"]) == ("gvisor", {"pool": "research"})
    assert (made["metadata"]["labels"]["egress"], made["metadata"]["labels"][names.ROLE_LABEL]) == (
        "none",
        names.CLIENT,
    )
    assert made["metadata"]["annotations"]["contact"] == "the office"


@pytest.mark.parametrize("amount", ["0", "0Gi"])
def test_asking_for_nothing_of_a_resource_opens_no_tainted_node(amount: str) -> None:
    limits = {"limits": {"node-role.kubernetes.io/control-plane": amount, "nvidia.com/gpu": "1"}}
    pod = client.job(at(trainer={"files": {"train.py": ""}, "resources": limits}), 1).manifest["spec"]["template"][
        "spec"
    ]
    keys = [toleration["key"] for toleration in pod["tolerations"] if toleration["effect"] == "NoSchedule"]
    assert keys == ["nvidia.com/gpu"]


def test_the_pods_belong_to_the_groups_that_may_read_the_data() -> None:
    data = {"name": "xrays", "claim": "nfs", "supplementalGroups": [5000]}
    with_groups = client.job(replace(at(), data=data), 1).manifest["spec"]["template"]["spec"]["securityContext"]
    without = client.job(at(), 1).manifest["spec"]["template"]["spec"]["securityContext"]
    assert with_groups == {**without, "supplementalGroups": [5000]}
    assert "supplementalGroups" not in without


def test_shared_memory_is_as_asked_else_the_limit_of_memory() -> None:
    def size(**trainer: Any) -> str:
        volumes = client.job(at(trainer={"files": {"train.py": ""}, **trainer}), 1).manifest["spec"]["template"][
            "spec"
        ]["volumes"]
        return str(next(v for v in volumes if v["name"] == "shm")["emptyDir"]["sizeLimit"])

    limits = {"limits": {"memory": "8Gi"}}
    assert (size(), size(resources=limits), size(resources=limits, sharedMemory="2Gi")) == ("1Gi", "8Gi", "2Gi")


def test_the_service_is_exposed_as_asked() -> None:
    exposure = {"type": "LoadBalancer", "annotations": {"example.com/pool": "public"}}
    made = server.service(of(server={"exposure": exposure}))
    assert made["spec"]["type"] == "LoadBalancer"
    assert made["metadata"]["annotations"]["example.com/pool"] == "public"


def test_traffic_is_denied_but_for_what_the_job_needs() -> None:
    policy = server.network_policy(of())["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"protocol": "TCP", "port": names.JOB_PORT}]]
    mine = client.network_policy(at())["spec"]
    assert mine["ingress"] == []
    assert len(mine["egress"]) == 2


def test_names_are_asked_of_the_clusters_name_servers_alone() -> None:
    ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    cache = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    for peers in ((KUBE_DNS,), (KUBE_DNS, cache)):
        told = replace(SETTINGS, dns=peers)
        for made in (
            server.network_policy(replace(of(), settings=told)),
            client.network_policy(replace(at(), settings=told)),
        ):
            assert made["spec"]["egress"][0] == {"to": list(peers), "ports": ports}
    elsewhere = client.network_policy(replace(at(), settings=replace(SETTINGS, dns_ports=(5353,))))["spec"]["egress"]
    assert elsewhere[0]["ports"] == [{"protocol": "UDP", "port": 5353}, {"protocol": "TCP", "port": 5353}]
    nowhere = client.network_policy(replace(at(), settings=replace(SETTINGS, dns=())))["spec"]["egress"]
    assert [rule["ports"] for rule in nowhere] == [[{"protocol": "TCP", "port": names.JOB_PORT}]]


@pytest.mark.parametrize("of_nodes", [1, 2])
def test_no_rule_lets_a_client_out_to_everywhere(of_nodes: int) -> None:
    several = at(trainer={"files": {"train.py": ""}, "nodes": of_nodes})
    assert all(rule["to"] for rule in client.network_policy(several)["spec"]["egress"])


def test_metrics_are_served_and_let_out_to_those_named_alone() -> None:
    watched = replace(SETTINGS, scrape_from=("monitoring",), image_pull_secrets=("pull",))
    one, other = replace(of(), settings=watched), replace(at(), settings=watched, scrape_from=("monitoring",))
    who = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    rule = {"from": [who], "ports": [{"protocol": "TCP", "port": names.METRICS_PORT}]}
    assert rule in server.network_policy(one)["spec"]["ingress"]
    assert client.network_policy(other)["spec"]["ingress"] == [rule]
    closed = replace(other, scrape_from=())
    assert client.network_policy(closed)["spec"]["ingress"] == []
    untold = client.job(closed, 1).manifest["spec"]["template"]["metadata"]
    assert untold["annotations"]["prometheus.io/scrape"] == "false"
    assert names.METRICS_LABEL not in untold["labels"]
    configs = [
        ServerConfig.model_validate_json(server.config_map(one)["data"][names.CONFIG_FILE]),
        SiteConfig.model_validate_json(client.config_map(other)["data"][names.CONFIG_FILE]),
    ]
    assert {(config.metrics, config.log) for config in configs} == {(f"[::]:{names.METRICS_PORT}", "json")}
    for made in (server.job(one, 1), client.job(other, 1)):
        template = made.manifest["spec"]["template"]
        ports = template["spec"]["containers"][0]["ports"]
        assert template["metadata"]["annotations"]["prometheus.io/port"] == str(names.METRICS_PORT)
        assert template["metadata"]["labels"][names.METRICS_LABEL] == "job"
        assert {"name": "metrics", "containerPort": names.METRICS_PORT, "protocol": "TCP"} in ports
        assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_an_assignment_in_another_namespace_has_no_owner_there() -> None:
    made = site_job.site_job(of(), "a", "hospital", TRUST, forgiven=0, suspend=True)
    assert "ownerReferences" not in made["metadata"]
    assert made["metadata"]["namespace"] == "hospital"
    assert made["spec"]["job"]["namespace"] == "team-a"


def test_a_manifest_is_the_same_whenever_it_is_made() -> None:
    assert json.dumps(server.surroundings(of())) == json.dumps(server.surroundings(of()))


dns = st.from_regex(r"\A[a-z]([-a-z0-9]{0,38}[a-z0-9])?\Z")


@given(job=dns, site=st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z"), run=st.integers(1, 999))
def test_every_name_fits_where_kubernetes_wants_63_characters(job: str, site: str, run: int) -> None:
    made = names.site_job(job, UID, site)
    for name in (names.base(job, UID), names.server_job(job, UID, run), made, names.client_job(made, run)):
        assert len(name) <= 63
        assert name[-1].isalnum()
        assert name == name.lower()


def test_two_jobs_of_one_name_have_children_of_different_names() -> None:
    assert names.base("digits", UID) != names.base("digits", UID.replace("0a", "0b"))
