"""What a job asks of its nodes, on real kubelets: several processes, a GPU, memory, an image; and what it says where that is not to be had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.helm import Helm
from cluster.kube import until
from cluster.real import federation
from cluster.real.cluster import Cluster
from cluster.real.federation import HOSPITALS, TEAM, Submitted
from cluster.real.images import Images
from fedjob_operator import names

ROUNDS = 3
GPU = "nvidia.com/gpu"
Send = Callable[[dict[str, Any]], Submitted]

# The model counts the processes that trained it.
TOGETHER = """
import os

import numpy as np

import fedjob

first = os.environ.get("RANK", "0") == "0"
fedjob.init({"w": np.zeros(1000, np.float32)} if first else None)
while fedjob.is_running():
    model = fedjob.receive()
    if model is None:
        break
    params = {"w": model.params["w"] + int(os.environ.get("WORLD_SIZE", "1"))}
    fedjob.send(fedjob.FLModel(params=params, meta={"num_examples": 1}))
"""
HUNGRY = """
import fedjob

fedjob.init({"w": 0.0})
fedjob.receive()
held = b"x" * (1 << 30)
"""


@pytest.fixture
def team(cluster: Cluster, hub: Helm) -> Cluster:
    """The cluster, with the operator and three hospitals."""
    return cluster


@pytest.fixture
def send(team: Cluster) -> Iterator[Send]:
    """`kubectl apply` of a job that is taken away with the test."""
    sent: list[str] = []

    def one(job: dict[str, Any]) -> Submitted:
        sent.append(job["metadata"]["name"])
        return federation.submit(team, job)

    yield one
    team.plane.kubectl("delete", "federatedjobs", "--namespace", TEAM, *sent)


def job(name: str, code: str, **trainer: Any) -> dict[str, Any]:
    """A job of one hospital with a script of its own."""
    trainer = {"files": {"train.py": code}, **trainer}
    spec = {"workflow": {"rounds": ROUNDS}, "trainer": trainer, "sites": [{"name": HOSPITALS[0]}]}
    return {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": {"name": name}, "spec": spec}


def site(job: Submitted) -> tuple[str, str]:
    """Reason and message of the hospital, as the job's status has them."""
    [found] = job.raw.get("status", {}).get("sites") or [{}]
    return found.get("reason", ""), found.get("message", "")


def told(job: Submitted, reason: str) -> str:
    """The hospital's message, as soon as it has this reason."""

    def message() -> str:
        found, words = site(job)
        return words if found == reason else ""

    return str(until(f"the hospital to say {reason}", message))


@contextmanager
def gpus(cluster: Cluster, number: int) -> Iterator[None]:
    """The node announces GPUs that nobody has to use: they are placed, which is all that the control plane does with them."""
    node = cluster.plane.kubectl("get", "nodes", "--output", "name").strip()
    place = f"/status/capacity/{GPU.replace('/', '~1')}"

    def patch(**change: str) -> None:
        how = json.dumps([{"path": place, **change}])
        cluster.plane.kubectl("patch", node, "--subresource=status", "--type=json", "--patch", how)

    patch(op="add", value=str(number))
    try:
        yield
    finally:
        patch(op="remove")


def test_two_processes_of_a_site_train_together(send: Send) -> None:
    together = send(job("together", TOGETHER, processesPerNode=2))
    together.complete()
    assert np.all(load_file(together.run / "model.safetensors")["w"] == 2 * ROUNDS)


def test_a_job_that_asks_for_a_gpu_waits_for_one_and_says_so(team: Cluster, send: Send) -> None:
    asking = send(job("asking", TOGETHER, processesPerNode=2, resources={"limits": {GPU: "1"}}))
    assert GPU in told(asking, "Unschedulable")
    with gpus(team, 1):
        asking.complete()


def test_an_image_that_cannot_be_pulled_is_named(send: Send, images: Images) -> None:
    absent = f"{images.registry}/fedjob-runtime:absent"
    pulling = send(job("pulling", TOGETHER, image=absent))
    assert absent in told(pulling, "ImagePull")


def test_a_script_that_takes_too_much_memory_is_told_the_limit(send: Send) -> None:
    hungry = send(job("hungry", HUNGRY, resources={"limits": {"memory": "512Mi"}}))
    assert "512Mi" in told(hungry, "OOMKilled")
