"""FLModel: what a script may put into it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedjob.model import FLModel, ParamsType, usable_weight


def test_params_are_full_weights_unless_the_script_says_otherwise() -> None:
    assert FLModel(params={"w": 1}).params_type is ParamsType.FULL
    assert FLModel(params={"w": 1}, params_type="DIFF").params_type is ParamsType.DIFF
    assert FLModel(params={}).params_type is ParamsType.FULL
    assert FLModel(metrics={"a": 1.0}).params_type is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"params_type": "FULL"}, "params_type is FULL but there are no params", id="a type of nothing"),
        pytest.param({"params": {}, "params_type": "HALF"}, "'HALF' is not a valid ParamsType", id="an unknown type"),
        pytest.param(
            {"current_round": -1}, "current_round must be a whole number from 0, got -1", id="a negative round"
        ),
        pytest.param({"start_round": 1.5}, "start_round must be a whole number from 0, got 1.5", id="half a round"),
        pytest.param({"total_rounds": True}, "total_rounds must be a whole number from 0, got True", id="a bool"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FLModel(**fields)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        pytest.param(None, 1.0, id="one, if nothing is said"),
        pytest.param({}, 1.0, id="one, if nothing is said in meta"),
        pytest.param({"num_examples": 812}, 812.0, id="the examples"),
        pytest.param({"NUM_STEPS_CURRENT_ROUND": 20}, 20.0, id="the steps of a script written for NVFLARE"),
        pytest.param({"num_examples": 812, "NUM_STEPS_CURRENT_ROUND": 20}, 812.0, id="the examples, of both"),
        pytest.param({"num_examples": 0, "NUM_STEPS_CURRENT_ROUND": 20}, 0.0, id="zero is said, not left out"),
    ],
)
def test_the_weight_of_an_update(meta: dict[str, Any] | None, expected: float) -> None:
    assert FLModel(meta=meta).num_examples == expected


def test_two_models_do_not_share_their_meta() -> None:
    first, second = FLModel(), FLModel()
    assert first.meta is not None
    first.meta["a"] = 1
    assert second.meta == {}
    assert FLModel(meta=None).meta == {}


@pytest.mark.parametrize(
    ("weight", "usable"),
    [(1.0, True), (1e-300, True), (0.0, False), (-1.0, False), (math.nan, False), (math.inf, False)],
)
def test_a_weight_is_finite_and_above_zero(weight: float, usable: bool) -> None:
    assert usable_weight(weight) is usable
