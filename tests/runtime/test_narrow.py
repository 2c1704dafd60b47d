"""What crosses the wire, and what is made of it: laws of the master, over both networks."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import FLModel, JobFailed, narrow, testing
from fedjob.api import Exchange, FedAvg
from fedjob.codec import Inflow, flatten, own_dtypes
from fedjob.dtypes import ITEM_BYTES, numpy_dtype
from fedjob.errors import OutOfRange
from fedjob.stored import write, write_values
from fedjob.trees import BLOCK_ELEMENTS, as_sent, flowing, in_memory, not_finite

Network = Callable[..., testing.Result]
BF16, F16 = ml_dtypes.bfloat16, np.float16
FLOATS = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]
EXCHANGES = [Exchange(), Exchange(dtype="BF16"), Exchange(params="Diff"), Exchange(params="Diff", dtype="F16")]
LIMITS: list[Any] = ["Keep", "F32", "BF16", "F16"]
ODD = [0.0, -0.0, 1.0, -1.5, 1 / 3, 300.0, 2.0**-20]


def model(code: str) -> dict[str, Any]:
    """A matrix of odd numbers in a dtype, and what is no float."""
    return {"w": np.array(ODD).astype(numpy_dtype(code)), "n": np.array([3, 4]), "on": np.array([True])}


def step(by: Any, examples: int = 1) -> testing.Client:
    """Adds `by` in the dtype of what it receives."""

    def train(received: FLModel) -> FLModel:
        w = received.params["w"]
        return FLModel(
            params={**received.params, "w": w + np.asarray(by).astype(w.dtype)}, meta={"num_examples": examples}
        )

    return train


def stay(received: FLModel) -> FLModel:
    """Sends what it received."""
    return FLModel(params=received.params)


def tree_of(data: bytes) -> Any:
    inflow = Inflow()
    inflow.write(data)
    return inflow.tree()


def file_of(tree: Any, folder: Path) -> bytes:
    return write(folder / "written", tree).path.read_bytes()


# --------------------------------------------------------------------------------------------------------- the master


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("code", FLOATS)
def test_a_difference_of_nothing_leaves_every_bit_of_the_master(code: str, limit: Any, network: Network) -> None:
    """Whatever travels: rounded to the wire, sent back as it came, the model is the one that was offered; -0 too."""
    start = {k: v[:-2] if limit == "F16" and k == "w" else v for k, v in model(code).items()}
    result = network(FedAvg(rounds=2), start, {"a": stay, "b": stay}, exchange=Exchange(params="Diff", dtype=limit))
    assert result.file == narrow_file(start)


def narrow_file(values: Any) -> bytes:
    outflow = flatten(values)
    return bytes(outflow.read(0, outflow.layout.size))


@pytest.mark.parametrize("code", FLOATS)
def test_weights_that_do_not_change_come_back_unchanged_in_every_dtype(code: str, network: Network) -> None:
    assert network(FedAvg(rounds=1), model(code), {"a": stay, "b": stay}).file == narrow_file(model(code))


def test_differences_are_added_to_the_master_in_float64_and_rounded_once(network: Network) -> None:
    """w + Σ p_k D_k against exact fractions."""
    start = {"w": np.array([1.0, -2.0, 1e-3], np.float32)}
    steps = {"a": (np.array([0.1, 1e-7, 3.0]), 1), "b": (np.array([-0.3, 2e-7, 5.0]), 3)}
    clients = {site: step(by, n) for site, (by, n) in steps.items()}
    result = network(FedAvg(rounds=1), start, clients, exchange=Exchange(params="Diff"))
    for i, w in enumerate(start["w"]):
        moved = Fraction(0)
        for by, n in steps.values():
            new = np.float32(w + np.float32(by[i]))
            moved += Fraction(float(np.float32(new - w))) * n / 4
        exact = Fraction(float(w)) + moved
        assert abs(Fraction(float(result.params["w"][i])) - exact) <= Fraction(math.ulp(abs(float(w)) + 4)) * 2**28


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-100, 100, width=32), st.floats(-1, 1, width=32)), min_size=1, max_size=9),
    st.sampled_from([("BF16", 2.0**-7), ("F16", 2.0**-10)]),
)
def test_a_difference_on_the_wire_is_off_by_half_a_step_of_its_own_size(pairs: Any, wire: tuple[Any, float]) -> None:
    """The error is relative to the *difference*, not to the weight: the master keeps what the wire cannot."""
    limit, epsilon = wire
    w, by = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    received = w.astype(numpy_dtype(limit)).astype(np.float32)
    result = testing.run(FedAvg(rounds=1), {"w": w}, {"a": step(by)}, exchange=Exchange(params="Diff", dtype=limit))
    difference = (received + by).astype(np.float64) - received
    error = np.abs(result.params["w"].astype(np.float64) - (w.astype(np.float64) + difference))
    smallest = float(ml_dtypes.finfo(numpy_dtype(limit)).smallest_subnormal)
    assert (error <= np.abs(difference) * epsilon / 2 + np.spacing(np.abs(w) + 1) + smallest).all()


def test_weights_on_a_narrow_wire_replace_the_master_by_what_was_rounded(network: Network) -> None:
    """Why Full and a narrow wire lose small steps: what comes back has the wire's precision."""
    start = {"w": np.array([1.0, 100.0], np.float32)}
    tiny = {"a": step(2.0**-12)}
    full = network(FedAvg(rounds=1), start, tiny, exchange=Exchange(dtype="BF16"))
    assert full.params["w"].tolist() == [1.0, 100.0]
    diff = network(FedAvg(rounds=1), start, tiny, exchange=Exchange(params="Diff", dtype="BF16"))
    assert diff.params["w"].tolist() == [1 + 2.0**-12, 100 + 2.0**-12]
    assert diff.params["w"].dtype == np.float32


