"""The `fedjob` command against a real API server, as a data scientist with the role `edit` in one namespace; the test is the kubelet."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.apiproxy import Answer, Cut, Truncate
from cluster.controlplane import ADMIN, SCIENTIST, ControlPlane
from cluster.kubelet_port import KubeletPort, add_node, bind
from fedjob.cluster import connection
from fedjob.records import HISTORY_FILE, STATUS_FILE, FinalModel, JobRef, RoundRecord, Status, append, write_status
from fedjob.stored import file_digest
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

RBAC = "/apis/rbac.authorization.k8s.io/v1"
COMPLETE = json.dumps({"reason": "RoundsCompleted", "message": ""})
pytestmark = pytest.mark.timeout(300)  # each test starts many processes

Fedjob = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def edit_jobs(plane: ControlPlane) -> None:
    """Jobs are part of the role `edit`, as the chart has it."""
    labels = {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    rules = [{"apiGroups": ["fedjob.dev"], "resources": ["federatedjobs"], "verbs": verbs}]
    plane.user(ADMIN).call(
        "POST", f"{RBAC}/clusterroles", {"metadata": {"name": "edit-jobs", "labels": labels}, "rules": rules}
    )


@pytest.fixture
def scientist(admin: Any, namespace: str, edit_jobs: None, plane: ControlPlane, until: Any) -> Any:
    """The role `edit` in the test's namespace; the API server as its bearer sees it."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    subject = {"kind": "User", "name": "scientist", "apiGroup": "rbac.authorization.k8s.io"}
    body = {"metadata": {"name": "scientist"}, "roleRef": reference, "subjects": [subject]}
    admin.call("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", body)
    kube = plane.user(SCIENTIST)
    until("the role to hold", lambda: may_list(kube, namespace))
    return kube


def may_list(kube: Any, namespace: str) -> bool:
    """Whether jobs may be listed."""
    try:
        return bool(kube.list(names.FEDERATED_JOB, namespace) == [])
    except AssertionError:
        return False


@pytest.fixture
def fedjob(plane: ControlPlane, namespace: str, tmp_path: Path) -> Fedjob:
    """Runs the command in the test's namespace, without a terminal."""

    def run(*words: str, code: int = 0, token: str = SCIENTIST, where: bool = True) -> subprocess.CompletedProcess[str]:
        place = ["--kubeconfig", str(plane.kubeconfig(token)), "-n", namespace] if where else []
        command = [sys.executable, "-m", "fedjob.cli.main", *words, *place]
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def job_file(namespace: str, tmp_path: Path) -> Path:
    """A job file with its script, for the two sites of the test."""
    (tmp_path / "train.py").write_text("import net\n")
    (tmp_path / "net.py").write_text("x = 1\n")
    (tmp_path / "patients.csv").write_text("name\n")
    spec = {
        "workflow": {"rounds": 3},
        "trainer": {"command": ["python", "train.py"]},
        "sites": [{"name": name} for name in sites_of(namespace)],
    }
    document = {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": {"name": "digits"}, "spec": spec}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "job.yaml"


def sites_of(namespace: str) -> tuple[str, str]:
    """As in the conftest of these tests."""
    return f"a-{namespace}"[:63].rstrip("-"), f"b-{namespace}"[:63].rstrip("-")


@pytest.fixture
def node(plane: ControlPlane, admin: Any, namespace: str) -> Iterator[KubeletPort]:
    """A node called as the namespace is, whose kubelet is the test."""
    port = KubeletPort()
    port.start(plane.folder / "server.crt", plane.folder / "server.key")
    remove = add_node(admin, namespace[:60].rstrip("-"), port.port)
    yield port
    remove()
    port.stop()


def place(admin: Any, namespace: str, pod: Any, container: str) -> None:
    """The pod runs on the node."""
    bind(admin, pod, namespace[:60].rstrip("-"))
    running = {
        "name": container,
        "image": "x",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {}},
    }
    conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "PodScheduled")]
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": [running]}
    admin.patch(names.POD, namespace, pod["metadata"]["name"], {"status": status}, "/status")


# ---------------------------------------------------------------------------------------------- a job's life


