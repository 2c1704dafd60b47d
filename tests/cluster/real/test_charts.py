"""The charts on a real cluster: installed and upgraded under a running job, read by a Prometheus inside, and what the install page says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

from cluster import pages
from cluster.helm import ROOT, Helm
from cluster.kube import Kube, until
from cluster.prometheus import listed, prometheus
from cluster.real import federation, installation
from cluster.real.cluster import Cluster
from cluster.real.federation import HOSPITALS, Submitted
from cluster.real.held import held, release
from cluster.real.images import Images
from cluster.real.installation import SYSTEM
from fedjob_operator import names

ROUNDS = 6
HELD_AT = 3
SECONDS = ("--wait", "--timeout", "180s")


def test_helms_own_test_passes(hub: Helm) -> None:
    assert "Succeeded" in hub.run("test", "fedjob", "--namespace", SYSTEM, "--timeout", "120s")


def _pods(job: Submitted) -> dict[str, int]:
    """UID of every pod that the job has or had, and how often its container was started again."""
    pods = job.kube.list(names.POD, federation.TEAM, f"{names.JOB_LABEL}={job.name}")
    statuses = {p["metadata"]["uid"]: p["status"].get("containerStatuses") or () for p in pods}
    return {uid: sum(status["restartCount"] for status in found) for uid, found in statuses.items()}


def _operators(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["uid"] for pod in cluster.admin.list(names.POD, SYSTEM, installation.SELECTOR)}


@pytest.mark.measure("C4")
def test_an_upgrade_and_a_rollback_in_the_middle_of_a_job_restart_none_of_its_pods(
    cluster: Cluster, hub: Helm, measured: Any
) -> None:
    job = federation.submit(cluster, held("upgraded", ROUNDS, HELD_AT))
    job.round_reached(HELD_AT)
    pods, operators = _pods(job), _operators(cluster)
    assert len(pods) == 1 + len(HOSPITALS)
    chart = str(ROOT / "charts" / "fedjob")
    options = ("--reset-then-reuse-values", "--set", "podAnnotations.upgraded=yes", *SECONDS)
    hub.run("upgrade", "fedjob", chart, "--namespace", SYSTEM, *options)
    until("the old operator to go", lambda: not operators & _operators(cluster))
    upgraded = _operators(cluster)
    hub.run("rollback", "fedjob", "--namespace", SYSTEM, *SECONDS)
    until("the upgraded operator to go", lambda: not upgraded & _operators(cluster))
    release(job)
    job.complete()
    after = _pods(job)
    started = len(set(after) - set(pods)) + sum(after.values())
    measured(started, "pods of the job started again", "0", started == 0, upgraded_in_round=HELD_AT, rounds=ROUNDS)
    assert after == pods
    assert job.raw["status"]["server"]["restarts"] == 0


def _discover(cluster: Cluster, path: Path) -> dict[str, Any]:
    """What a PodMonitor comes to, as Debian's Prometheus has no discovery of its own: annotated pods, at their port `metrics`."""
    targets = []
    for pod in cluster.admin.list(names.POD):
        notes, labels = pod["metadata"].get("annotations") or {}, pod["metadata"].get("labels") or {}
        if notes.get("prometheus.io/scrape") == "true" and pod["status"]["phase"] == "Running":
            [port] = [p["containerPort"] for p in pod["spec"]["containers"][0]["ports"] if p["name"] == "metrics"]
            assert notes["prometheus.io/port"] == str(port)
            told = {"namespace": pod["metadata"]["namespace"], "role": labels.get(names.ROLE_LABEL, "operator")}
            targets.append({"targets": [f"{pod['status']['podIP']}:{port}"], "labels": told})
    path.write_text(json.dumps(targets))
    return {**listed(path), "honor_labels": True}


