"""The fields that only a cluster uses, so that a local run can say what it leaves aside."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedjob.api.job import FederatedJob

CLUSTER_ONLY: Mapping[str, str] = MappingProxyType(
    {
        "metadata.namespace": "one machine has no namespaces",
        "metadata.labels": "nothing selects jobs by label on one machine",
        "metadata.annotations": "no tool reads annotations on one machine",
        "spec.trainer.image": "scripts run in this machine's environment, not in a container",
        "spec.trainer.resources": "processes of one machine share it without limits",
        "spec.sites[].resources": "processes of one machine share it without limits",
        "spec.server.resources": "processes of one machine share it without limits",
        "spec.server.scheduling": "one machine is one node",
        "spec.server.storage": "the run folder lies on this machine's disk",
        "spec.server.exposure": "every process runs on this machine",
        "spec.trainer.nodes": "one machine is one node",
        "spec.trainer.sharedMemory": "processes of one machine share its /dev/shm",
        "spec.failurePolicy.rules[].onReasons": "one machine knows neither evictions nor limits of memory: the rule never fits",
        "spec.suspend": "a run on one machine is stopped with Ctrl-C and goes on with --resume",
        "spec.ttlSecondsAfterFinished": "run folders stay until they are deleted by hand",
        "spec.cleanPodPolicy": "one machine has no pods",
        "spec.scheduling": "one machine has no queue and no taints",
    }
)


def cluster_only(job: FederatedJob) -> list[str]:
    """Paths of the fields that the job sets, to other than their defaults, and that have no effect on one machine.

    A path names a list's entry by its position, `spec.sites[1].resources`; `reason` tells why it has no effect.
    """
    return [path for name in CLUSTER_ONLY for path in _set_in(job, name.split("."), "")]


def reason(path: str) -> str:
    """Why the field at a path that `cluster_only` gave has no effect on one machine."""
    head, bracket, tail = path.partition("[")
    return CLUSTER_ONLY[f"{head}[]{tail.partition(']')[2]}" if bracket else path]


def _set_in(part: BaseModel, names: list[str], path: str) -> Iterator[str]:
    first, *rest = names
    name, field = _field(part, first.removesuffix("[]"))
    value = getattr(part, name)
    here = f"{path}.{first.removesuffix('[]')}".removeprefix(".")
    if not rest:
        if value != field.get_default(call_default_factory=True, validated_data={}):
            yield here
    elif first.endswith("[]"):
        for position, entry in enumerate(value):
            yield from _set_in(entry, rest, f"{here}[{position}]")
    else:
        yield from _set_in(value, rest, here)


def _field(part: BaseModel, alias: str) -> tuple[str, FieldInfo]:
    return next((name, field) for name, field in type(part).model_fields.items() if field.alias == alias)