def test_a_job_is_sent_looked_at_paused_and_taken_away(
    start_operator: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, job_file: Path, namespace: str, until: Any
) -> None:
    start_operator()
    sent = fedjob("submit", "job.yaml")
    assert sent.stdout.splitlines()[:2] == [
        f"federatedjob.fedjob.dev/digits created in namespace {namespace}",
        "code   net.py, train.py (0.0 KiB)",
    ]
    assert f"fedjob logs digits -n {namespace} -f" in sent.stdout
    raw = scientist.get(names.FEDERATED_JOB, namespace, "digits")
    assert set(raw["spec"]["trainer"]["files"]) == {"train.py", "net.py"}
    assert "unchanged" in fedjob("submit", "job.yaml").stdout

    kubelet.run(SERVER, 1)
    until("the server to be ready", lambda: condition(scientist, namespace, "ServerReady") == "True")
    table = [line.split() for line in fedjob("get").stdout.splitlines()]
    assert table[0][:4] == ["NAME", "STATE", "ROUND", "OF"]
    assert table[1][0] == "digits"
    assert fedjob("get", "digits", "-o", "name").stdout == "federatedjob.fedjob.dev/digits\n"
    assert json.loads(fedjob("get", "digits", "-o", "json").stdout)["metadata"]["uid"] == raw["metadata"]["uid"]
    assert yaml.safe_load(fedjob("get", "-o", "yaml").stdout)["items"][0]["spec"] == raw["spec"]
    page = fedjob("status", "digits").stdout
    assert "round 0/3" in page
    assert all(site in page for site in sites_of(namespace))

    assert "has no pods from now on" in fedjob("suspend", "digits").stdout
    assert fedjob("suspend", "digits").stdout == "digits is paused already\n"
    until("the pause", lambda: condition(scientist, namespace, "Admitted") == "False")
    assert "spec.suspend is true" in fedjob("status", "digits").stdout
    fedjob("resume", "digits")
    assert scientist.get(names.FEDERATED_JOB, namespace, "digits")["spec"]["suspend"] is False

    fedjob("cancel", "digits", code=2)  # nobody to ask
    assert "deleted" in fedjob("cancel", "digits", "--yes").stdout
    assert scientist.get(names.FEDERATED_JOB, namespace, "digits") is None


def condition(kube: Any, namespace: str, kind: str, name: str = "digits") -> str:
    """Status of a condition of a job."""
    found = ((kube.get(names.FEDERATED_JOB, namespace, name) or {}).get("status") or {}).get("conditions") or ()
    return next((c["status"] for c in found if c["type"] == kind), "")


def test_the_end_of_a_job_is_the_exit_code_of_whoever_waits(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob
) -> None:
    start_operator()
    good, bad = submit("good"), submit("bad")
    assert fedjob("status", "good", "--wait", "--timeout", "1s", code=4).stderr.startswith(
        "good has not ended after 1 s"
    )
    for pod in kubelet.run(SERVER, 2):
        is_good = pod["metadata"]["labels"][names.JOB_LABEL] == "good"
        failed = json.dumps({"reason": "QuorumNotMet", "message": "round 0"})
        kubelet.end(pod, 0 if is_good else 1, COMPLETE if is_good else failed)
    assert fedjob("status", "good", "--wait").stderr == "good: RoundsCompleted\n"
    watched = fedjob("status", "bad", "--watch", code=1)
    assert watched.stderr == "bad: QuorumNotMet: round 0\n"
    assert "Failed: QuorumNotMet: round 0" in watched.stdout
    assert good.status["state"] == "Complete"
    assert bad.status["state"] == "Failed"
    assert "there is nothing to suspend" in fedjob("suspend", "bad", code=3).stderr
    assert "bad has no final model: QuorumNotMet" in fedjob("download", "bad", code=3).stderr


def test_a_job_that_has_ended_is_not_sent_again(
    start_operator: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, job_file: Path, namespace: str
) -> None:
    start_operator()
    fedjob("submit", "job.yaml")
    kubelet.end(kubelet.run(SERVER, 1)[0], 0, COMPLETE)
    fedjob("status", "digits", "--wait")
    refused = fedjob("submit", "job.yaml", code=3).stderr
    assert f"digits in namespace {namespace} is there already and is complete" in refused
    assert f"fedjob cancel digits -n {namespace}" in refused