@pytest.mark.parametrize("code", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_steps_too_small_for_a_narrow_model_add_up_in_its_master(code: str, network: Network) -> None:
    """One of four sites moves by a step of the dtype: the mean is a quarter of it, and four rounds make it whole."""
    unit = float(ml_dtypes.finfo(numpy_dtype(code)).eps)
    start = {"w": np.array([[1.0]]).astype(numpy_dtype(code))}
    four = {"a": step(unit), "b": step(0), "c": step(0), "d": step(0)}
    result = network(FedAvg(rounds=4), start, four, exchange=Exchange(params="Diff"))
    assert result.params["w"].dtype == numpy_dtype(code)
    assert float(result.params["w"][0, 0]) == 1.0 + unit
    assert float(network(FedAvg(rounds=4), start, four).params["w"][0, 0]) == 1.0  # Full: each round begins anew


@pytest.mark.parametrize(
    "exchange", [Exchange(params="Diff", dtype="BF16"), Exchange(dtype="F16"), Exchange(params="Diff")]
)
def test_the_bytes_depend_neither_on_the_order_of_arrival_nor_on_kills(exchange: Exchange, network: Network) -> None:
    start = {"w": np.linspace(-3, 3, 50, dtype=np.float32)}
    clients = {s: step(np.linspace(0.1 * k, 0.3, 50), k + 1) for k, s in enumerate("abcd")}
    once = network(FedAvg(rounds=2), start, clients, exchange=exchange)
    for seed in range(4):
        faults = testing.Faults(seed=seed, kill_before=frozenset({seed + 1, 6}))
        assert testing.run(FedAvg(rounds=2), start, clients, faults=faults, exchange=exchange).file == once.file


def test_a_script_gets_and_gives_its_own_dtypes_whatever_the_wire_has(network: Network) -> None:
    seen: list[Mapping[str, Any]] = []

    def train(received: FLModel) -> FLModel:
        seen.append({name: (np.asarray(x).dtype, np.array(x)) for name, x in received.params.items()})
        return FLModel(params=received.params)

    start = {"d": np.array([1 / 3]), "w": np.array([[1 / 3]], np.float32), "h": np.ones(2, F16), "scale": 1 / 3}
    result = network(FedAvg(rounds=1), start, {"a": train}, exchange=Exchange(dtype="BF16"))
    assert {name: dtype for name, (dtype, _) in seen[0].items()} == {"d": "f8", "w": "f4", "h": F16, "scale": "f8"}
    assert seen[0]["w"][1] == np.float32(BF16(1 / 3))
    assert seen[0]["scale"][1] == 1 / 3  # a number alone would save nothing
    assert {name: np.asarray(x).dtype for name, x in result.params.items()} == {
        "d": "f8",
        "w": "f4",
        "h": F16,
        "scale": "f8",
    }


# ------------------------------------------------------------------------------------------------ constants, not finite


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_constant_that_is_not_finite_stays_as_it_is(exchange: Exchange, network: Network) -> None:
    """A causal mask, and places marked by NaN, in a model of which the rest is trained; by three sites, unevenly."""
    odd = np.array([0.0, -np.inf, np.inf, np.nan, 1.0])
    masks = {code: odd.astype(numpy_dtype(code)) for code in FLOATS}
    start = {"w": np.ones(3, np.float32), "masks": {**masks, "large": np.full((200, 200), -np.inf, np.float32)}}
    sites = {name: step(by, examples) for name, by, examples in (("a", 1, 3), ("b", 2, 1), ("c", 1, 5))}
    result = network(FedAvg(rounds=2), start, sites, exchange=exchange)
    assert not any(result.missing.values())
    for name, mask in start["masks"].items():
        np.testing.assert_array_equal(result.params["masks"][name].astype(float), mask.astype(float))
    assert (result.params["w"] > 2).all()
    assert np.isfinite(result.params["w"]).all()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_what_was_finite_must_stay_so(exchange: Exchange) -> None:
    for before, after in ((1.0, np.nan), (1.0, np.inf), (np.inf, -np.inf), (np.inf, np.nan), (np.nan, np.inf)):
        start = {"mask": np.array([2.0, before, np.nan], np.float32)}
        spoilt = np.array([2.0, after, np.nan], np.float32)

        def diverge(_: FLModel, spoilt: Any = spoilt) -> FLModel:
            return FLModel(params={"mask": spoilt})

        result = testing.run(FedAvg(rounds=1, quorum=1), start, {"a": diverge, "b": stay}, exchange=exchange)
        (refusal,) = [out["a"] for out in result.missing.values()]
        assert refusal.reason == "NotFinite"
        assert "'mask' holds NaN or infinity that was not sent out" in refusal.message
        assert "exclude it with '!mask' in spec.model.exchange.include" in refusal.message
        np.testing.assert_array_equal(result.params["mask"], start["mask"])


# ------------------------------------------------------------------------------------------------------- what is refused


def test_a_sum_beyond_its_dtype_is_refused_by_name_and_does_not_spoil_the_model(network: Network) -> None:
    start = {"w": np.array([3e38, 1.0], np.float32)}
    up = FLModel(params={"w": np.array([3e38, 1.0], np.float32)}, params_type="DIFF")
    with pytest.raises(JobFailed, match="a: NotFinite") as failed:
        network(FedAvg(rounds=1), start, {"a": lambda _: up}, exchange=Exchange(params="Diff"))
    assert failed.value.reason == "QuorumNotMet"


def test_a_model_that_the_wire_cannot_hold_ends_the_job_by_name() -> None:
    start = {"w": np.array([1.0, 70_000.0, -np.inf], np.float32)}
    with pytest.raises(JobFailed, match=r"OutOfRange: round 1: .*'w' holds .* beyond 6.55e\+04.*exchange.dtype"):
        testing.run(FedAvg(rounds=1), start, {"a": step(0)}, exchange=Exchange(dtype="F16"))


def test_a_model_larger_than_allowed_ends_the_job_by_name() -> None:
    with pytest.raises(JobFailed, match=r"TooLarge: the global model has \d+ bytes, allowed: 1000 .*maxBytes"):
        testing.run(FedAvg(rounds=1), {"w": np.zeros(1000)}, {"a": step(0)}, exchange=Exchange(max_bytes="1k"))


def test_an_update_without_an_included_tensor_is_refused() -> None:
    start = {"a.lora": np.zeros(2), "b.lora": np.zeros(2), "w": np.zeros(2)}
    half = {"s": lambda received: FLModel(params={"a.lora": received.params["a.lora"]})}
    with pytest.raises(JobFailed, match=r"s: WrongShape"):
        testing.run(FedAvg(rounds=1), start, half, exchange=Exchange(include=("*lora",)))


# -------------------------------------------------------------------------------------------------------------- selection


def test_only_included_tensors_travel_and_are_the_global_model(network: Network) -> None:
    seen: list[set[str]] = []

    def train(received: FLModel) -> FLModel:
        seen.append(set(received.params))
        mine = {name: np.asarray(x) + np.float32(1) for name, x in received.params.items()}
        return FLModel(params={"base.w": np.full(1000, 9.0), **mine})  # the whole state: only what is included goes

    start = {"base.w": np.zeros(1000), "base.w.lora_A": np.zeros(4), "head.b": np.ones(2, np.float32), "step": 7}
    result = network(FedAvg(rounds=2), start, {"a": train, "b": train}, exchange=Exchange(include=("*lora*", "head.?")))
    assert seen == [{"base.w.lora_A", "head.b"}] * 4
    assert {n: x.tolist() for n, x in result.params.items()} == {"base.w.lora_A": [2.0] * 4, "head.b": [3.0, 3.0]}


@pytest.mark.parametrize(
    ("patterns", "names", "useless"),
    [
        ([], ["a", "b.lora", "C"], []),
        (["*"], ["a", "b.lora", "C"], []),
        (["*lora", "a"], ["a", "b.lora"], []),
        (["c"], [], ["c"]),  # capitals count
        (["?", "lora", "[!a]"], ["a", "C"], ["lora"]),
    ],
)
def test_patterns_are_those_of_a_shell(patterns: list[str], names: list[str], useless: list[str]) -> None:
    assert narrow.included(["a", "b.lora", "C"], patterns) == names
    assert narrow.idle(["a", "b.lora", "C"], patterns) == useless


def test_what_is_not_included_leaves_the_tree_and_none_in_its_place_of_a_list(tmp_path: Path) -> None:
    tree = {"enc": {"w": np.zeros(1)}, "list": [np.ones(1), np.zeros(1), "s"], "kind": "mlp", "head": ({"b": 2.5},)}
    kept = write(tmp_path / "kept", narrow.master_form(in_memory(tree), ["list/1", "head/*"]))
    back = tree_of(kept.path.read_bytes())
    assert back == {"list": [None, np.zeros(1), "s"], "kind": "mlp", "head": ({"b": 2.5},)}


@pytest.mark.parametrize(
    ("dtype", "shape", "limit", "travels"),
    [
        ("F64", [2], "Keep", "F64"), ("F64", [2], "F32", "F32"), ("F32", [2], "F32", "F32"), ("F64", [], "F32", "F64"),
        ("F32", [2], "BF16", "BF16"), ("F16", [2], "BF16", "F16"), ("BF16", [2], "F16", "BF16"), ("F8_E4M3", [2], "F16", "F8_E4M3"),
        ("I64", [2], "BF16", "I64"), ("BOOL", [2], "F32", "BOOL"), ("U8", [2], "F16", "U8"),
    ],
)  # fmt: skip
def test_only_what_is_wider_travels_in_another_dtype(dtype: str, shape: list[int], limit: str, travels: str) -> None:
    """float16 is not bfloat16: both have two bytes, and neither holds the other's numbers."""
    assert narrow.wire_dtype(dtype, shape, limit) == travels


def test_a_tensors_own_dtype_is_noted_where_the_files_is_another_and_nowhere_else(tmp_path: Path) -> None:
    values = {"h": np.ones(3, BF16), "w": np.ones(3, np.float32), "d": np.ones(3)}
    first = write_values(tmp_path / "first", values)
    master = write(tmp_path / "master", narrow.master_form(first))
    assert own_dtypes(master.layout) == {"h": "BF16"}
    wire = write(tmp_path / "wire", narrow.wire_form(master, "BF16"))
    assert own_dtypes(wire.layout) == {"w": "F32", "d": "F64"}
    assert own_dtypes(narrow.own_form(master).layout) == {}
    assert (
        narrow.relaid(wire.layout, {s.name: s.dtype for s in wire.layout.specs}, {"h": "BF16", "w": "F32", "d": "F64"})
        is wire.layout
    )
    changed = narrow.relaid(
        wire.layout, {s.name: s.dtype for s in wire.layout.specs}, {"h": "BF16", "w": "F32", "d": "BF16"}
    )
    assert own_dtypes(changed) == {"w": "F32"}


@pytest.mark.parametrize("at", [0, BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, 2 * BLOCK_ELEMENTS + 1])
def test_a_sum_beyond_its_dtype_is_found_in_every_block(at: int) -> None:
    values = np.zeros(2 * BLOCK_ELEMENTS + 2)
    values[at] = 1e39
    before = in_memory({"fine": np.zeros(4, np.float32), "w": np.zeros(values.size, np.float32)})
    summed = in_memory({"fine": np.zeros(4), "w": values})
    assert narrow.first_beyond(summed, before, before.layout) == "w"
    values[at] = 3e38
    assert narrow.first_beyond(summed, before, before.layout) is None


@pytest.mark.parametrize("at", [0, BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, 2 * BLOCK_ELEMENTS + 1])
def test_what_is_not_finite_is_found_and_compared_in_every_block(at: int) -> None:
    values, sent = np.zeros(2 * BLOCK_ELEMENTS + 2, np.float32), np.zeros(2 * BLOCK_ELEMENTS + 2, np.float32)
    values[at] = np.inf
    assert not_finite(in_memory({"w": values})) == ["w"]
    assert not as_sent(in_memory({"w": values}), in_memory({"w": sent}), "w")
    sent[at] = np.inf
    assert as_sent(in_memory({"w": values}), in_memory({"w": sent}), "w")


# ------------------------------------------------------------------------------------------------------------------ forms


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(FLOATS), st.integers(0, 40)), min_size=1, max_size=5), st.sampled_from(LIMITS)
)
def test_every_form_is_made_from_the_master_and_none_rounds_it(tmp_path_factory: Any, tensors: Any, limit: Any) -> None:
    folder = tmp_path_factory.mktemp("forms")
    values = {f"t{i}": np.linspace(-2, 2, n).astype(numpy_dtype(code)) for i, (code, n) in enumerate(tensors)}
    first = write_values(folder / "first", values)
    master = write(folder / "master", narrow.master_form(first))
    assert all(ITEM_BYTES[s.dtype] >= 4 for s in master.layout.specs)
    wire = write(folder / "wire", narrow.wire_form(master, limit))
    for s in wire.layout.specs:
        own = first.layout.by_name[s.name].dtype
        assert s.dtype == narrow.wire_dtype(own, s.shape, limit)
        assert limit == "Keep" or ITEM_BYTES[s.dtype] <= max(ITEM_BYTES[limit], 1)
    assert (
        wire.size <= first.size or limit == "Keep" or wire.size - first.size < 200 * len(tensors)
    )  # notes in the header
    assert file_of(narrow.own_form(master), folder) == first.path.read_bytes()
    assert narrow.own_size(wire.layout) == first.layout.data_size


