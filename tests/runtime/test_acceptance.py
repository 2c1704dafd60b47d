"""Which answers count: each refusal by its name and its sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.acceptance import (
    SLACK_BYTES,
    Header,
    Refusal,
    check_announced,
    check_header,
    check_parts,
    largest_parts,
    mean_metrics,
    notice,
    read_header,
)
from fedjob.api import limits
from fedjob.model import ParamsType
from fedjob.text import one_line
from fedjob.trees import Computed, in_memory
from fedjob.wire_pb2 import Verdict

BASE = "ab" * 32
MODEL = {"layer": {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}, "steps": np.array(5)}


def params(**changes: Any) -> dict[str, Any]:
    """The model as a site sends it back, with changes; None removes an entry."""
    layer: dict[str, Any] = {**MODEL["layer"], **changes}  # type: ignore[dict-item]
    return {"layer": {k: v for k, v in layer.items() if v is not None}, "steps": np.array(6)}


def refused(kind: str = "Train", **parts: Any) -> Refusal | None:
    return check_parts(kind, {"params": in_memory(MODEL)}, {name: in_memory(tree) for name, tree in parts.items()})


# --------------------------------------------------------------------------------------------------- without tensors


@pytest.mark.parametrize(
    ("header", "expected_type", "reason", "message"),
    [
        pytest.param(Header(num_examples=0.0), "FULL", "BadWeight", "num_examples is 0.0, allowed: a finite number above 0",
                     id="no examples"),
        pytest.param(Header(num_examples=-3.0), "FULL", "BadWeight", "num_examples is -3.0", id="fewer than none"),
        pytest.param(Header(num_examples=math.nan), "FULL", "BadWeight", "num_examples is nan", id="not a number of them"),
        pytest.param(Header(num_examples=math.inf), "FULL", "BadWeight", "num_examples is inf", id="infinitely many"),
        pytest.param(Header(num_examples=1000.5), "FULL", "BadWeight",
                     "num_examples is 1000.5, allowed: at most 1000 (spec.workflow.maxExamples)", id="too many"),
        pytest.param(Header(num_examples=1e300), "FULL", "BadWeight", "num_examples is 1e+300", id="far too many"),
        pytest.param(Header(), "DIFF", "WrongParamsType",
                     "the update is FULL, the job exchanges DIFF (spec.model.exchange.params)", id="weights for differences"),
        pytest.param(Header(params_type="DIFF", base=BASE), "FULL", "WrongParamsType",
                     "the update is DIFF, the job exchanges FULL", id="differences for weights"),
        pytest.param(Header(params_type="SPARSE"), "FULL", "WrongParamsType", "the update is SPARSE", id="an unknown type"),
        pytest.param(Header(params_type="DIFF", base="cd" * 32), "DIFF", "StaleBase",
                     "the difference was taken from model cdcdcdcdcdcd, not from abababababab", id="an older round's model"),
        pytest.param(Header(params_type="DIFF"), "DIFF", "StaleBase", "from model , not from abab", id="no model named"),
    ],
)  # fmt: skip
def test_a_header_is_refused_before_its_tensors_travel(
    header: Header, expected_type: str, reason: str, message: str
) -> None:
    refusal = check_header(header, expected_type, BASE, 1000)
    assert refusal is not None
    assert refusal.reason == reason
    assert message in refusal.message


@pytest.mark.parametrize(
    ("header", "expected_type"),
    [
        pytest.param(Header(), "FULL", id="weights, one example"),
        pytest.param(Header(num_examples=1e-9), "FULL", id="a small weight"),
        pytest.param(Header(num_examples=1000.0), "FULL", id="as many examples as are allowed"),
        pytest.param(Header(base="other"), "FULL", id="weights do not depend on what was sent"),
        pytest.param(Header(params_type="DIFF", base=BASE), "DIFF", id="differences from the model that was sent"),
    ],
)
def test_a_good_header_is_accepted(header: Header, expected_type: str) -> None:
    assert check_header(header, expected_type, BASE, 1000) is None


@given(
    st.builds(
        Header,
        num_examples=st.floats(allow_nan=False),
        metrics=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False)),
        meta=st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=5))),
        params_type=st.sampled_from(list(ParamsType)),
        base=st.text("0123456789abcdef"),
    )
)
def test_a_header_comes_out_as_it_was_sent(header: Header) -> None:
    named: dict[str, float] = {}
    for name, value in header.metrics.items():
        named.setdefault(one_line(name), value)
    left = len(header.metrics) - len(named)
    assert read_header(header.to_json()) == replace(header, metrics=named, left_out=left)


NAMES = st.one_of(
    st.text(max_size=3), st.integers(0, 300).map("m{}".format), st.text(max_size=3).map(lambda t: "x" * 200 + t)
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=200))
def test_the_first_metrics_are_kept_whatever_their_names_and_the_others_counted(metrics: dict[str, float]) -> None:
    header = read_header(Header(metrics=metrics).to_json())
    assert isinstance(header, Header)
    assert len(header.metrics) <= limits.ANSWER_METRICS.value
    assert len(header.metrics) + header.left_out == len(metrics)
    assert all(len(name.encode()) <= limits.NAME.value for name in header.metrics)
    shown = {one_line(name, limits.NAME.value) for name in metrics}
    assert len(header.metrics) == min(len(shown), limits.ANSWER_METRICS.value)
    for name, value in header.metrics.items():
        assert value == next(v for k, v in metrics.items() if one_line(k, limits.NAME.value) == name)
    assert bool(notice(header)) == bool(header.left_out)


def test_what_is_left_out_is_said() -> None:
    header = read_header(Header(metrics={f"m{i}": float(i) for i in range(1000)}).to_json())
    assert isinstance(header, Header)
    assert list(header.metrics) == [f"m{i}" for i in range(64)]
    assert notice(header) == (
        "936 of 1000 metrics are left out: allowed are 64, whose names differ in their first 128 bytes"
    )


GOOD = json.loads(Header().to_json())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="half an object"),
        pytest.param("null", id="null"),
        pytest.param("[1]", id="a list"),
        pytest.param("[" * 100_000, id="brackets without end"),
        pytest.param("{}", id="an empty object"),
        pytest.param(json.dumps({**GOOD, "num_examples": "many"}), id="a word as number of examples"),
        pytest.param(json.dumps({**GOOD, "num_examples": None}), id="null as number of examples"),
        pytest.param(json.dumps({**GOOD, "num_examples": 10**400}), id="a number of examples beyond floats"),
        pytest.param(json.dumps({**GOOD, "metrics": [1]}), id="a list of metrics"),
        pytest.param(json.dumps({**GOOD, "metrics": {"accuracy": [1]}}), id="a list as a metric"),
        pytest.param(json.dumps({**GOOD, "metrics": {"accuracy": 10**400}}), id="a metric beyond floats"),
        pytest.param(json.dumps({**GOOD, "metrics": {"accuracy": "0.5"}}), id="text as a metric"),
        pytest.param(json.dumps({**GOOD, "metrics": {"accuracy": True}}), id="a truth value as a metric"),
        pytest.param(json.dumps({**GOOD, "num_examples": "5"}), id="text as number of examples"),
        pytest.param(
            json.dumps({**GOOD, "meta": {"x": "é" * 40_000}}, ensure_ascii=False), id="more bytes than characters"
        ),
        pytest.param(json.dumps({**GOOD, "meta": 3}), id="a number as meta"),
        pytest.param(json.dumps({**GOOD, "meta": "text"}), id="text as meta"),
        pytest.param(json.dumps({**GOOD, "params_type": "\ud800"}), id="half a surrogate pair"),
    ],
)
def test_a_header_that_cannot_be_read_is_malformed(text: str) -> None:
    refusal = read_header(text)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "Malformed"
    assert refusal.message.startswith(("the header of the answer cannot be read: ", "metrics and meta "))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"num_examples": "5"}, "TypeError('num_examples is no number')", id="text as number of examples"),
        pytest.param({"metrics": {"loss": True}}, "TypeError('loss is no number')", id="a truth value as a metric"),
        pytest.param({"whole": "all"}, "ValueError(\"invalid literal for int() with base 10: 'all'\")", id="a word as size"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_named(change: dict[str, Any], message: str) -> None:
    said = f"the header of the answer cannot be read: {message}"
    assert read_header(json.dumps({**GOOD, **change})) == Refusal("Malformed", said)


@pytest.mark.parametrize("outermost", [0, 1], ids=["a list", "a dict"])
def test_a_header_may_be_nested_so_deep_and_no_deeper(outermost: int) -> None:
    """The header itself and its meta are two of the levels."""
    meta: Any = []
    for level in range(29):
        meta = {"a": 1, "b": meta} if level % 2 == outermost else [meta, 1]
    assert isinstance(read_header(json.dumps({**GOOD, "meta": {"x": meta}})), Header)
    deeper = json.dumps({**GOOD, "meta": {"x": [meta]}})
    assert read_header(deeper) == Refusal("Malformed", "metrics and meta are nested more than 32 deep")


def test_a_header_may_have_so_many_bytes_and_no_more() -> None:
    text = Header().to_json()
    assert isinstance(read_header(text + " " * ((64 << 10) - len(text))), Header)
    refusal = Refusal("Malformed", "metrics and meta of 65537 bytes, allowed: 65536")
    assert read_header(text + " " * ((64 << 10) + 1 - len(text))) == refusal


@pytest.mark.parametrize(
    ("said", "whole"),
    [({}, 0), ({"whole": 0}, 0), ({"whole": 7}, 7), ({"whole": -7}, 0), ({"whole": 1 << 70}, 1 << 62)],
    ids=["not said", "nothing", "some bytes", "less than nothing", "more than there are"],
)
def test_the_size_of_all_that_a_script_gave_is_within_bounds(said: dict[str, int], whole: int) -> None:
    header = read_header(json.dumps({k: v for k, v in {**GOOD, "whole": None, **said}.items() if v is not None}))
    assert header == Header(whole=whole)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.fixed_dictionaries(dict.fromkeys(GOOD, st.one_of(JSON, st.just({}), st.floats()))))
def test_any_json_is_a_header_or_malformed_and_its_verdict_can_be_sent(data: dict[str, Any]) -> None:
    header = read_header(json.dumps(data))
    refusal = header if isinstance(header, Refusal) else check_header(header, "DIFF", BASE, 1000)
    if refusal is not None:
        assert refusal.reason in ("Malformed", "BadWeight", "WrongParamsType", "StaleBase")
        assert Verdict(reason=refusal.reason, message=refusal.message).SerializeToString()


@given(st.text(max_size=40))
def test_any_text_is_a_header_or_malformed(text: str) -> None:
    assert isinstance(read_header(text), Refusal)


# ------------------------------------------------------------------------------------------------------ with tensors

NAN = np.array([0, 1, np.nan], np.float32)


@pytest.mark.parametrize(
    ("parts", "reason", "message"),
    [
        pytest.param({}, "NoParams", "the answer has no params; send FLModel(params=…), or skip(reason)", id="nothing"),
        pytest.param({"optimizer_params": {"m": np.zeros(3)}}, "NoParams", "no params", id="an optimizer's state alone"),
        pytest.param({"params": params(b=None)}, "WrongShape",
                     "params: 2 of 3 tensors, 0 others; first missing: 'layer/b'; send what was received, trained",
                     id="a tensor is missing"),
        pytest.param({"params": params(head=np.zeros(1))}, "WrongShape",
                     "params: 3 of 3 tensors, 1 others; not expected: 'layer/head'", id="a tensor too many"),
        pytest.param({"params": params(b=np.zeros(4, np.float32))}, "WrongShape",
                     "params: 'layer/b' is F32 [4], expected F32 [3]", id="another shape"),
        pytest.param({"params": params(w=np.zeros((3, 2), np.float32))}, "WrongShape",
                     "params: 'layer/w' is F32 [3, 2], expected F32 [2, 3]", id="a transposed matrix"),
        pytest.param({"params": params(b=np.zeros(3))}, "WrongShape", "params: 'layer/b' is F64 [3], expected F32 [3]",
                     id="another dtype"),
        pytest.param({"params": params(b=NAN)}, "NotFinite",
                     "params: 'layer/b' holds NaN or infinity that was not sent out; training has diverged", id="a NaN"),
        pytest.param({"params": params(b=np.full(3, -np.inf, np.float32))},
                     "NotFinite", "params: 'layer/b'", id="an infinity"),
        pytest.param({"params": params(), "optimizer_params": {"m": NAN}}, "NotFinite",
                     "optimizer_params: 'm' holds NaN", id="a NaN in the optimizer's state"),
    ],
)  # fmt: skip
def test_tensors_are_refused_by_name(parts: Mapping[str, Any], reason: str, message: str) -> None:
    refusal = refused(**parts)
    assert refusal is not None
    assert refusal.reason == reason
    assert message in refusal.message


def test_what_was_sent_trained_is_accepted() -> None:
    assert refused(params=params(b=np.ones(3, np.float32))) is None
    assert refused(params=params(), optimizer_params={"m": np.ones(9)}) is None


def test_an_optimizers_state_must_keep_its_shape_once_the_server_has_one() -> None:
    sent = {"params": in_memory(MODEL), "optimizer_params": in_memory({"m": np.zeros(3)})}
    refusal = check_parts(
        "Train", sent, {"params": in_memory(params()), "optimizer_params": in_memory({"m": np.zeros(4)})}
    )
    assert refusal == Refusal(
        "WrongShape", "optimizer_params: 'm' is F64 [4], expected F64 [3]; send what was received, trained"
    )


def test_an_offered_model_may_have_any_shape_and_constants_that_are_not_finite() -> None:
    assert check_parts("Offer", {}, {"params": in_memory(params())}) is None
    assert check_parts("Offer", {}, {"params": in_memory({"w": NAN})}) is None
    assert check_parts("Offer", {}, {}) is not None


@pytest.mark.parametrize("looked_at", [{}, {"params": ["w", "m"]}], ids=["read here", "looked at as it came"])
def test_what_is_not_finite_must_be_what_was_sent_out(looked_at: Mapping[str, Sequence[str]]) -> None:
    sent = {"params": in_memory({"w": np.array([1, np.nan, -np.inf]), "m": np.array([np.inf])})}

    def check(*w: float) -> Refusal | None:
        got = {"params": in_memory({"w": np.array(w, float), "m": np.array([np.inf])})}
        return check_parts("Train", sent, got, looked_at)

    assert check(5, np.nan, -np.inf) is None
    assert check(1, 2, 3) is None
    for w in ((np.nan, np.nan, -np.inf), (1, -np.inf, -np.inf), (1, np.nan, np.inf), (1, np.nan, np.nan)):
        refusal = check(*w)
        assert refusal is not None
        assert refusal.message.startswith("params: 'w' holds NaN or infinity that was not sent out; ")


def test_what_was_looked_at_and_found_finite_is_not_read_again() -> None:
    def unread(*_: Any) -> Any:
        pytest.fail("it was read")

    layout = in_memory({"w": np.ones(3)}).layout
    tree = Computed(layout, unread)
    assert check_parts("Train", {"params": tree}, {"params": tree}, {"params": []}) is None


def test_a_part_that_was_not_sent_out_is_finite() -> None:
    refusal = check_parts("Train", {}, {"params": in_memory({}), "optimizer_params": in_memory({"m": NAN})})
    assert refusal is not None
    assert refusal.message.endswith("then leave it out of optimizer_params")


@pytest.mark.parametrize(
    ("part", "params_type", "accepted"),
    [
        pytest.param("params", "FULL", True, id="a constant of the model"),
        pytest.param("params", "DIFF", False, id="a difference from a constant is finite"),
        pytest.param("optimizer_params", "DIFF", True, id="an optimizer's state is no difference"),
    ],
)
def test_a_constant_comes_back_as_it_was_sent_but_not_in_a_difference(
    part: str, params_type: str, accepted: bool
) -> None:
    tree = in_memory({"w": np.array([1, np.inf])})
    sent = {"params": in_memory(MODEL), part: tree}
    refusal = check_parts("Train", sent, dict(sent), params_type=params_type)
    expected = Refusal(
        "NotFinite",
        "params: 'w' holds NaN or infinity that was not sent out; training has diverged, or it is a constant that differs "
        "between sites: then exclude it with '!w' in spec.model.exchange.include",
    )
    assert refusal == (None if accepted else expected)


def test_an_evaluation_needs_no_tensors() -> None:
    assert refused("Evaluate") is None


# ----------------------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("weighted", "expected"),
    [
        pytest.param([], {}, id="nobody"),
        pytest.param([(3, {"a": 1.0}), (1, {"a": 5.0})], {"a": 2.0}, id="weighted by examples"),
        pytest.param([(3, {"a": 1.0}), (1, {"b": 5.0})], {"a": 1.0, "b": 5.0}, id="each over those that sent it"),
        pytest.param([(3, {"a": 1.0}), (1, {"a": math.nan})], {"a": 1.0}, id="NaN is left out"),
        pytest.param([(1, {"a": math.inf})], {}, id="a metric that nobody sent well is not there"),
    ],
)
def test_the_mean_of_metrics(weighted: list[tuple[float, Mapping[str, float]]], expected: dict[str, float]) -> None:
    assert mean_metrics(weighted) == expected


def test_the_metrics_that_most_sites_sent_come_first() -> None:
    weighted = [
        (1.0, {"mine": 1.0, "loss": 2.0}),
        (1.0, {"loss": 4.0, "yours": 1.0}),
        (1.0, {"yours": 3.0, "loss": 3.0}),
    ]
    assert list(mean_metrics(weighted).items()) == [("loss", 3.0), ("yours", 2.0), ("mine", 1.0)]


SENT = in_memory({"w": np.zeros((10, 100), np.float16), "n": np.array(1)}).layout


def announced(kind: str, *parts: tuple[str, int], most: int = 1 << 40, upload: str = "0" * 32) -> str:
    """The refusal's name, "" for none."""
    refusal = check_announced(kind, upload, parts, largest_parts(kind, {"params": SENT}), most)
    return refusal.reason if refusal else ""


