"""What a script says beside its tensors: one number is one number, everything else is refused by its name."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fedjob
from fedjob import values
from fedjob.model import FLModel
from fedjob.wire_pb2 import Announce, Farewell, Value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0.5), (3, 3.0), (True, 1.0), (Decimal("0.5"), 0.5), (Fraction(1, 4), 0.25), (np.float32(0.5), 0.5),
        (np.int64(3), 3.0), (np.bool_(False), 0.0), (np.array(0.5), 0.5), (np.array([[0.5]]), 0.5),
        (torch.tensor(0.5), 0.5), (torch.tensor([2]), 2.0), (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5), (math.inf, math.inf), (-0.0, -0.0),
    ],
    ids=repr,
)  # fmt: skip
def test_one_number_of_any_library_is_a_number(value: Any, expected: float) -> None:
    got = values.number(value, "x")
    assert type(got) is float
    assert (got, math.copysign(1, got)) == (expected, math.copysign(1, expected))


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(values.number(np.float32("nan"), "x"))


NO_NUMBERS: list[tuple[Any, str]] = [
    (None, "is None, allowed: one number; leave out what was not measured"),
    ("0.5", "is a str, allowed: one number"),
    (b"1", "is a bytes, allowed"),
    ([0.5], "is a list, allowed: one number; send its mean, or each item under a name of its own"),
    ({"a": 1.0}, "is a dict, allowed: one number; give each of its items a name of its own"),
    (np.array([0.1, 0.9]), r"is an ndarray of shape \[2\], allowed: one number; send its mean"),
    (np.array("0.5"), "is an ndarray, allowed"),
    (torch.zeros(2, 3), r"is a Tensor of shape \[2, 3\], allowed: one number; send its mean"),
    (torch.zeros((), device="meta"), "is a Tensor, allowed: one number"),
    (torch.zeros(0), r"is a Tensor of shape \[0\], allowed"),
    (1j, "is a complex, allowed: one number"),
    (np.datetime64("2026-01-01"), "is a datetime64, allowed"),
    (object(), "is an object, allowed: one number"),
    (float, "is a type, allowed: one number"),
]


@pytest.mark.parametrize(("value", "message"), NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_what_is_no_number_is_refused_by_its_name(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=r"^metrics\['recall'\] " + message):
        values.scores({"accuracy": 0.5, "recall": value})


def test_a_number_beyond_floats_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"^metrics\['n'\] is an int beyond the largest float"):
        values.scores({"n": 10**400})


@pytest.mark.parametrize(
    ("metrics", "message"),
    [([0.5], "metrics is a list, allowed: a dict"), ({3: 0.5}, "metrics: the name is an int, allowed: text")],
    ids=["a list", "a number as name"],
)
def test_metrics_are_names_and_numbers(metrics: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        values.scores(metrics)


# ----------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, 1.0), ({"num_examples": None}, 1.0), ({"num_examples": np.int64(7)}, 7.0), ({"num_examples": 2.5}, 2.5),
        ({"num_examples": torch.tensor(7)}, 7.0), ({"NUM_STEPS_CURRENT_ROUND": 3}, 3.0), ({"num_examples": 0}, 0.0),
        ({"num_examples": None, "NUM_STEPS_CURRENT_ROUND": 3}, 3.0),
        ({"num_examples": 4, "NUM_STEPS_CURRENT_ROUND": 3}, 4.0), ({"num_examples": -1}, -1.0),
    ],
    ids=repr,
)  # fmt: skip
def test_the_weight_is_what_the_script_states(meta: dict[str, Any], expected: float) -> None:
    """Whether it can be a weight is the server's word, which the receipt brings: the round goes on either way."""
    assert FLModel(meta=meta).num_examples == expected


@pytest.mark.parametrize("value", [True, "12", [12], {"train": 12}], ids=repr)
def test_a_weight_that_is_no_number_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^meta\['num_examples'\] is "):
        _ = FLModel(meta={"num_examples": value}).num_examples


# -------------------------------------------------------------------------------------------------------------- notes

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3))
def test_meta_arrives_as_it_was_given(meta: dict[str, Any]) -> None:
    assert json.loads(json.dumps(values.notes(meta))) == meta


def test_numbers_of_other_libraries_arrive_as_numbers_and_tuples_as_lists() -> None:
    meta = {"a": np.float32(0.5), "b": torch.tensor(3), "c": (1, np.bool_(True)), "d": np.array(2)}
    assert values.notes(meta) == {"a": 0.5, "b": 3, "c": [1, True], "d": 2}