def test_whoever_waits_gets_over_an_api_server_that_comes_and_goes(
    start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, proxy: Any, plane: ControlPlane, namespace: str
) -> None:  # fmt: skip
    start_operator()
    submit()
    faults = iter([Cut(), Answer(503, "ServiceUnavailable"), Truncate(700), Answer(429, "TooManyRequests"), Cut()])
    seen = threading.Event()

    def judge(call: Any) -> Any:
        fault = next(faults, None) if "federatedjobs" in call.path and call.number > 1 else None
        if fault is None and call.is_watch:
            seen.set()
        return fault

    proxy.judge = judge
    config = str(plane.kubeconfig(SCIENTIST, proxy.url))
    (server,) = kubelet.run(SERVER, 1)
    ender = threading.Thread(target=lambda: (seen.wait(60), kubelet.end(server, 0, COMPLETE)))
    ender.start()
    waited = fedjob("status", "digits", "--wait", "--kubeconfig", config, "-n", namespace, where=False)
    ender.join()
    assert waited.stderr == "digits: RoundsCompleted\n"
    assert next(faults, None) is None, "every fault has struck"


def test_a_watch_ends_when_the_job_is_deleted(
    submit: Any, scientist: Any, fedjob: Fedjob, proxy: Any, plane: ControlPlane, namespace: str, admin: Any
) -> None:
    submit()
    watched = threading.Event()
    proxy.judge = lambda call: watched.set() if call.is_watch else None
    config = str(plane.kubeconfig(SCIENTIST, proxy.url))
    deletes = threading.Thread(
        target=lambda: watched.wait(60) and admin.delete(names.FEDERATED_JOB, namespace, "digits")
    )
    deletes.start()
    place = ("--kubeconfig", config, "-n", namespace)
    assert fedjob("status", "digits", "--watch", *place, code=3, where=False).stderr == "digits was deleted\n"
    deletes.join()


def test_what_is_wrong_is_one_line(
    submit: Any, scientist: Any, fedjob: Fedjob, job_file: Path, namespace: str, plane: ControlPlane
) -> None:
    submit()

    def line(*words: str, **more: Any) -> str:
        said = fedjob(*words, **{"code": 3, **more}).stderr
        assert len(said.splitlines()) == 1, said
        return said

    assert f"no job digit in namespace {namespace}; did you mean digits?" in line("status", "digit")
    assert "you may not list jobs (federatedjobs.fedjob.dev) in all namespaces" in line("get", "-A")
    assert "you may not get the job digits in namespace default" in line(
        "status", "digits", "-n", "default", "--kubeconfig", str(plane.kubeconfig(SCIENTIST)), where=False
    )
    assert "the job has no site c" in line("logs", "digits", "--site", "c")
    assert "no pod of digits yet: it is Pending" in line("logs", "digits")
    assert "digits has no final model yet: Pending  round 0/3" in line("download", "digits")
    assert "digits has no volume yet" in line("report", "digits")
    job_file.write_text(job_file.read_text().replace("rounds: 3", "rounds: 0"))
    assert "spec.workflow.rounds: got 0, allowed: a whole number from 1" in line("submit", "job.yaml", code=2)
    assert "does not know you (401 Unauthorized)" in line("get", token="wrong")


