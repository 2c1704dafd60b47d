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


REMEDY = "of the hub's chart; or leave it out: then a site's script offers the first model"
CHART = "of the hub's chart)"


def server(**asked: Any) -> dict[str, Any]:
    return {"server": asked}


def scheduling(**asked: Any) -> dict[str, Any]:
    return server(scheduling=asked)


@pytest.mark.parametrize(
    ("asked", "listed", "message"),
    [
        (
            server(resources={"limits": {"nvidia.com/gpu": "1"}}),
            {"max": {"nvidia.com/gpu": "1"}},
            f"spec.server.resources.limits[nvidia.com/gpu]: got 1, at most 0 (server.allowed.max[nvidia.com/gpu] {CHART}",
        ),
        (
            server(resources={"requests": {"hugepages-2Mi": "1Gi"}}),
            {"max": {"hugepages-2Mi": "1Gi"}},
            f"spec.server.resources.requests[hugepages-2Mi]: got 1Gi, at most 0 (server.allowed.max[hugepages-2Mi] {CHART}",
        ),
        (
            scheduling(priorityClassName="system-cluster-critical"),
            {"priorityClassNames": ["system-cluster-critical"]},
            "spec.server.scheduling.priorityClassName: system-cluster-critical is not among none "
            f"(server.allowed.priorityClassNames {CHART}",
        ),
        (
            scheduling(tolerations=[{"operator": "Exists"}]),
            {"tolerations": [TOLERATION, {"operator": "Exists"}]},
            "spec.server.scheduling.tolerations: {operator: Exists} is not among none "
            f"(server.allowed.tolerations {CHART}",
        ),
        (
            scheduling(nodeSelector={"pool": "gpu-1"}),
            {"nodeLabels": {"pool": ["cpu-*", "gpu-*"]}},
            f"spec.server.scheduling.nodeSelector[pool]: gpu-1 is not among none (server.allowed.nodeLabels[pool] {CHART}",
        ),
        (
            server(exposure={"annotations": {"external-dns.io/hostname": "portal"}}),
            {"serviceAnnotations": ["a/*", "external-dns.io/*"]},
            "spec.server.exposure.annotations: external-dns.io/hostname is not among none "
            f"(server.allowed.serviceAnnotations {CHART}",
        ),
        (
            {"model": FIRST, "trainer": FOREIGN},
            {"initialModel": {"images": [{"repository": "other"}, *REPOSITORY]}},
            "spec.model.initial.object runs at the hub: image evil.example/miner:1 is not among "
            f"server.allowed.initialModel.images {REMEDY}",
        ),
    ],
)
def test_what_is_not_listed_is_refused_and_the_value_that_would_allow_it_is_named(
    asked: dict[str, Any], listed: dict[str, Any], message: str
) -> None:
    assert against(NOTHING, **asked) == [message]
    assert against(server_bounds(json.dumps(listed)), **asked) == []