@pytest.mark.measure("C3")
def test_a_prometheus_in_the_cluster_finds_and_reads_operator_server_and_clients(
    cluster: Cluster, hub: Helm, tmp_path: Path
) -> None:
    job = federation.submit(cluster, held("watched", ROUNDS, HELD_AT))
    job.round_reached(HELD_AT)
    layout = cluster.layout
    with prometheus(
        tmp_path, _discover(cluster, tmp_path / "targets.json"), enter=layout.control.enter, host=layout.inside
    ) as watching:
        mine = '{federated_job="watched"}'
        wanted = {("operator",): 2, (names.CLIENT,): len(HOSPITALS), (names.SERVER,): 1}
        until("every pod to be read", lambda: watching.query("sum by (role) (up)") == wanted)
        until("three rounds", lambda: watching.query(f"sum(fedjob_server_completed_rounds{mine} == {HELD_AT})"))
        until("the same from the operator", lambda: watching.query(f"sum(fedjob_job_round{mine} == {HELD_AT})"))
        assert watching.query("sum(fedjob_operator_leader)") == {(): 1}
        assert watching.query(f"sum(fedjob_client_connected{mine})") == {(): len(HOSPITALS)}
        assert watching.query(f"sum(fedjob_server_site_connected{mine})") == {(): len(HOSPITALS)}
        sent = watching.query('sum by (site) (fedjob_server_bytes_total{direction="up", federated_job="watched"})')
        assert {site for (site,) in sent} == set(HOSPITALS)
        assert min(sent.values()) > 0
        assert watching.query(f"count(fedjob_server_metric{mine})")
        [left] = watching.query(f"min(fedjob_server_certificate_not_after_timestamp_seconds{mine}) - time()").values()
        assert left > 6 * 86400
        assert watching.firing(federation.TEAM) == watching.firing(SYSTEM) == {}
    release(job)
    job.complete()


@pytest.mark.measure("C1")
def test_what_the_install_page_says_leads_to_a_model(
    cluster: Cluster, hub: Helm, admin: Kube, images: Images, tmp_path: Path
) -> None:
    """The page's own site and job, in namespaces of the test."""

    def of_the_page(command: str) -> Any:
        text = pages.pasted("install.md", command).replace("hospital-a", "hospital-q").replace("team-a", "team-q")
        text = text.replace("$REGISTRY", images.registry)  # as the shell does
        return yaml.safe_load(text)

    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(of_the_page("cat > site.yaml")))
    chart = str(ROOT / "charts" / "fedjob-site")
    options = ("--create-namespace", "--set", "site.name=hospital-q", "--values", str(values))
    hub.run("install", "site", chart, "--namespace", "hospital-q", *options)
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    for place in ("hospital-q", "team-q"):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place, "labels": restricted}})
    job = of_the_page("kubectl -n team-a apply -f -")
    job["metadata"]["namespace"] = "team-q"
    cluster.apply(job)

    def state() -> Any:
        return (admin.get(names.FEDERATED_JOB, "team-q", "hello").get("status") or {}).get("state")

    until("the job to end", lambda: state() in ("Complete", "Failed"), 180)
    assert state() == "Complete", admin.get(names.FEDERATED_JOB, "team-q", "hello")["status"]["conditions"]
    uid = admin.get(names.FEDERATED_JOB, "team-q", "hello")["metadata"]["uid"]
    volume = cluster.volume("team-q", names.base("hello", uid))
    assert volume is not None
    assert load_file(volume / "run" / "model.safetensors")["w"].tolist() == [3.0] * 10


def test_a_job_goes_on_without_the_operator_and_the_next_one_finds_how_it_ended(
    cluster: Cluster, hub: Helm, images: Images
) -> None:
    job = federation.submit(cluster, held("alone", ROUNDS, HELD_AT))
    job.round_reached(HELD_AT)
    pods = _pods(job)
    hub.run("uninstall", "fedjob", "--namespace", SYSTEM, *SECONDS)
    until("the operator to go", lambda: not _operators(cluster))
    release(job)

    def phases() -> set[str]:
        found = job.kube.list(names.POD, federation.TEAM, f"{names.JOB_LABEL}={job.name}")
        return {str(pod["status"]["phase"]) for pod in found}

    until("every pod to end well", lambda: phases() == {"Succeeded"}, federation.JOB_SECONDS)
    assert job.condition("Complete")[0] != "True"  # nobody is there to say so
    installation.install(cluster, images)
    job.complete()
    assert _pods(job) == pods