def test_it_is_a_plugin_of_kubectl(
    plane: ControlPlane, submit: Any, scientist: Any, namespace: str, tmp_path: Path
) -> None:
    """kubectl finds it by its name on the path, and it speaks of itself as kubectl does."""
    submit()
    script = tmp_path / "kubectl-fedjob"
    script.write_text(f"#!{sys.executable}\nfrom fedjob.cli.main import main\nmain()\n")
    script.chmod(0o755)
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig(SCIENTIST)), "HOME": str(tmp_path)}
    environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"

    def kubectl(*words: str) -> str:
        command = [str(plane.binaries / "kubectl"), "fedjob", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    assert kubectl("get", "-n", namespace, "-o", "name") == "federatedjob.fedjob.dev/digits\n"
    assert "Usage: kubectl fedjob status" in kubectl("status", "--help")


PLUGIN = """#!/bin/sh
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}' "$(cat TOKEN)"
"""


def test_a_login_that_has_ended_is_made_anew(
    plane: ControlPlane, scientist: Any, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloud's token lives a quarter of an hour, a training days: the kubeconfig's plugin is asked again."""
    monkeypatch.setattr(connection, "_LOGIN_SECONDS", 0.0)
    token, plugin = tmp_path / "token", tmp_path / "plugin"
    plugin.write_text(PLUGIN.replace("TOKEN", str(token)))
    plugin.chmod(0o755)
    config = yaml.safe_load(plane.kubeconfig(SCIENTIST).read_text())
    version = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": {**version, "command": str(plugin)}}
    (tmp_path / "config").write_text(yaml.safe_dump(config))

    async def calls() -> list[Any]:
        token.write_text("ended")
        async with connection.connected(connection.Where(tmp_path / "config")) as cluster:
            token.write_text(SCIENTIST)
            found = await cluster.get(names.FEDERATED_JOB.path(namespace), "list jobs")
            token.write_text("ended")
            return [found["items"], await cluster.get(names.FEDERATED_JOB.path(namespace), "list jobs")]

    assert asyncio.run(calls())[0] == []


# ----------------------------------------------------------------------------------------------------- logs


def test_logs_of_all_pods_come_as_one_in_the_order_of_time(
    admin: Any,
    start_operator: Any,
    submit: Any,
    kubelet: Any,
    scientist: Any,
    fedjob: Fedjob,
    node: KubeletPort,
    namespace: str,
) -> None:
    start_operator()
    job = submit()
    pods = started(admin, kubelet, job, namespace)
    a, b = sites_of(namespace)
    said = [(SERVER, "listening"), (a, "loss 0.9"), (b, "loss 0.8"), (SERVER, "round 0"), (a, "loss 0.7")]
    for second, (who, text) in enumerate(said):
        node.write(pods[who], SERVER if who == SERVER else CLIENT, text, f"2030-01-01T00:00:0{second}.5Z")
    lines = [tuple(line.split(maxsplit=1)) for line in fedjob("logs", "digits").stdout.splitlines()]
    assert lines == said
    assert [line.split()[1] for line in fedjob("logs", "digits", "--server").stdout.splitlines()] == [
        "listening",
        "round",
    ]
    assert fedjob("logs", "digits", "--site", b).stdout.split(maxsplit=1)[1] == "loss 0.8\n"
    assert len(fedjob("logs", "digits", "--tail", "1").stdout.splitlines()) == 3


def test_logs_are_followed_over_restarts_until_the_job_ends(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, node: KubeletPort, namespace: str,
    until: Any,
) -> None:  # fmt: skip
    start_operator()
    job = submit(failurePolicy={"siteRestarts": 3})
    pods = started(admin, kubelet, job, namespace)
    node.running = {(name, SERVER if who == SERVER else CLIENT) for who, name in pods.items()}
    a, _ = sites_of(namespace)
    node.write(pods[a], CLIENT, "first")
    out: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: out.append(fedjob("logs", "digits", "-f")))
    thread.start()
    node.write(pods[a], CLIENT, "second")
    dying = next(pod for pod in kubelet.live(CLIENT) if pod["metadata"]["name"] == pods[a])
    node.write(pods[a], CLIENT, "dying")
    node.running.discard((pods[a], CLIENT))
    kubelet.end(dying, 1, "out of luck")

    def next_run() -> Any:
        live = [pod for pod in kubelet.live(CLIENT) if pod["metadata"]["labels"][names.SITE_LABEL] == a]
        return live[0] if live else None

    again = until("the next run of the script", next_run)
    node.running.add((again["metadata"]["name"], CLIENT))
    node.write(again["metadata"]["name"], CLIENT, "reborn")
    place(admin, namespace, again, CLIENT)
    until("the reader to be at the new pod", lambda: again["metadata"]["name"] in node.asked)
    node.running.clear()
    server = next(pod for pod in kubelet.live(SERVER))
    node.write(pods[SERVER], SERVER, "complete")
    kubelet.end(server, 0, COMPLETE)
    thread.join(60)
    assert not thread.is_alive()
    texts = [line.split()[-1] for line in out[0].stdout.splitlines()]
    assert texts == ["first", "second", "dying", "reborn", "complete"]


def started(admin: Any, kubelet: Any, job: Any, namespace: str) -> dict[str, str]:
    """Server and clients run on the node; the name of each one's pod."""
    (server,) = kubelet.run(SERVER, 1)
    place(admin, namespace, server, SERVER)
    job.wait("ServerReady", "True", "Ready")
    found = {SERVER: server["metadata"]["name"]}
    for pod in kubelet.run(CLIENT, 2):
        place(admin, namespace, pod, CLIENT)
        found[pod["metadata"]["labels"][names.SITE_LABEL]] = pod["metadata"]["name"]
    return found


# --------------------------------------------------------------------------------------------- what is left


@pytest.fixture
def volume(tmp_path: Path, node: KubeletPort) -> Path:
    """What the server has left on its volume: a run folder with a model of a megabyte."""
    folder = tmp_path / "volume"
    run = folder / "run"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(random.Random(7).randbytes(1_000_003))
    append(run / HISTORY_FILE, RoundRecord(0, contributors=("a",), metrics={"accuracy": 0.75}))
    model = FinalModel(file_digest(run / "model.safetensors"), 1_000_003)
    write_status(
        run / STATUS_FILE, Status(job=JobRef("digits"), state="Complete", metrics={"accuracy": 0.75}, model=model)
    )
    node.folders[names.STATE_FOLDER] = folder
    return folder


def finished(kubelet: Any, admin: Any, job: Any, namespace: str, digest: str) -> None:
    """The job is complete, and its server has told of its model."""
    kubelet.end(kubelet.run(SERVER, 1)[0], 0, COMPLETE)
    job.wait("Complete", "True", "RoundsCompleted")
    status = {"model": {"digest": digest, "size": 1_000_003}}
    admin.patch(names.FEDERATED_JOB, namespace, job.name, {"status": status}, "/status")


class Hands:
    """Lets every pod that reads a volume run, as scheduler and kubelet would. `pods`: those that there were."""

    def __init__(self, admin: Any, namespace: str) -> None:
        self.pods: list[Any] = []
        self._admin, self._namespace = admin, namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Hands:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.2):
            for pod in self._admin.list(names.POD, self._namespace, f"{names.ROLE_LABEL}=reader"):
                if pod["metadata"]["uid"] not in [known["metadata"]["uid"] for known in self.pods]:
                    self.pods.append(pod)
                    place(self._admin, self._namespace, pod, "reader")


def test_a_model_is_downloaded_from_the_volume_of_a_job_that_is_over_however_often_the_stream_is_cut(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, node: KubeletPort, volume: Path,
    namespace: str, tmp_path: Path,
) -> None:  # fmt: skip
    start_operator("--image-pull-secrets", "registry")
    tolerated = {"key": "example.com/pool", "operator": "Exists"}
    there = {"nodeSelector": {"example.com/pool": "servers"}, "tolerations": [tolerated]}
    job, model = submit(server={"scheduling": there}), volume / "run" / "model.safetensors"
    finished(kubelet, admin, job, namespace, file_digest(model))
    node.cut_after = [300_000, 5, 400_000]
    with Hands(admin, namespace) as hands:
        done = fedjob("download", "digits", "-o", "got.safetensors")
    assert done.stdout == "got.safetensors\n"
    assert (tmp_path / "got.safetensors").read_bytes() == model.read_bytes()
    assert not list(tmp_path.glob(".*.part"))
    offsets = [int(command[-1]) for command in node.commands]
    assert offsets == [0, 299_992, 299_992, 699_984]
    (pod,) = hands.pods
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["nodeSelector"] == there["nodeSelector"]
    assert tolerated in pod["spec"]["tolerations"]
    (mounted,) = pod["spec"]["volumes"]
    assert mounted["persistentVolumeClaim"]["readOnly"] is True
    assert pod["metadata"]["ownerReferences"][0]["uid"] == job.raw["metadata"]["uid"]
    left = admin.list(names.POD, namespace, f"{names.ROLE_LABEL}=reader")
    assert [p["metadata"]["name"] for p in left if "deletionTimestamp" not in p["metadata"]] == []
    assert fedjob("download", "digits", "-o", "got.safetensors").stderr == "got.safetensors is this model already\n"
    (tmp_path / "got.safetensors").write_bytes(b"mine")
    assert "--force" in fedjob("download", "digits", "-o", "got.safetensors", code=2).stderr


def test_a_model_that_is_not_the_one_of_the_status_is_thrown_away(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, node: KubeletPort, volume: Path,
    namespace: str, tmp_path: Path,
) -> None:  # fmt: skip
    start_operator()
    finished(kubelet, admin, submit(), namespace, "0" * 64)
    with Hands(admin, namespace):
        refused = fedjob("download", "digits", code=3)
    assert "the job's status says " + "0" * 64 in refused.stderr
    assert not list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob(".*.part"))


def test_a_report_is_built_from_the_volume_of_a_server_that_lives(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, node: KubeletPort, volume: Path,
    namespace: str, tmp_path: Path,
) -> None:  # fmt: skip
    start_operator()
    started(admin, kubelet, submit(), namespace)
    assert fedjob("report", "digits").stdout == "digits.html\n"
    page = (tmp_path / "digits.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "0.75" in page
    assert admin.list(names.POD, namespace, f"{names.ROLE_LABEL}=reader") == []
