"""What the hub's administrator has against a job's server, and against the code that makes its first model.  PURE

No site has a say in what runs at the hub, so the hub has: a priority takes something from others, a toleration and a label lead to
nodes that are not for jobs, and an annotation of a Service is an order to whoever reads them. Each is refused unless it is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedjob.api import JobSpec
from fedjob.api.globs import fits_path

from ..bounds import ServerBounds
from ..quantity import number
from .listed import covers, image_fits, taint

_PLAIN = frozenset({"cpu", "memory", "ephemeral-storage"})  # what every container uses some of


def objections(spec: JobSpec, bounds: ServerBounds, runtime_image: str) -> Iterator[str]:
    """What stands against a job, each with its field and the value of the hub's chart that would allow it."""
    yield from _amounts(spec, bounds)
    yield from _placement(spec, bounds)
    for key in spec.server.exposure.annotations:
        if not any(fits_path(pattern, key) for pattern in bounds.service_annotations):
            yield _unlisted("exposure.annotations", key, bounds.service_annotations, "serviceAnnotations")
    yield from _first_model(spec, bounds, runtime_image)


def _amounts(spec: JobSpec, bounds: ServerBounds) -> Iterator[str]:
    asked = spec.server.resources
    for kind, amounts in (("limits", asked.limits), ("requests", asked.requests)):
        for name, amount in amounts.items():
            most = bounds.max.get(name, None if name in _PLAIN else "0")
            if most is not None and number(amount) > number(most):
                yield _too_much(f"resources.{kind}[{name}]", amount, most, f"max[{name}]")
    size, most = spec.server.storage.size, bounds.max_storage
    if most is not None and number(size) > number(most):
        yield _too_much("storage.size", size, most, "maxStorage")


def _placement(spec: JobSpec, bounds: ServerBounds) -> Iterator[str]:
    asked = spec.server.scheduling
    if asked.priority_class_name not in (None, *bounds.priority_class_names):
        listed = bounds.priority_class_names
        yield _unlisted("scheduling.priorityClassName", str(asked.priority_class_name), listed, "priorityClassNames")
    allowed = [entry.model_dump(exclude_none=True) for entry in bounds.tolerations]
    for toleration in asked.tolerations:
        given = toleration.model_dump(exclude_none=True)
        if not any(covers(entry, given) for entry in allowed):
            yield _unlisted("scheduling.tolerations", taint(given), [taint(entry) for entry in allowed], "tolerations")
    for label, value in asked.node_selector.items():
        patterns = bounds.node_labels.get(label, ())
        if not any(fits_path(pattern, value) for pattern in patterns):
            yield _unlisted(f"scheduling.nodeSelector[{label}]", value, patterns, f"nodeLabels[{label}]")


def _first_model(spec: JobSpec, bounds: ServerBounds, runtime_image: str) -> Iterator[str]:
    initial, trainer = spec.model.initial, spec.trainer
    if initial is None or initial.object is None:
        return
    field = "spec.model.initial.object runs at the hub"
    remedy = "or leave it out: then a site's script offers the first model"
    entries = [entry.model_dump() for entry in bounds.initial_model.images]
    if trainer.image not in (None, runtime_image) and not any(image_fits(entry, trainer.image) for entry in entries):
        yield f"{field}: image {trainer.image} is not among server.allowed.initialModel.images of the hub's chart; {remedy}"
    if trainer.files and bounds.initial_model.inline_code == "Deny":
        yield f"{field}: trainer.files is denied by server.allowed.initialModel.inlineCode of the hub's chart; {remedy}"


def _too_much(field: str, asked: str, most: str, value: str) -> str:
    return f"spec.server.{field}: got {asked}, at most {most} (server.allowed.{value} of the hub's chart)"


def _unlisted(field: str, asked: str, listed: Iterable[str], value: str) -> str:
    names = ", ".join(listed) or "none"
    return f"spec.server.{field}: {asked} is not among {names} (server.allowed.{value} of the hub's chart)"
