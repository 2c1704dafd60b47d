"""What a script's model becomes on its way: which parts, as weights or differences, and what is said with them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import narrow
from fedjob import wire_pb2 as wire
from fedjob.acceptance import Header, read_header
from fedjob.codec import Inflow, Outflow
from fedjob.config import SiteConfig
from fedjob.errors import CodecError, LocalProtocolError
from fedjob.exchange import announcement, offer
from fedjob.model import FLModel, ParamsType
from fedjob.stored import write
from fedjob.trees import in_memory

BASE_DIGEST = "ab" * 32
FLOATS: list[Any] = [
    np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
]  # fmt: skip


def config(work: Path, params_type: str, **chosen: Any) -> SiteConfig:
    return SiteConfig(
        job="j", uid="u", attempt=1, trust_domain="t", site="a", sites=("a",), workflow={}, params_type=params_type,
        server="localhost:1", server_name="localhost", tls=work, work=work, server_lost_seconds=1.0, **chosen,
    )  # fmt: skip


def task(kind: str = "Train") -> wire.Task:
    return wire.Task(key=wire.Key(kind=kind, round=3), parts=[wire.Part(name="params", digest=BASE_DIGEST)])


def sent(
    model: FLModel, work: Path, params_type: str = "FULL", kind: str = "Train", **chosen: Any
) -> tuple[Header, list[Outflow]]:
    """The header and the parts that a model becomes. chosen: `include`, `wire_dtype`."""
    announce, parts = announcement(task(kind), model, {}, config(work, params_type, **chosen))
    header = read_header(announce.header)
    assert isinstance(header, Header)
    assert [p.size for p in announce.parts] == [p.layout.size for p in parts]
    return header, parts


def bytes_of(outflow: Outflow) -> bytes:
    return bytes(outflow.read(0, outflow.layout.size))


def tree_of(outflow: Outflow) -> Any:
    inflow = Inflow()
    inflow.write(bytes_of(outflow))
    return inflow.tree()


def received(work: Path, base: Any, limit: str = "Keep", digest: str = BASE_DIGEST) -> None:
    """Put the model of the round, as it is on the wire, where a site keeps what differences are taken from."""
    write(work / f"base-{digest[:32]}.safetensors", narrow.wire_form(in_memory(base), limit))


# ------------------------------------------------------------------------------------------------------- differences


def test_where_differences_are_exchanged_weights_become_differences(tmp_path: Path) -> None:
    """Of floats. A step count, a mask and a name travel as they are."""
    received(tmp_path, {"w": np.array([1.0, 2.0]), "n": np.array([5]), "mask": np.array([True]), "kind": "mlp"})
    new = {"w": np.array([1.5, 1.0]), "n": np.array([6]), "mask": np.array([True]), "kind": "mlp"}
    header, (params,) = sent(FLModel(params=new), tmp_path, "DIFF")
    tree = tree_of(params)
    assert tree["w"].tolist() == [0.5, -1.0]
    assert (tree["n"].tolist(), tree["mask"].tolist(), tree["kind"]) == ([6], [True], "mlp")
    assert (header.params_type, header.base) == (ParamsType.DIFF, BASE_DIGEST)


def test_torch_tensors_and_numbers_become_differences_too(tmp_path: Path) -> None:
    received(tmp_path, {"w": torch.ones(2, dtype=torch.bfloat16), "scale": 2.0})
    model = FLModel(params={"w": torch.full((2,), 3.0, dtype=torch.bfloat16), "scale": 2.5})
    _, (params,) = sent(model, tmp_path, "DIFF")
    tree = tree_of(params)
    assert torch.equal(tree["w"], torch.full((2,), 2.0, dtype=torch.bfloat16))
    assert tree["scale"] == 0.5


def test_tensors_are_matched_by_name_whatever_their_order(tmp_path: Path) -> None:
    received(tmp_path, {"a": np.zeros(2), "b": np.ones(3)})
    _, (params,) = sent(FLModel(params={"b": np.full(3, 4.0), "a": np.full(2, 5.0)}), tmp_path, "DIFF")
    assert {k: v.tolist() for k, v in tree_of(params).items()} == {"b": [3.0] * 3, "a": [5.0] * 2}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FLOATS), st.lists(st.tuples(st.floats(-400, 400), st.floats(-400, 400)), min_size=1, max_size=8))
def test_a_difference_is_the_exact_one_rounded_once(tmp_path_factory: Any, dtype: Any, pairs: Any) -> None:
    """No neighbour of what travels is nearer to the exact difference."""
    work = tmp_path_factory.mktemp("site")
    base, new = (np.array(column).astype(dtype) for column in zip(*pairs, strict=True))
    with np.errstate(over="ignore"):
        received(work, {"w": base})
        _, (params,) = sent(FLModel(params={"w": new}), work, "DIFF")
        difference = tree_of(params)["w"]
    assert difference.dtype == dtype
    limit = float(ml_dtypes.finfo(dtype).max)
    for got, x, b in zip(difference, new, base, strict=True):
        exact = Fraction(float(x)) - Fraction(float(b))
        if abs(exact) > limit:  # float8 only: 400 - -400
            continue
        error = abs(Fraction(float(got)) - exact)
        for far in (ml_dtypes.finfo(dtype).min, ml_dtypes.finfo(dtype).max):
            beside = float(np.nextafter(got, dtype(far)))
            assert error <= abs(Fraction(beside) - exact) or beside == got


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 700), st.integers(0, 700))
def test_any_range_of_the_differences_is_that_slice_of_the_whole(tmp_path_factory: Any, a: int, b: int) -> None:
    """Also one that begins or ends within an element, as after a cut at any byte."""
    work = tmp_path_factory.mktemp("site")
    base = {"d": np.arange(9.0), "h": np.arange(7, dtype=np.float16), "n": np.arange(3), "s": 0.5}
    received(work, base)
    new = {"d": np.arange(9.0) * 3, "h": np.arange(7, dtype=np.float16) / 2, "n": np.arange(3), "s": 0.75}
    _, (params,) = sent(FLModel(params=new), work, "DIFF")
    start, stop = sorted(min(x, params.layout.size) for x in (a, b))
    assert params.read(start, stop) == bytes_of(params)[start:stop]


@pytest.mark.parametrize(
    "new",
    [
        pytest.param({"w": np.zeros(3)}, id="another shape"),
        pytest.param({"w": np.zeros(2, np.float32)}, id="another dtype"),
        pytest.param({"v": np.zeros(2)}, id="another name"),
        pytest.param({"w": np.zeros(2), "v": np.zeros(2)}, id="one more"),
    ],
)
def test_a_difference_to_another_model_is_refused_where_it_is_made(tmp_path: Path, new: Mapping[str, Any]) -> None:
    received(tmp_path, {"w": np.zeros(2)})
    with pytest.raises(LocalProtocolError, match="differ in names, shapes or dtypes from the model received"):
        sent(FLModel(params=new), tmp_path, "DIFF")


def test_differences_that_a_script_made_itself_travel_as_they_are(tmp_path: Path) -> None:
    received(tmp_path, {"w": np.ones(2)})
    header, (params,) = sent(FLModel(params={"w": np.full(2, 7.0)}, params_type="DIFF"), tmp_path, "DIFF")
    assert header.params_type == ParamsType.DIFF
    assert tree_of(params)["w"].tolist() == [7.0, 7.0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("limit", ["Keep", "BF16"])
def test_a_script_may_take_the_difference_of_a_mask_of_infinities(tmp_path: Path, dtype: Any, limit: str) -> None:
    """It is NaN there, which is no change; elsewhere NaN still says that training has diverged."""
    odd = [np.nan] if dtype is ml_dtypes.float8_e4m3fn else [-np.inf, np.inf, np.nan]  # that has no infinity
    base = np.array([*odd, 1.0, 2.0]).astype(dtype)
    received(tmp_path, {"mask": base, "n": np.array([1])}, limit)
    with np.errstate(invalid="ignore"):
        difference = base - base
    difference[-1] = np.nan
    model = FLModel(params={"mask": difference, "n": np.array([0])}, params_type="DIFF")
    _, (params,) = sent(model, tmp_path, "DIFF", wire_dtype=limit)
    got = tree_of(params)["mask"].astype(np.float64)
    assert got[:-1].tolist() == [0.0] * (len(odd) + 1)
    assert np.isnan(got[-1])


@pytest.mark.parametrize("params_type", ["FULL", "DIFF"])
def test_without_the_model_of_the_round_no_difference_can_be_named(tmp_path: Path, params_type: str) -> None:
    """Whoever takes it: a script that did not receive in this round has another base than the one that would be named."""
    received(tmp_path, {"w": np.ones(2)}, digest="cd" * 32)
    with pytest.raises(LocalProtocolError, match=r"call fedjob.receive\(\) before fedjob.send\(\) in each round"):
        sent(FLModel(params={"w": np.ones(2)}, params_type=params_type), tmp_path, "DIFF")


def test_an_optimizers_state_is_never_a_difference(tmp_path: Path) -> None:
    received(tmp_path, {"w": np.ones(2)})
    model = FLModel(params={"w": np.ones(2)}, optimizer_params={"m": np.full(2, 4.0)})
    _, (_, optimizer) = sent(model, tmp_path, "DIFF")
    assert tree_of(optimizer)["m"].tolist() == [4.0, 4.0]


# -------------------------------------------------------------------------------------------------- what is announced


def test_weights_travel_as_they_are_with_what_the_script_says_of_them(tmp_path: Path) -> None:
    model = FLModel(params={"w": np.ones(2)}, metrics={"loss": 0.5}, meta={"num_examples": 7, "note": "é"})
    header, (params,) = sent(model, tmp_path)
    assert header == Header(7.0, {"loss": 0.5}, {"num_examples": 7, "note": "é"}, "FULL", BASE_DIGEST, 16)
    assert tree_of(params)["w"].tolist() == [1.0, 1.0]


def test_an_evaluation_sends_metrics_and_no_tensors(tmp_path: Path) -> None:
    model = FLModel(params={"w": np.ones(2)}, metrics={"loss": 0.5})
    header, parts = sent(model, tmp_path, "DIFF", kind="Evaluate")
    assert (header.metrics, header.params_type, parts) == ({"loss": 0.5}, ParamsType.FULL, [])


def test_the_forms_that_a_script_sends_are_remembered_for_what_it_receives(tmp_path: Path) -> None:
    known: dict[str, Mapping[str, str]] = {}
    announcement(task(), FLModel(params={"w": torch.ones(1), "n": 3}), known, config(tmp_path, "FULL"))
    assert known == {"params": {"w": "torch", "n": "int"}}


@pytest.mark.parametrize(
    ("model", "kind", "error", "message"),
    [
        pytest.param({"w": 1}, "Train", TypeError, "an FLModel is expected, got dict", id="a bare dict"),
        pytest.param(FLModel(), "Train", ValueError, "neither params nor metrics are set", id="nothing"),
        pytest.param(FLModel(params={"w": 1}), "Evaluate", ValueError, "metrics are asked for", id="params for metrics"),
        pytest.param(FLModel(metrics={"a": "good"}  # type: ignore[dict-item]
), "Train", TypeError, r"metrics\['a'\] is a str", id="a word as a metric"),
        pytest.param(FLModel(params={"w": 1}, meta={"delta": np.ones(2)}), "Train", TypeError, r"meta\['delta'\] is an ndarray",
                     id="an array in meta"),
        pytest.param(FLModel(params={"w": 1}, meta={"num_examples": True}), "Train", TypeError, "num_examples",
                     id="a truth value as a weight"),
        pytest.param(FLModel(params={"b": {"w": 1j}}), "Train", CodecError, "params: b/w: a complex .*or exclude it",
                     id="a tensor of the params"),
        pytest.param(FLModel(params={"w": 1}, optimizer_params={"m": [b"x"]}), "Train", CodecError,
                     "optimizer_params: m/0: a bytes cannot travel.*strings$", id="a tensor of the optimizer"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_in_the_script(
    tmp_path: Path, model: Any, kind: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        announcement(task(kind), model, {}, config(tmp_path, "FULL"))


def test_a_script_offers_its_model_or_declines() -> None:
    known: dict[str, Mapping[str, str]] = {}
    announce, (params,) = offer(task("Offer"), {"w": torch.ones(2)}, known)
    assert not announce.declined
    assert torch.equal(tree_of(params)["w"], torch.ones(2))
    assert known == {"params": {"w": "torch"}}
    announce, parts = offer(task("Offer"), None, known)
    assert (announce.declined, parts) == (
        "the script offers no model: call fedjob.init(model.state_dict()), or set spec.model.initial",
        [],
    )


def test_a_pattern_that_excludes_no_tensor_is_told_where_all_tensors_are_known() -> None:
    """The server sees only what is left; nothing travels that was to be held back under another name."""
    model = {"w": np.ones(2), "causal_mask": np.zeros(2)}
    announce, (params,) = offer(task("Offer"), model, {}, ["!*mask"])
    assert (announce.declined, list(tree_of(params))) == ("", ["w"])
    announce, parts = offer(task("Offer"), model, {}, ["*", "!*maks"])
    assert (parts, announce.declined) == (
        [],
        "spec.model.exchange.include[1] '!*maks' excludes no tensor; correct or remove it, the site's log lists the tensors",
    )