def test_a_form_that_changes_nothing_is_the_tree_itself(tmp_path: Path) -> None:
    """No pass over the model, no second file."""
    stored = write_values(tmp_path / "m", {"w": np.zeros(3, np.float32), "n": np.arange(3)})
    assert narrow.master_form(stored) is stored
    assert narrow.wire_form(stored, "Keep") is stored
    assert narrow.wire_form(stored, "F32") is stored
    assert narrow.own_form(stored) is stored


def test_a_part_laid_over_the_rest_leaves_every_other_byte(tmp_path: Path) -> None:
    rest = write_values(tmp_path / "rest", {"w": torch.randn(50), "lora": torch.zeros(3, dtype=torch.bfloat16)})
    part = write(tmp_path / "part", narrow.master_form(rest, ["lora"]))
    assert file_of(narrow.laid_over(rest, narrow.own_form(part)), tmp_path) == rest.path.read_bytes()
    moved = write_values(tmp_path / "moved", {"lora": torch.ones(3, dtype=torch.bfloat16)})
    after = tree_of(file_of(narrow.laid_over(rest, moved), tmp_path))
    assert torch.equal(after["lora"], torch.ones(3, dtype=torch.bfloat16))
    assert torch.equal(after["w"], tree_of(rest.path.read_bytes())["w"])


