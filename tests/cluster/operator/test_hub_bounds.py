"""What runs at the hub, on a real control plane: nothing starts that the hub's administrator has not listed."""

from __future__ import annotations

import json
from typing import Any

from fedjob_operator import names
from fedjob_operator.names import SERVER, Kind

PRIORITY = Kind("PriorityClass", "scheduling.k8s.io", "v1", "priorityclasses")


def accepted(job: Any) -> str:
    """The message of the job's condition Accepted."""
    return str(next(c["message"] for c in job.status["conditions"] if c["type"] == "Accepted"))


def test_a_server_that_asks_for_what_is_not_listed_is_not_started_and_one_that_asks_for_it_is(
    admin: Any, namespace: str, start_operator: Any, submit: Any, kubelet: Any
) -> None:
    name = f"high-{namespace}"[:63].rstrip("-")
    admin.create(PRIORITY, "", name, value=1000, description="of a test")
    start_operator("--server-bounds", json.dumps({"priorityClassNames": [name]}))
    refused = submit("refused", server={"scheduling": {"priorityClassName": "system-cluster-critical"}})
    refused.wait("Accepted", "False", "ServerNotAllowed")
    assert "spec.server.scheduling.priorityClassName: system-cluster-critical is not among" in accepted(refused)
    assert "server.allowed.priorityClassNames of the hub's chart" in accepted(refused)
    listed = submit("listed", server={"scheduling": {"priorityClassName": name}})
    (pod,) = kubelet.run(SERVER, 1)
    assert (pod["spec"]["priorityClassName"], pod["metadata"]["labels"][names.JOB_LABEL]) == (name, "listed")
    listed.wait("ServerReady", "True", "Ready")
    jobs = admin.list(names.JOB, namespace, f"{names.JOB_LABEL}=refused")
    assert [*jobs, *admin.list(names.SITE_JOB, namespace, f"{names.JOB_LABEL}=refused")] == []


def test_code_that_makes_the_first_model_runs_in_a_listed_image_without_the_servers_volume_and_key(
    namespace: str, start_operator: Any, submit: Any, kubelet: Any
) -> None:
    start_operator()
    initial = {"model": {"initial": {"object": "train:model"}}, "trainer": {"files": {"train.py": "x"}}}
    other = submit("other", **{**initial, "trainer": {**initial["trainer"], "image": "example/other:1"}})
    other.wait("Accepted", "False", "ServerNotAllowed")
    assert "image example/other:1 is not among server.allowed.initialModel.images" in accepted(other)
    submit("own", **initial)
    (pod,) = kubelet.run(SERVER, 1)
    code = next(c for c in pod["spec"]["initContainers"] if c["name"] == "initial-model")
    volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
    seen = [volumes[mount["name"]] for mount in code["volumeMounts"]]
    assert not any("persistentVolumeClaim" in volume or "secret" in volume for volume in seen)
    assert "serviceAccountToken" not in json.dumps(seen)
