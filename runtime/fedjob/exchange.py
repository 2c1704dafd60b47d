"""Between an FLModel and the parts that travel: which tensors go, as weights or differences, and what is said with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import wire_pb2 as wire
from .acceptance import Header
from .codec import FLOATS, ITEM_BYTES, Bytes, Inflow, Outflow, flatten, forms, header_length, numpy_dtype, parse
from .config import SiteConfig
from .errors import LocalProtocolError
from .incoming import Incoming
from .model import FLModel, ParamsType
from .transport import Gone
from .uplink import JobOver, Uplink

Forms = MutableMapping[str, Mapping[str, str]]
_BASE_FILE = "base.safetensors"


def download(uplink: Uplink, task: wire.Task, known: Forms, config: SiteConfig) -> dict[str, Any] | None:
    """The trees of a task, in the forms (torch, numpy) in which this script sends them; None if the task is over.

    Where differences are exchanged, the model that they will be taken from is kept in a file, not in memory.
    """
    trees, kept = {}, None
    try:
        for part in task.parts:
            inflow, kept = Inflow(known.get(part.name, {})), Incoming(config.work, part)
            if part.name == "params" and config.params_type == ParamsType.DIFF and task.key.kind == "Train":
                with _base_path(config).open("wb") as base:
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


def offer(task: wire.Task, model: Any, known: Forms) -> tuple[wire.Announce, list[Outflow]]:
    """The answer to a server that has no initial model."""
    if model is None:
        return wire.Announce(key=task.key, declined="the script offers no model in fedjob.init()"), []
    outflow = flatten(model)
    known["params"] = forms(outflow.layout)
    return _announce(task, Header(), {"params": outflow})


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
        for name in ("params", "optimizer_params"):
            if (tree := getattr(model, name)) is not None:
                parts[name] = flatten(tree)
                known[name] = forms(parts[name].layout)
    kind = ParamsType(model.params_type or ParamsType.FULL)
    if "params" in parts and config.params_type == ParamsType.DIFF and kind == ParamsType.FULL:
        parts["params"], kind = _difference(parts["params"], _base_path(config)), ParamsType.DIFF
    header = Header(
        num_examples=model.num_examples,
        metrics={str(k): float(v) for k, v in (model.metrics or {}).items()},
        meta=dict(model.meta or {}),
        params_type=ParamsType.FULL if evaluating else kind,
        base=next((p.digest for p in task.parts if p.name == "params"), ""),
    )
    return _announce(task, header, parts)


def _announce(task: wire.Task, header: Header, parts: Mapping[str, Outflow]) -> tuple[wire.Announce, list[Outflow]]:
    listed = [wire.Part(name=name, size=outflow.layout.size) for name, outflow in parts.items()]
    return wire.Announce(key=task.key, parts=listed, header=header.to_json()), list(parts.values())


def _base_path(config: SiteConfig) -> Path:
    config.work.mkdir(parents=True, exist_ok=True)
    return config.work / _BASE_FILE


def _difference(new: Outflow, base: Path) -> Outflow:
    """new - base, computed as it is read, a chunk at a time. Integers travel as they are: half a count means nothing."""
    file = base.open("rb")
    prefix = file.read(8)
    layout = parse(prefix + file.read(header_length(prefix) - 8))
    if {s.name: (s.dtype, s.shape) for s in layout.specs} != {s.name: (s.dtype, s.shape) for s in new.layout.specs}:
        raise LocalProtocolError(
            "params differ in names, shapes or dtypes from the model received; a DIFF needs the same"
        )

    def source(spec: Any, read: Any) -> Any:
        at = layout.data_start + layout.by_name[spec.name].start

        def minus(start: int, stop: int) -> Bytes:
            item = ITEM_BYTES[spec.dtype]
            a, b = start // item * item, -(-stop // item) * item  # whole elements around what is wanted
            return _minus(read(a, b), _read_at(file, at + a, b - a), spec.dtype)[start - a : stop - a]

        return minus if spec.dtype in FLOATS else read

    return Outflow(new.layout, tuple((spec, source(spec, read)) for spec, read in new.sources))


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    # Positional: after a cut, gRPC's thread of the old stream may still be reading here.
    data = b""
    while len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset + len(data))):
        data += more
    return data


def _minus(new: Bytes, base: bytes, dtype: str) -> Bytes:
    kind = numpy_dtype(dtype)
    wide = np.float64 if kind.itemsize > 2 else np.float32
    difference = np.frombuffer(new, kind).astype(wide) - np.frombuffer(base, kind).astype(wide)
    return bytes(difference.astype(kind).tobytes())