def test_tied_weights_stay_tied_over_a_narrow_wire(tmp_path: Path) -> None:
    weight = torch.randn(8, 4)
    master = narrow.master_form(write_values(tmp_path / "m", {"a": weight, "b": weight}))
    back = tree_of(file_of(narrow.wire_form(master, "BF16"), tmp_path))
    assert back["a"].data_ptr() == back["b"].data_ptr()
    assert torch.equal(back["a"], weight.bfloat16().float())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 900), st.integers(0, 900), st.booleans())
def test_any_range_of_what_is_sent_is_that_slice_of_the_whole(
    tmp_path_factory: Any, a: int, b: int, diff: bool
) -> None:
    """Also one that begins or ends within an element."""
    values = {"d": np.arange(60.0) / 7, "w": np.arange(70, dtype=np.float32) / 3, "n": np.arange(5), "out": np.zeros(9)}
    base = None
    if diff:
        shrunk = narrow.outgoing(
            flatten({k: v[:0] if k == "out" else v * 0 for k, v in values.items()}, narrow.chooser(["[!o]*"])), "BF16"
        )
        base = write(tmp_path_factory.mktemp("base") / "b", flowing(shrunk))
    sent = narrow.outgoing(flatten(values, narrow.chooser(["[!o]*"])), "BF16", base)
    whole = bytes(sent.read(0, sent.layout.size))
    start, stop = sorted(min(x, sent.layout.size) for x in (a, b))
    assert bytes(sent.read(start, stop)) == whole[start:stop]
    assert set(tree_of(whole)) == {"d", "w", "n"}


