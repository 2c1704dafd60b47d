"""What runs at the hub is judged by the hub: nothing out of the ordinary unless its administrator lists it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fedjob.api import FederatedJob, validate
from fedjob_operator import names
from fedjob_operator.bounds import ServerBounds, server_bounds
from fedjob_operator.desired.server_bounds import objections
from fedjob_operator.names import SERVER

IMAGE = "fedjob-runtime:1"


def job_of(**spec: Any) -> FederatedJob:
    body = {
        "workflow": {"rounds": 3},
        "trainer": {"files": {"train.py": ""}},
        "sites": [{"name": "a"}],
        **spec,
    }
    metadata = {"name": "digits", "namespace": "team-a"}
    return validate({"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": metadata, "spec": body})


def against(bounds: ServerBounds, **spec: Any) -> list[str]:
    return list(objections(job_of(**spec).spec, bounds, IMAGE))


NOTHING = ServerBounds()
FIRST = {"initial": {"object": "train:model"}}
FOREIGN = {"image": "evil.example/miner:1", "command": ["python", "train.py"]}
REPOSITORY = [{"repository": "evil.example/*"}]
TOLERATION = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("asked", "listed", "value"),
    [
        ({"server": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}, {"max": {"nvidia.com/gpu": "1"}}, "max[nvidia.com/gpu]"),
        ({"server": {"resources": {"requests": {"hugepages-2Mi": "1Gi"}}}}, {"max": {"hugepages-2Mi": "1Gi"}}, "max[hugepages-2Mi]"),
        ({"server": {"scheduling": {"priorityClassName": "system-cluster-critical"}}}, {"priorityClassNames": ["system-cluster-critical"]}, "priorityClassNames"),
        ({"server": {"scheduling": {"tolerations": [{"operator": "Exists"}]}}}, {"tolerations": [{"operator": "Exists"}]}, "tolerations"),
        ({"server": {"scheduling": {"nodeSelector": {"pool": "gpu-1"}}}}, {"nodeLabels": {"pool": ["gpu-*"]}}, "nodeLabels[pool]"),
        ({"server": {"exposure": {"annotations": {"external-dns.io/hostname": "portal"}}}}, {"serviceAnnotations": ["external-dns.io/*"]}, "serviceAnnotations"),
        ({"model": FIRST, "trainer": FOREIGN}, {"initialModel": {"images": REPOSITORY}}, "initialModel.images"),
    ],
)  # fmt: skip
def test_what_is_not_listed_is_refused_and_the_value_that_would_allow_it_is_named(
    asked: dict[str, Any], listed: dict[str, Any], value: str
) -> None:
    [message] = against(NOTHING, **asked)
    assert message.startswith("spec.")
    assert f"server.allowed.{value} of the hub's chart" in message
    assert against(server_bounds(json.dumps(listed)), **asked) == []


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ({"server": {"resources": {"limits": {"cpu": "9"}}}}, {"max": {"cpu": "8"}}),
        ({"server": {"resources": {"requests": {"memory": "9Gi"}}}}, {"max": {"memory": "8Gi"}}),
        ({"server": {"storage": {"size": "2Ti"}}}, {"maxStorage": "1Ti"}),
        ({"server": {"scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}}, {"tolerations": [TOLERATION]}),
        ({"server": {"scheduling": {"nodeSelector": {"pool": "control-plane"}}}}, {"nodeLabels": {"pool": ["gpu-*"], "x": ["*"]}}),
        ({"server": {"exposure": {"annotations": {"getambassador.io/config": ""}}}}, {"serviceAnnotations": ["*", "external-dns.io/*"]}),
        ({"model": FIRST}, {"initialModel": {"inlineCode": "Deny"}}),
        ({"model": FIRST, "trainer": FOREIGN}, {"initialModel": {"images": [{"repository": "evil.example/*", "digests": ["sha256:" + "0" * 64]}]}}),
    ],
)  # fmt: skip
def test_more_than_is_listed_is_refused(asked: dict[str, Any], listed: dict[str, Any]) -> None:
    [message] = against(server_bounds(json.dumps(listed)), **asked)
    assert "server.allowed." in message


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": FIRST},
        {"model": FIRST, "trainer": {"image": IMAGE, "files": {"train.py": ""}}},
        {"trainer": FOREIGN},
    ],
)
def test_an_ordinary_job_needs_no_list(spec: dict[str, Any]) -> None:
    """What sites run is theirs to judge; the runtime image may make a first model."""
    assert against(NOTHING, server={"resources": {"limits": {"cpu": "4", "memory": "8Gi"}}}, **spec) == []


def test_every_choice_of_a_server_is_judged() -> None:
    """Whoever adds a field to spec.server says here what bounds it."""
    judged = {
        "resources": {"limits", "requests"},
        "scheduling": {"nodeSelector", "tolerations", "priorityClassName"},
        "storage": {"size", "storageClassName"},  # the class: a quota of the namespace by class
        "exposure": {"type", "annotations"},  # the type: only ClusterIP, see Unsupported
    }
    spec = job_of().spec.server.model_dump(by_alias=True)
    assert {part: set(fields) for part, fields in spec.items()} == judged


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"priorityClassNames": "high"}', "server.allowed.priorityClassNames"),
        ('{"maximum": {}}', "server.allowed.maximum"),
        ('{"max": {"cpu": "lots"}}', "server.allowed.max.cpu"),
        ("{", "server.allowed"),
    ],
)
def test_a_wrong_value_of_the_chart_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        server_bounds(text)


# ------------------------------------------------------------------------------------------------------- stories

HOSTILE = {
    "model": FIRST,
    "trainer": {"image": "evil.example/miner:1", "files": {"train.py": "steal()"}},
    "server": {"scheduling": {"priorityClassName": "system-cluster-critical"}},
}


def test_a_job_that_the_hub_refuses_leaves_nothing_behind(world: Any) -> None:
    key = world.submit(**HOSTILE)
    plan = world.plan(key)
    assert (plan.create, plan.apply, plan.issue) == ((), (), ())
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "ServerNotAllowed")
    assert world.jobs(SERVER) == []
    world.edit(key, model={}, server={}, trainer={"files": {"train.py": ""}})
    world.settle()
    assert len(world.jobs(SERVER)) == 1


def test_a_pause_lets_nothing_in_that_was_refused(world: Any) -> None:
    """While a job is paused its server's placement, its image and its code may be changed."""
    key = world.submit()
    world.up(key)
    world.edit(key, suspend=True)
    world.settle()
    world.end_pod(world.pods(SERVER)[0], 143)
    world.settle()
    world.orphans_die()
    before = len(world.jobs(SERVER))
    world.edit(key, suspend=False, **HOSTILE)
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "ServerNotAllowed")
    assert len(world.jobs(SERVER)) == before
    assert "miner" not in json.dumps([raw for (kind, _, _), raw in world.objects.items() if kind == names.JOB.name])


def test_a_list_that_gets_shorter_ends_no_server_that_runs(world: Any) -> None:
    world.settings = replace(world.settings, bounds=server_bounds('{"priorityClassNames": ["high"]}'))
    key = world.submit(server={"scheduling": {"priorityClassName": "high"}})
    world.up(key)
    world.settings = replace(world.settings, bounds=NOTHING)
    world.settle()
    assert world.condition(key, "Progressing") == ("True", "Training")
    [server] = world.pods(SERVER)
    world.end_pod(server, 0, json.dumps({"reason": "RoundsCompleted", "message": ""}))
    world.settle()
    assert world.condition(key, "Complete") == ("True", "RoundsCompleted")