def test_a_part_may_be_as_long_as_what_was_sent_and_a_longer_header() -> None:
    most = SENT.size + SLACK_BYTES
    assert announced("Train", ("params", most)) == ""
    assert announced("Train", ("params", most + 1)) == "TooLarge"


def test_an_optimizers_state_that_was_not_sent_is_bounded_by_the_models_numbers() -> None:
    """Sixteen bytes for each of 1,001; the announced size is reserved on the server's disk."""
    most = 16 * 1001 + 4 * SENT.data_start + SLACK_BYTES
    assert announced("Train", ("params", SENT.size), ("optimizer_params", most)) == ""
    assert announced("Train", ("params", SENT.size), ("optimizer_params", most + 1)) == "TooLarge"


@pytest.mark.parametrize(
    ("kind", "sent", "expected"),
    [
        ("Train", [], {}),
        ("Train", ["params"], {"params": SENT.size + SLACK_BYTES, "optimizer_params": 16 * 1001 + 4 * SENT.data_start + SLACK_BYTES}),
        ("Evaluate", ["params"], {"params": SENT.size + SLACK_BYTES}),
        ("Train", ["optimizer_params"], {"optimizer_params": SENT.size + SLACK_BYTES}),
    ],
)  # fmt: skip
def test_only_a_training_may_answer_with_an_optimizers_state_that_was_not_sent(
    kind: str, sent: list[str], expected: dict[str, int]
) -> None:
    assert largest_parts(kind, dict.fromkeys(sent, SENT)) == expected