def test_what_comes_narrow_is_widened_in_its_own_memory(tmp_path: Path) -> None:
    """No second copy of the model, not even for a moment."""
    size = 8 << 20
    stored = write_values(tmp_path / "m", {"w": np.ones(size, np.float32), "d": np.ones(size // 4)})
    data = file_of(narrow.wire_form(stored, "F16"), tmp_path)
    tracemalloc.start()
    try:
        inflow = Inflow({"w": "numpy", "d": "numpy"})
        for at in range(0, len(data), 1 << 20):
            inflow.write(memoryview(data)[at : at + (1 << 20)])
        tree = inflow.tree()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tree["w"].dtype == np.float32
    assert (tree["w"] == 1).all()
    assert (tree["d"] == 1).all()
    assert peak < stored.size + (6 << 20)


@pytest.mark.parametrize(("value", "code"), [(np.nan, "F32"), (np.inf, "F32"), (65_505.0, "F16"), (-449.0, "F8_E4M3")])
def test_a_number_that_a_dtype_cannot_hold_does_not_fit(value: float, code: str) -> None:
    assert not narrow.fits(np.array([0.0, value]), code)
    assert narrow.fits(np.array([0.0, narrow.largest(code)]), code)
    assert narrow.fits(np.array([], np.float32), code)


def test_reading_what_the_wire_cannot_hold_says_which_tensor(tmp_path: Path) -> None:
    stored = write_values(tmp_path / "m", {"fine": np.ones(4), "w": np.array([1e39])})
    with pytest.raises(OutOfRange, match=r"'w' holds a number beyond 3.403e\+38"):
        file_of(narrow.wire_form(stored, "F32"), tmp_path)
