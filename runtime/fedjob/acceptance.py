"""Which answers count.  PURE: each check returns a refusal's name and a sentence, or nothing.

A refusal is final for its round: the site is left out of it, and the job goes on if the quorum is still possible.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .api import limits
from .codec import Layout, difference_between
from .model import PARTS, ParamsType, usable_weight
from .text import one_line
from .trees import Tree, as_sent, not_finite

SLACK_BYTES = 1 << 20  # by which another header may be longer
_PARTS = {"Offer": frozenset({"params"}), "Train": frozenset(PARTS)}


@dataclass(frozen=True)
class Refusal:
    """Why an answer does not count. reason: CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True)
class Header:
    """What an answer says beside its tensors.

    base: digest of the model that a DIFF was taken from. whole: bytes of all params that the script gave, in their own
    dtypes: what would have travelled if nothing were chosen; 0 if it is not said. It decides nothing.
    left_out: metrics that came beside those that are kept.
    """

    num_examples: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    params_type: str = ParamsType.FULL
    base: str = ""
    whole: int = 0
    left_out: int = 0

    def to_json(self) -> str:
        """As it travels; NaN and infinity in JSON's usual extension."""
        return json.dumps(self.__dict__)


def read_header(text: str) -> Header | Refusal:
    """The header of an announcement, or why it is none."""
    try:
        if (size := len(text.encode())) > limits.ANSWER_TEXT.value:
            return Refusal("Malformed", f"metrics and meta of {size} bytes, allowed: {limits.ANSWER_TEXT.value}")
        data = json.loads(text)
        if _depth(data) > limits.ANSWER_DEPTH.value:
            return Refusal("Malformed", f"metrics and meta are nested more than {limits.ANSWER_DEPTH.value} deep")
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair could be neither shown nor sent on
        metrics = _kept({k: _number(k, v) for k, v in data["metrics"].items()})
        header = Header(
            num_examples=_number("num_examples", data["num_examples"]),
            metrics=metrics,
            meta=dict(data["meta"]),
            params_type=str(data["params_type"]),
            base=str(data["base"]),
            whole=min(max(int(data.get("whole", 0)), 0), 1 << 62),
            left_out=len(data["metrics"]) - len(metrics),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        return Refusal("Malformed", f"the header of the answer cannot be read: {e!r}")
    return header


def _kept(metrics: Mapping[str, float]) -> dict[str, float]:
    """The first metrics, in the order in which they were sent, under names that are shown. Of names that are shown alike, the first."""
    kept: dict[str, float] = {}
    for name, value in metrics.items():
        if len(kept) == limits.ANSWER_METRICS.value:
            break
        kept.setdefault(one_line(name, limits.NAME.value), value)
    return kept


def _number(name: str, value: Any) -> float:
    """A number of a header. Raises TypeError for text that reads like one, true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is no number")
    return float(value)


def notice(header: Header) -> str:
    """What a site is told of an answer that counts: "", or how much of it does not."""
    if not header.left_out:
        return ""
    most, bytes_ = limits.ANSWER_METRICS.value, limits.NAME.value
    return (
        f"{header.left_out} of {header.left_out + len(header.metrics)} metrics are left out: allowed are {most}, "
        f"whose names differ in their first {bytes_} bytes"
    )


def check_header(header: Header, expected_type: str, base: str, max_examples: int) -> Refusal | None:
    """Checks that need no tensors, made before they travel.

    expected_type: the job's FULL or DIFF. base: digest of the model that was sent out. max_examples: that may be stated.
    """
    if not usable_weight(header.num_examples):
        return Refusal("BadWeight", f"num_examples is {header.num_examples}, allowed: a finite number above 0")
    if header.num_examples > max_examples:
        allowed = f"allowed: at most {max_examples} (spec.workflow.maxExamples)"
        return Refusal("BadWeight", f"num_examples is {header.num_examples}, {allowed}")
    if header.params_type != expected_type:
        return Refusal(
            "WrongParamsType",
            f"the update is {header.params_type}, the job exchanges {expected_type} (spec.model.exchange.params)",
        )
    if header.params_type == ParamsType.DIFF and header.base != base:
        return Refusal("StaleBase", f"the difference was taken from model {header.base[:12]}, not from {base[:12]}")
    return None


def largest_parts(kind: str, sent: Mapping[str, Layout]) -> dict[str, int]:
    """How long each part of an answer may be, in bytes: that of an Offer, which nothing was sent for, by `maxBytes` alone.

    kind: of the task; sent: the layouts of its parts. An optimizer's state that was not sent is bounded by the model's numbers.
    """
    found = {name: layout.size + SLACK_BYTES for name, layout in sent.items()}
    if kind == "Train" and "optimizer_params" not in sent and "params" in sent:
        model = sent["params"]
        numbers = sum(spec.count for spec in model.specs)
        found["optimizer_params"] = limits.OPTIMIZER_BYTES.value * numbers + 4 * model.data_start + SLACK_BYTES
    return found


def check_announced(
    kind: str, upload: str, parts: Sequence[tuple[str, int]], largest: Mapping[str, int], most: int
) -> Refusal | None:
    """What an announcement promises: known parts, each once, no larger than what was sent lets expect, nor than is allowed at all.

    parts: (name, bytes) as announced. largest: as `largest_parts`. most: bytes of all parts together.
    """
    names = [name for name, _ in parts]
    allowed = _PARTS.get(kind, frozenset())
    if not re.fullmatch(r"[0-9a-f]{32}", upload) or len(set(names)) != len(names) or not allowed.issuperset(names):
        return Refusal("Malformed", f"{len(names)} parts announced; allowed for {kind}: {sorted(allowed)}, each once")
    for name, size in parts:
        if name in largest and size > largest[name]:
            return Refusal(
                "TooLarge", f"{name}: {size} bytes announced, allowed after what was sent out: {largest[name]}"
            )
    if (total := sum(size for _, size in parts)) > most:
        return Refusal("TooLarge", f"{total} bytes announced, allowed: {most} (spec.model.exchange.maxBytes)")
    return None


def check_parts(
    kind: str,
    sent: Mapping[str, Tree],
    got: Mapping[str, Tree],
    looked_at: Mapping[str, Sequence[str]] = MappingProxyType({}),
    params_type: str = ParamsType.FULL,
) -> Refusal | None:
    """Checks of an answer's tensors: those that were asked for, like those that were sent, and finite where these are.

    A constant such as a mask of -inf is in what a script offers, and in every answer as it was sent; a difference has none.
    looked_at: parts whose numbers were looked at as they came -> tensors that hold NaN or infinity. The others are read here.
    """
    if kind in ("Train", "Offer") and "params" not in got:
        return Refusal("NoParams", "the answer has no params; send FLModel(params=…), or skip(reason)")
    for name, tree in sent.items():
        if name in got and (difference := difference_between(tree.layout, got[name].layout)):
            return Refusal("WrongShape", f"{name}: {difference}; send what was received, trained")
    for name, tree in got.items() if kind != "Offer" else ():
        for odd in looked_at[name] if name in looked_at else not_finite(tree):
            stepped = name == "params" and params_type == ParamsType.DIFF
            if stepped or name not in sent or not as_sent(tree, sent[name], odd):
                return Refusal(
                    "NotFinite", f"{name}: {odd!r} holds NaN or infinity that was not sent out; {_odd(name, odd)}"
                )
    return None


def _odd(part: str, tensor: str) -> str:
    """The two reasons why a tensor is not finite, and what helps."""
    out = (
        f"exclude it with '!{tensor}' in spec.model.exchange.include" if part == "params" else f"leave it out of {part}"
    )
    return f"training has diverged, or it is a constant that differs between sites: then {out}"


def _depth(data: Any) -> int:
    """Levels of nesting; the parser has refused what is deeper than the interpreter's stack."""
    level, depth = [data], 0
    while level:
        depth += 1
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return depth


def mean_metrics(weighted: list[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """Weighted mean of each metric over those that sent a finite value of it, those that most sent first.

    Where only so many names are shown, the many names of one site then displace none that others share.
    """
    totals: dict[str, tuple[float, float]] = {}
    for weight, metrics in weighted:
        for name, value in metrics.items():
            if math.isfinite(value):
                total, weights = totals.get(name, (0.0, 0.0))
                totals[name] = (total + weight * value, weights + weight)
    senders = Counter(name for _, metrics in weighted for name in metrics)
    ranked = sorted(totals.items(), key=lambda each: -senders[each[0]])
    return {name: total / weights for name, (total, weights) in ranked}