def test_an_optimizers_state_that_was_sent_is_bounded_by_that() -> None:
    state = in_memory({"m": np.zeros(5000)}).layout
    largest = largest_parts("Train", {"params": SENT, "optimizer_params": state})
    assert largest["optimizer_params"] == state.size + SLACK_BYTES


def test_all_parts_together_are_bounded_by_the_field() -> None:
    assert announced("Train", ("params", 60), ("optimizer_params", 40), most=100) == ""
    assert announced("Train", ("params", 60), ("optimizer_params", 41), most=100) == "TooLarge"


def test_what_is_announced_too_large_is_told_by_which_bound() -> None:
    upload = "0123456789abcdef" * 2
    assert check_announced("Train", upload, [("params", 100)], {"params": 100}, 100) is None
    assert check_announced("Train", upload, [("params", 101)], {"params": 100}, 200) == Refusal(
        "TooLarge", "params: 101 bytes announced, allowed after what was sent out: 100"
    )
    assert check_announced("Train", upload, [("params", 101)], {}, 100) == Refusal(
        "TooLarge", "101 bytes announced, allowed: 100 (spec.model.exchange.maxBytes)"
    )
    assert check_announced("Train", upload, [("x", 1), ("params", 1)], {}, 100) == Refusal(
        "Malformed", "2 parts announced; allowed for Train: ['optimizer_params', 'params'], each once"
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"parts": [("params", 1), ("params", 1)]},
        {"parts": [("other", 1)]},
        {"kind": "Evaluate", "parts": [("params", 1)]},
        {"kind": "Offer", "parts": [("optimizer_params", 1)]},
        {"upload": "0" * 31},
        {"upload": "0" * 31 + "/"},
        {"upload": "0" * 32 + "\n"},
    ],
)
def test_an_announcement_of_other_parts_or_a_name_that_is_none_is_malformed(bad: dict[str, Any]) -> None:
    refusal = check_announced(bad.get("kind", "Train"), bad.get("upload", "0" * 32), bad.get("parts", []), {}, 100)
    assert refusal is not None
    assert refusal.reason == "Malformed"
