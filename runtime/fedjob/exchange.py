"""Between an FLModel and the parts that travel: which tensors go, as weights or differences, and what is said with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from . import narrow, values
from . import wire_pb2 as wire
from .acceptance import Header
from .codec import Inflow, Outflow, difference_between, flatten, forms, header_length, parse
from .config import SiteConfig
from .dtypes import Bytes
from .errors import CodecError, LocalProtocolError
from .incoming import Incoming
from .model import PARTS, FLModel, ParamsType
from .stored import Stored
from .transport import Gone
from .uplink import JobOver, Uplink

Forms = MutableMapping[str, Mapping[str, str]]
_BASE = "base-"
_NO_MODEL = "the script offers no model: call fedjob.init(model.state_dict()), or set spec.model.initial"

log = logging.getLogger("fedjob")


def download(uplink: Uplink, task: wire.Task, known: Forms, config: SiteConfig) -> dict[str, Any] | None:
    """The trees of a task, in the forms (torch, numpy) in which this script sends them; None if the task is over.

    Where differences are exchanged, the model that they will be taken from is kept in a file, not in memory.
    """
    trees, kept = {}, None
    try:
        for part in task.parts:
            inflow, kept = Inflow(known.get(part.name, {}), part.size), Incoming(config.work, part)
            if part.name == "params" and config.params_type == ParamsType.DIFF and task.key.kind == "Train":
                with _new_base(config, part.digest) as base:
                    uplink.fetch(part, partial(_take_both, inflow, base), kept)
            else:
                uplink.fetch(part, inflow.write_at, kept)
            kept.discard()
            trees[part.name] = inflow.tree()
    except (Gone, JobOver):
        if kept:
            kept.discard()
        uplink.done(task.key)
        return None
    return trees


def _take_both(inflow: Inflow, base: BinaryIO, offset: int, data: Bytes) -> None:
    inflow.write_at(offset, data)
    base.seek(offset)
    base.write(data)


def offer(
    task: wire.Task, model: Any, known: Forms, include: Sequence[str] = ()
) -> tuple[wire.Announce, list[Outflow]]:
    """The answer to a server that has no initial model: the included tensors, in their own dtypes.

    Only this site has seen the others, so a pattern that excludes none is refused here: what it was to hold back would travel.
    """
    if model is None:
        return wire.Announce(key=task.key, declined=_NO_MODEL), []
    chosen = _flattened("params", model, include)
    known["params"] = forms(chosen.layout)
    names = [*chosen.layout.by_name, *chosen.left]
    for pattern in (idle := narrow.idle(names, include)):
        log.error("%s fits none of the tensors %s", _include(include, pattern), ", ".join(names))
    if wrong := [pattern for pattern in idle if pattern.startswith("!")]:
        what = (
            f"{_include(include, wrong[0])} excludes no tensor; correct or remove it, the site's log lists the tensors"
        )
        return wire.Announce(key=task.key, declined=what), []
    return _announce(task, Header(whole=chosen.layout.data_size + chosen.left_bytes), {"params": chosen})


def _include(patterns: Sequence[str], pattern: str) -> str:
    return f"spec.model.exchange.include[{patterns.index(pattern)}] {pattern!r}"


def _flattened(part: str, tree: Any, include: Sequence[str] = ()) -> Outflow:
    """A part of a model, taken apart. Raises CodecError that names the part, the tensor and the ways out."""
    try:
        return flatten(tree, narrow.chooser(include))
    except CodecError as e:
        exclude = (
            "" if part != "params" else "; or exclude it with a pattern such as '!*mask' in spec.model.exchange.include"
        )
        raise CodecError(f"{part}: {e}{exclude}") from e


def announcement(
    task: wire.Task, model: FLModel, known: Forms, config: SiteConfig
) -> tuple[wire.Announce, list[Outflow]]:
    """The answer to a task. Raises TypeError, ValueError, CodecError for what cannot be sent."""
    if not isinstance(model, FLModel):
        raise TypeError(f"send(model): an FLModel is expected, got {type(model).__name__}")
    evaluating = task.key.kind == "Evaluate"
    if model.metrics is None and (evaluating or model.params is None):
        raise ValueError(
            "send(model): " + ("metrics are asked for" if evaluating else "neither params nor metrics are set")
        )
    parts: dict[str, Outflow] = {}
    if not evaluating:
        for name in PARTS:
            if (tree := getattr(model, name)) is not None:
                parts[name] = _flattened(name, tree, config.include if name == "params" else ())
                known[name] = forms(parts[name].layout)
    whole = parts["params"].layout.data_size + parts["params"].left_bytes if "params" in parts else 0
    kind, digest = ParamsType(model.params_type or ParamsType.FULL), _digest(task)
    if "params" in parts:
        base = _base(config, digest) if config.params_type == ParamsType.DIFF else None
        if base is not None and kind == ParamsType.FULL:
            parts["params"], kind = _difference(parts["params"], base, config), ParamsType.DIFF
        elif base is not None:
            parts["params"] = narrow.outgoing_difference(parts["params"], config.wire_dtype, base)
        else:
            parts["params"] = narrow.outgoing(parts["params"], config.wire_dtype)
    header = Header(
        num_examples=model.num_examples,
        metrics=values.scores(model.metrics),
        meta=values.notes(model.meta),
        params_type=ParamsType.FULL if evaluating else kind,
        base=digest,
        whole=whole,
    )
    return _announce(task, header, parts)


def _announce(task: wire.Task, header: Header, parts: Mapping[str, Outflow]) -> tuple[wire.Announce, list[Outflow]]:
    listed = [wire.Part(name=name, size=outflow.layout.size) for name, outflow in parts.items()]
    return wire.Announce(key=task.key, parts=listed, header=header.to_json()), list(parts.values())


def _digest(task: wire.Task) -> str:
    return next((part.digest for part in task.parts if part.name == "params"), "")


def _base_path(config: SiteConfig, digest: str) -> Path:
    return config.work / f"{_BASE}{digest[:32]}.safetensors"


@contextmanager
def _new_base(config: SiteConfig, digest: str) -> Iterator[BinaryIO]:
    """A file for the model received, named by its digest once it is whole; those of other models go."""
    config.work.mkdir(parents=True, exist_ok=True)
    for old in config.work.glob(f"{_BASE}*"):
        old.unlink()
    path = _base_path(config, digest)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        yield file
    temporary.rename(path)


def _base(config: SiteConfig, digest: str) -> Stored:
    """The model of the task as it was received, in a file. Raises LocalProtocolError if it was not."""
    path = _base_path(config, digest)
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            layout = parse(prefix + file.read(header_length(prefix) - 8))
    except FileNotFoundError:
        raise LocalProtocolError(
            "the model of this round was not received: call fedjob.receive() before fedjob.send() in each round, as what "
            "travels is the difference from it (spec.model.exchange.params: Diff)"
        ) from None
    return Stored(path, layout, digest, b"")


def _difference(new: Outflow, base: Stored, config: SiteConfig) -> Outflow:
    difference = narrow.outgoing(new, config.wire_dtype, base)
    if unlike := difference_between(base.layout, difference.layout):
        raise LocalProtocolError(f"params differ in names, shapes or dtypes from the model received: {unlike}")
    return difference
