"""A job is sent, looked at, waited for, paused and taken away; what is wrong is one line."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.apiproxy import Answer, Cut, Truncate
from cluster.controlplane import SCIENTIST, ControlPlane
from cluster.operator.cli.conftest import CLI_SECONDS, COMPLETE, Fedjob
from cluster.operator.conftest import sites_of
from fedjob_operator import names
from fedjob_operator.names import SERVER

pytestmark = pytest.mark.timeout(CLI_SECONDS)


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