@pytest.mark.parametrize(
    ("asked", "listed", "message"),
    [
        (
            server(resources={"limits": {"cpu": "8001m"}}),
            {"max": {"cpu": "8"}},
            f"spec.server.resources.limits[cpu]: got 8001m, at most 8 (server.allowed.max[cpu] {CHART}",
        ),
        (
            server(resources={"requests": {"memory": "9Gi"}}),
            {"max": {"memory": "8Gi"}},
            f"spec.server.resources.requests[memory]: got 9Gi, at most 8Gi (server.allowed.max[memory] {CHART}",
        ),
        (
            server(storage={"size": "2Ti"}),
            {"maxStorage": "1Ti"},
            f"spec.server.storage.size: got 2Ti, at most 1Ti (server.allowed.maxStorage {CHART}",
        ),
        (
            scheduling(priorityClassName="high"),
            {"priorityClassNames": ["low", "middle"]},
            "spec.server.scheduling.priorityClassName: high is not among low, middle "
            f"(server.allowed.priorityClassNames {CHART}",
        ),
        (
            scheduling(tolerations=[TOLERATION, {"key": "gpu", "operator": "Exists"}]),
            {"tolerations": [TOLERATION, {"key": "spot", "value": "v"}]},
            "spec.server.scheduling.tolerations: {key: gpu, operator: Exists} is not among {effect: NoSchedule, key: gpu, "
            f"operator: Exists}}, {{key: spot, operator: Equal, value: v}} (server.allowed.tolerations {CHART}",
        ),
        (
            scheduling(nodeSelector={"pool": "control-plane", "x": "1"}),
            {"nodeLabels": {"pool": ["gpu-*", "cpu-*"], "x": ["*"]}},
            "spec.server.scheduling.nodeSelector[pool]: control-plane is not among gpu-*, cpu-* "
            f"(server.allowed.nodeLabels[pool] {CHART}",
        ),
        (
            server(exposure={"annotations": {"getambassador.io/config": "", "external-dns.io/hostname": "portal"}}),
            {"serviceAnnotations": ["*", "external-dns.io/*"]},
            "spec.server.exposure.annotations: getambassador.io/config is not among *, external-dns.io/* "
            f"(server.allowed.serviceAnnotations {CHART}",
        ),
        (
            {"model": FIRST},
            {"initialModel": {"inlineCode": "Deny"}},
            "spec.model.initial.object runs at the hub: trainer.files is denied by server.allowed.initialModel.inlineCode "
            + REMEDY,
        ),
        (
            {"model": FIRST, "trainer": FOREIGN},
            {"initialModel": {"images": [{"repository": "evil.example/*", "digests": ["sha256:" + "0" * 64]}]}},
            "spec.model.initial.object runs at the hub: image evil.example/miner:1 is not among "
            f"server.allowed.initialModel.images {REMEDY}",
        ),
    ],
)
def test_more_than_is_listed_is_refused(asked: dict[str, Any], listed: dict[str, Any], message: str) -> None:
    assert against(server_bounds(json.dumps(listed)), **asked) == [message]


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        (server(resources={"limits": {"cpu": "8"}}), {"max": {"cpu": "8"}}),
        (server(resources={"requests": {"ephemeral-storage": "1Ti"}}), {"max": {"cpu": "8"}}),
        (server(resources={"limits": {"nvidia.com/gpu": "0"}}), {}),
        (server(storage={"size": "1Ti"}), {"maxStorage": "1Ti"}),
        (server(storage={"size": "99Ti"}), {}),
        ({"model": {"initial": {"path": "first.safetensors"}}, "trainer": FOREIGN}, {}),
        ({"model": FIRST, "trainer": {**FOREIGN, "image": IMAGE}}, {"initialModel": {"inlineCode": "Deny"}}),
    ],
)
def test_as_much_as_is_listed_is_allowed(asked: dict[str, Any], listed: dict[str, Any]) -> None:
    assert against(server_bounds(json.dumps(listed)), **asked) == []


def test_all_that_stands_against_a_job_is_told_at_once() -> None:
    asked = server(
        resources={"limits": {"nvidia.com/gpu": "1"}},
        scheduling={"priorityClassName": "high", "nodeSelector": {"pool": "gpu"}},
        exposure={"annotations": {"a/b": ""}},
    )
    told = against(NOTHING, model=FIRST, trainer={**FOREIGN, "files": {"train.py": ""}}, **asked)
    assert [message.partition(":")[0] for message in told] == [
        "spec.server.resources.limits[nvidia.com/gpu]",
        "spec.server.scheduling.priorityClassName",
        "spec.server.scheduling.nodeSelector[pool]",
        "spec.server.exposure.annotations",
        "spec.model.initial.object runs at the hub",
    ]


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


def test_the_runtime_image_by_its_name_makes_a_first_model(world: Any) -> None:
    image = world.settings.runtime_image
    key = world.submit(model=FIRST, trainer={"image": image, "files": {"train.py": ""}})
    world.settle()
    assert world.condition(key, "Accepted") == ("True", "Accepted")
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
