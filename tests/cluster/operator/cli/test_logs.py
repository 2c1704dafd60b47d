"""`fedjob logs`: the pods of a job as one, in the order of time, over restarts."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

import pytest

from cluster.kubelet_port import KubeletPort
from cluster.operator.cli.conftest import CLI_SECONDS, COMPLETE, Fedjob, place, started
from cluster.operator.conftest import sites_of
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

pytestmark = pytest.mark.timeout(CLI_SECONDS)


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