class Task(enum.StrEnum):
    """A text of a class of its own."""

    TRAIN = "train"


def test_text_of_a_class_of_its_own_arrives_as_text() -> None:
    assert json.dumps(values.notes({"task": Task.TRAIN})) == '{"task": "train"}'


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"c": {"delta": [1, torch.ones(2)]}}, r"^meta\['c'\]\['delta'\]\[1\] is a Tensor of shape \[2\].*in params"),
        ({"c": np.ones((2, 2))}, r"^meta\['c'\] is an ndarray of shape \[2, 2\].*value.tolist\(\)"),
        ({"c": {1, 2}}, r"^meta\['c'\] is a set, which meta cannot hold"),
        ({"c": b"x"}, r"^meta\['c'\] is a bytes"),
        ({"c": 1j}, r"^meta\['c'\] is a complex"),
        ({"c": object()}, r"^meta\['c'\] is an object"),
        ({"c": {1: 2}}, r"^meta\['c'\]: the key 1 is an int, allowed: text"),
    ],
    ids=["a tensor", "an array", "a set", "bytes", "a complex number", "an object", "a number as key"],
)
def test_what_json_cannot_hold_is_refused_by_its_place(meta: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        values.notes(meta)


def test_meta_that_holds_itself_is_refused() -> None:
    meta: dict[str, Any] = {}
    meta["self"] = [meta]
    with pytest.raises(ValueError, match=r"^meta\['self'\]\[0\] holds itself"):
        values.notes(meta)


# --------------------------------------------------------------------------------------------------------------- text

SURROGATES: list[Callable[[str], Any]] = [
    lambda text: Farewell(reason="ScriptFailed", message=values.legible(text)),
    lambda text: Announce(declined=values.legible(text)),
    lambda text: Value(key=values.name(text, "x")),
    lambda text: Announce(header=json.dumps({"meta": values.notes({text: text}), "m": values.scores({text: 1})})),
]


@given(st.text(st.characters(categories=["Cs", "L", "N"]), min_size=1, max_size=5))
def test_half_a_surrogate_pair_never_stops_a_message(text: str) -> None:
    for message in SURROGATES:
        assert message(text).SerializeToString()


def test_half_a_surrogate_pair_stays_legible() -> None:
    assert values.legible("caf\udce9.png") == "caf\\udce9.png"


# -------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(("step", "expected"), [(None, None), (0, 0), (np.int32(7), 7), (torch.tensor(3), 3)], ids=repr)
def test_a_step_is_a_whole_number(step: Any, expected: int | None) -> None:
    assert values.step(step, "x") == expected


@pytest.mark.parametrize(
    ("step", "kind"), [(1.5, TypeError), ("1", TypeError), (-1, ValueError), (1 << 63, ValueError)]
)
def test_what_is_no_step_is_refused_by_its_name(step: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^fedjob.log\('loss'\): step is "):
        values.step(step, "fedjob.log('loss'): step")


# ---------------------------------------------------------------------------------------------------------------- log


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fedjob.log({"loss": 1.0}),
            r"^fedjob.log\(\{'loss': 1.0\}\): the name is a dict; log each item: for name",
        ),
        (lambda: fedjob.log(3, 1.0), r"^fedjob.log\(3\): the name is an int, allowed: text"),
        (lambda: fedjob.log("loss", [1.0]), r"^fedjob.log\('loss'\): value is a list, allowed: one number"),
        (lambda: fedjob.log("loss", None), r"^fedjob.log\('loss'\): value is None"),
        (lambda: fedjob.log("loss", 1.0, step=0.5), r"^fedjob.log\('loss'\): step is a float"),
        (
            lambda: fedjob.log("loss", 1.0, writer=print),
            r"^fedjob.log\(\) has no option writer; allowed: data_type, global_",
        ),
    ],
    ids=["a dict", "a number as name", "a list", "none", "half a step", "a writer"],
)
def test_what_cannot_be_logged_is_refused_by_its_name(call: Callable[[], None], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("blank", ["", " \t"])
def test_a_number_without_a_name_is_refused(blank: str) -> None:
    with pytest.raises(ValueError, match=r"^fedjob\.log\('.*'\): the name '.*' is blank"):
        fedjob.log(blank, 1.0)
    with pytest.raises(ValueError, match=r"^metrics: the name '.*' is blank"):
        values.scores({blank: 1.0})
