"""FLModel: what a training script receives and sends."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import values


class ParamsType(enum.StrEnum):
    """What `FLModel.params` holds."""

    FULL = "FULL"  # the weights themselves
    DIFF = "DIFF"  # new weights minus received weights


PARTS = ("params", "optimizer_params")  # fields of an FLModel that hold tensors, by whose names they travel


class MetaKey:
    """Keys of `FLModel.meta` that mean something to the server."""

    NUM_EXAMPLES = "num_examples"
    NUM_STEPS_CURRENT_ROUND = "NUM_STEPS_CURRENT_ROUND"  # spelling of scripts written for NVFLARE


@dataclass
class FLModel:
    """A model on its way between the server and a training script.

    params: name -> tensor (torch, numpy, Python number; nested dicts and lists allowed), or None.
    optimizer_params: an optimizer's `state_dict()` or any such tree; averaged like params.
    metrics: name -> number; an array or tensor of one element is one. Sent with params, they score the *received* model.
    start_round, current_round: counted from 0. total_rounds: how many the job wants.
    meta: `num_examples` is the update's weight in the mean; text, numbers, lists and dicts may be added.
    Raises ValueError for a type without params or a negative round.
    """

    params_type: ParamsType | str | None = None
    params: Any = None
    optimizer_params: Any = None
    metrics: Mapping[str, float] | None = None
    start_round: int | None = 0
    current_round: int | None = None
    total_rounds: int | None = None
    meta: dict[str, Any] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.meta is None:
            self.meta = {}
        if self.params_type is not None:
            if self.params is None:
                raise ValueError(f"params_type is {self.params_type} but there are no params; leave it out")
            self.params_type = ParamsType(self.params_type)
        elif self.params is not None:
            self.params_type = ParamsType.FULL
        for name in ("start_round", "current_round", "total_rounds"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ValueError(f"{name} must be a whole number from 0, got {value!r}")

    @property
    def num_examples(self) -> float:
        """Weight of this update in the mean: `meta["num_examples"]`, or the steps of the round, or 1.

        Raises TypeError for what is no number.
        """
        return values.examples(self.meta or {}, (MetaKey.NUM_EXAMPLES, MetaKey.NUM_STEPS_CURRENT_ROUND))


def usable_weight(value: float) -> bool:
    """Whether `value` can be an aggregation weight: finite and above zero."""
    return math.isfinite(value) and value > 0


class AnalyticsDataType(enum.StrEnum):
    """Accepted by `log` for scripts that pass it; only scalars are kept."""

    SCALAR = "SCALAR"
    METRIC = "METRIC"


def holds_tensors(tree: object) -> bool:
    """Whether there is any value in nested mappings, lists and tuples; without one there is nothing to train."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, Mapping):
            left.extend(node.values())
        elif isinstance(node, list | tuple):
            left.extend(node)
        else:
            return True
    return False
