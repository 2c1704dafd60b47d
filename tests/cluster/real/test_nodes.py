"""A job over a drain and over the loss of nodes, on a cluster of two: it goes on, and the model has the bytes of an undisturbed run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kube import until
from cluster.real import federation, installation, network, power
from cluster.real.cluster import Cluster, running
from cluster.real.federation import HOSPITALS, Submitted
from cluster.real.images import Images
from cluster.real.layout import Node
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

ROUNDS = 20
DRAIN_SECONDS = 40  # longer than the grace of a pod that is evicted, so that only what is refused is left


@pytest.fixture(scope="module")
def pair(binaries: Path, images: Images) -> Iterator[Cluster]:
    """A cluster of two nodes, with the operator and three hospitals."""
    with running("pair", binaries, nodes=2) as made:
        for archive in images.archives[:2]:
            made.import_image(archive)
        installation.install(made, images)
        federation.found(made, images)
        yield made


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the model that nothing has disturbed; it depends on the rounds and the sites, not on the job's name."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "job.yaml").write_text(yaml.safe_dump(federation.steady("steady", ROUNDS, 0.0)))
    return federation.local_model(folder / "job.yaml", folder)


@pytest.fixture
def team(pair: Cluster) -> Iterator[Cluster]:
    """The pair, with both nodes there and open to pods before and after the test."""
    # A drain puts both replicas of the operator on one node; new ones spread.
    place = ("--namespace", installation.SYSTEM)
    pair.plane.kubectl("delete", "pod", *place, "--selector", installation.SELECTOR)
    pair.plane.kubectl("rollout", "status", *place, f"deployment/{installation.NAME}", "--timeout=50s")
    yield pair
    for node in pair.nodes:
        if node.namespace not in network.namespaces():
            power.node_start(pair, node)
        schedule(pair, node, allowed=True)


def schedule(pair: Cluster, node: Node, *, allowed: bool) -> None:
    """Whether pods may be placed on a node."""
    pair.plane.kubectl("uncordon" if allowed else "cordon", node.name)


def placed(pair: Cluster, name: str, server: Node, clients: Node, round_seconds: float) -> Submitted:
    """A job with its server on one node and all its clients on another, or on the same, two rounds after its start."""
    [other] = set(pair.nodes) - {server}
    schedule(pair, other, allowed=False)
    job = federation.submit(pair, federation.steady(name, ROUNDS, round_seconds))
    until("the server to have a node", lambda: nodes(job, SERVER) == [server.name])
    schedule(pair, other, allowed=True)
    [empty] = set(pair.nodes) - {clients}
    schedule(pair, empty, allowed=False)  # clients are made when the server is ready
    until("the clients to have a node", lambda: nodes(job, CLIENT) == [clients.name] * len(HOSPITALS))
    schedule(pair, empty, allowed=True)
    job.round_reached(2)
    return job


def nodes(job: Submitted, role: str) -> list[str]:
    """Where its pods are that have a place; one that leaves is no longer counted."""
    pods = [pod for pod in job.pods(role) if "deletionTimestamp" not in pod["metadata"]]
    return [pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")]


def running_on(job: Submitted, role: str) -> list[str]:
    """Where its pods are ready."""
    ready = [pod for pod in job.pods(role) if is_ready(pod)]
    return [pod["spec"]["nodeName"] for pod in ready]


def is_ready(pod: Any) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def drain(pair: Cluster, node: Node) -> str:
    """`kubectl drain`; returns why it gave up, "" if it did not."""
    options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_SECONDS}s")
    try:
        pair.plane.kubectl("drain", node.name, *options)
    except subprocess.CalledProcessError as e:
        return str(e.stderr)
    return ""


def sites(job: Submitted) -> dict[str, tuple[str, str, str]]:
    """State, reason and message of every site, as the job's status has them."""
    found = job.raw.get("status", {}).get("sites") or ()
    return {site["name"]: (site["state"], site.get("reason", ""), site.get("message", "")) for site in found}


@pytest.mark.measure("C2")
@pytest.mark.timeout(1200)  # the cluster comes up in it, with its images
def test_a_drain_moves_clients_and_waits_for_the_server_until_the_job_is_suspended(
    team: Cluster, expected: str
) -> None:
    first, second = team.nodes
    job = placed(team, "drained", server=first, clients=first, round_seconds=4.0)
    [server] = job.pods(SERVER)
    refused = drain(team, first)
    assert server["metadata"]["name"] in refused
    assert "disruption budget" in refused
    until("the clients on the other node", lambda: running_on(job, CLIENT) == [second.name] * len(HOSPITALS), 120)
    assert [pod["metadata"]["uid"] for pod in job.pods(SERVER)] == [server["metadata"]["uid"]]
    job.round_reached(job.completed_rounds + 1)

    suspend(job, True)
    until("the server to go", lambda: not job.pods(SERVER), 120)
    assert drain(team, first) == ""
    suspend(job, False)
    until("the server to wait for the node of its volume", lambda: job.condition("ServerReady")[1] == "Unschedulable")
    schedule(team, first, allowed=True)
    job.complete()
    assert job.model() == expected
    assert job.history() == list(range(ROUNDS))


def suspend(job: Submitted, so: bool) -> None:
    job.kube.patch(names.FEDERATED_JOB, federation.TEAM, job.name, {"spec": {"suspend": so}})


@pytest.mark.measure("C2")
def test_the_clients_node_is_lost_and_comes_back(team: Cluster, expected: str) -> None:
    """It is away until its pods shall leave it, which they cannot: no others are started while they may live."""
    first, second = team.nodes
    job = placed(team, "lost-clients", server=first, clients=second, round_seconds=1.0)
    power.node_stop(team, second)
    until("the sites to be told lost", lambda: all(reason == "NodeLost" for _, reason, _ in sites(job).values()), 120)
    for _, _, message in sites(job).values():
        assert second.name in message
    assert job.condition("ServerReady")[0] == "True"
    until("the clients to be asked to leave", lambda: nodes(job, CLIENT) == [], 120)
    stands = job.completed_rounds
    power.node_start(team, second)
    job.round_reached(stands + 1)
    job.complete()
    assert job.model() == expected
    assert job.history() == list(range(ROUNDS))


@pytest.mark.measure("C2")
def test_the_servers_node_is_lost_and_comes_back(team: Cluster, expected: str) -> None:
    """No second server is started, whoever could run it."""
    first, second = team.nodes
    job = placed(team, "lost-server", server=first, clients=second, round_seconds=1.0)
    [server] = job.pods(SERVER)
    power.node_stop(team, first)
    until("the server to be told lost", lambda: job.condition("ServerReady")[1] == "NodeLost", 120)
    assert first.name in job.condition("ServerReady")[2]
    assert [pod["metadata"]["uid"] for pod in job.pods(SERVER)] == [server["metadata"]["uid"]]
    power.node_start(team, first)
    job.complete()
    assert job.model() == expected
    assert job.history() == list(range(ROUNDS))
