"""What crosses the wire, by rows: which dtype, where its bytes lie, and what no dtype can hold."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fedjob import narrow
from fedjob.codec import Layout, Spec, flatten, own_dtypes
from fedjob.errors import OutOfRange
from fedjob.trees import in_memory

INF, NAN = np.inf, np.nan


def elements(outflow: Any, dtype: Any) -> Any:
    """All that is sent behind the header, as numbers of one dtype."""
    return np.frombuffer(bytes(outflow.read(outflow.layout.data_start, outflow.layout.size)), dtype)


# ------------------------------------------------------------------------------------------------------------- choices


@pytest.mark.parametrize(
    ("patterns", "choose"),
    [([], ()), (["!a"], ()), (["a", "!b", "c*"], ("a", "c*"))],
    ids=["none", "one that excludes", "some of each"],
)
def test_the_patterns_that_choose_are_those_without_a_mark(patterns: list[str], choose: tuple[str, ...]) -> None:
    assert narrow.choosing(patterns) == choose


def test_without_a_pattern_every_name_travels_and_nothing_is_asked() -> None:
    assert narrow.chooser([]) is None
    assert narrow.included(["b", "a"], []) == ["b", "a"]
    assert narrow.included(["b", "a", "c"], ["[bc]", "!b"]) == ["c"]


# -------------------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    ("dtype", "master", "largest"),
    [
        ("F64", "F64", 1.7976931348623157e308), ("F32", "F32", 3.4028234663852886e38), ("F16", "F32", 65504.0),
        ("BF16", "F32", 3.3895313892515355e38), ("F8_E4M3", "F32", 448.0), ("F8_E5M2", "F32", 57344.0),
    ],
)  # fmt: skip
def test_a_float_has_a_master_of_32_bits_or_more_and_a_largest_number(dtype: str, master: str, largest: float) -> None:
    assert (narrow.master_dtype(dtype), narrow.largest(dtype)) == (master, largest)


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "BOOL"])
def test_what_is_no_float_is_kept_as_it_is(dtype: str) -> None:
    assert narrow.master_dtype(dtype) == dtype
    assert narrow.fits(np.array([1]), dtype)


@pytest.mark.parametrize(
    ("block", "dtype", "fits"),
    [
        ([65504.0, -65504.0], "F16", True), ([65505.0], "F16", False), ([-65505.0], "F16", False), ([1.0, NAN], "F16", False),
        ([INF], "F64", False), ([-INF], "F64", False), ([], "F16", True), ([448.0, -448.0], "F8_E4M3", True),
    ],
)  # fmt: skip
def test_a_block_fits_up_to_the_largest_number_of_either_sign(block: list[float], dtype: str, fits: bool) -> None:
    assert narrow.fits(np.array(block, np.float64), dtype) is fits


# ------------------------------------------------------------------------------------------------------------- layouts


def test_the_widest_lie_first_and_their_own_dtypes_are_noted() -> None:
    tree = in_memory({"h": np.ones(3, ml_dtypes.bfloat16), "d": np.ones(2), "n": np.ones(5, np.int64), "s": 0.5})
    wire = narrow.wire_form(tree, "F32").layout
    assert wire.specs == (
        Spec("h", "BF16", (3,), 56, 62), Spec("d", "F32", (2,), 48, 56), Spec("n", "I64", (5,), 0, 40), Spec("s", "F64", (), 40, 48),
    )  # fmt: skip
    assert own_dtypes(wire) == {"d": "F64"}
    assert narrow.own_size(wire) == 3 * 2 + 2 * 8 + 5 * 8 + 8


def test_a_flat_file_has_a_skeleton_only_while_there_is_something_to_note() -> None:
    flat = Layout((Spec("a", "F32", (2,), 0, 8), Spec("b", "I8", (1,), 8, 9)))
    narrower = narrow.relaid(flat, {"a": "F16", "b": "I8"}, {"a": "F32", "b": "I8"})
    assert own_dtypes(narrower) == {"a": "F32"}
    again = narrow.relaid(narrower, {"a": "F32", "b": "I8"}, {"a": "F32", "b": "I8"})
    assert again == flat
    assert narrow.relaid(flat, {"a": "F32", "b": "I8"}, {"a": "F32", "b": "I8"}) is flat
    part = narrow.relaid(flat, {"b": "I8"}, {"b": "I8"})
    assert (part.specs, part.skeleton) == ((Spec("b", "I8", (1,), 0, 1),), "")


def test_of_a_tree_of_which_nothing_is_left_an_empty_dict_is() -> None:
    tree = in_memory({"enc": {"w": np.ones(1)}})
    assert narrow.master_form(tree, ["x"]).layout == Layout(())


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_number_that_the_wire_cannot_hold_is_named_with_the_largest_that_it_can() -> None:
    master = in_memory({"w": np.array([1.0, -INF, NAN, 1e39])})
    wire = narrow.wire_form(master, "F32")
    with pytest.raises(OutOfRange) as error:
        wire.read(wire.layout.by_name["w"], 0, 4)
    assert str(error.value) == (
        "'w' holds a number beyond 3.403e+38, the largest of F32, in which it travels (spec.model.exchange.dtype)"
    )
    np.testing.assert_array_equal(wire.read(wire.layout.by_name["w"], 0, 3), [1.0, -INF, NAN])


@pytest.mark.parametrize(
    ("before", "summed", "named"),
    [
        pytest.param([1.0, 1.0], [1.0, 3e38], None, id="it fits"),
        pytest.param([1.0, 1.0], [1.0, 4e38], "w", id="it does not"),
        pytest.param([1.0, 1.0], [-4e38, 1.0], "w", id="nor below zero"),
        pytest.param([1.0, INF], [1.0, INF], None, id="what was infinite may stay so"),
        pytest.param([1.0, INF], [4e38, INF], "w", id="and hides nothing beside it"),
        pytest.param([1.0, NAN], [1.0, 4e38], None, id="nor is a number held against what was none"),
        pytest.param([1.0, 1.0], [1.0, NAN], "w", id="a new NaN"),
    ],
)
def test_the_first_sum_that_its_dtype_cannot_hold_is_named(before: Any, summed: Any, named: str | None) -> None:
    def tree(w: Any, dtype: Any) -> Any:
        return in_memory({"n": np.array([1 << 62]), "fine": np.ones(3, dtype), "w": np.array(w, dtype)})

    was = tree(before, np.float32)
    assert narrow.first_beyond(tree(summed, np.float64), was, was.layout) == named


# ------------------------------------------------------------------------------------------------- what a script sends


def test_what_is_sent_as_it_is_is_not_made_anew() -> None:
    outflow = flatten({"w": np.ones(2, np.float32), "n": np.ones(2, np.int8)})
    assert narrow.outgoing(outflow, "Keep") is outflow
    assert narrow.outgoing(outflow, "F32") is outflow
    assert narrow.outgoing(outflow, "F16") is not outflow


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_no_change_is_minus_zero_so_that_adding_it_leaves_every_bit(dtype: Any) -> None:
    values = np.array([1.0, -0.0, 0.0, INF, -INF, NAN]).astype(dtype)
    sent = elements(narrow.outgoing(flatten({"w": values}), "Keep", in_memory({"w": values})), dtype)
    assert sent.tobytes() == np.full(6, -0.0).astype(dtype).tobytes()


def test_a_difference_is_of_floats_that_were_received_in_the_same_shape() -> None:
    new = {"w": np.array([3.0, INF, 1.0]), "n": np.array([3]), "other": np.array([1.0, 2.0]), "mine": np.array([4.0])}
    base = in_memory({"w": np.array([1.0, 1.0, -INF]), "n": np.array([1]), "other": np.array([7.0])})
    outflow = narrow.outgoing(flatten(new), "Keep", base)
    sent = {spec.name: np.frombuffer(read(0, 8 * spec.count), "i8" if spec.name == "n" else "f8").tolist()
            for spec, read in outflow.sources}  # fmt: skip
    assert sent == {"w": [2.0, INF, INF], "n": [3], "other": [1.0, 2.0], "mine": [4.0]}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_scripts_own_difference_is_no_change_only_where_nothing_finite_was_received(dtype: Any) -> None:
    base = in_memory({"w": np.array([INF, NAN, 1.0, -INF], dtype)})
    taken = flatten({"w": np.array([NAN, NAN, NAN, 2.0], dtype)})
    sent = elements(narrow.outgoing_difference(taken, "Keep", base), dtype)
    np.testing.assert_array_equal(sent, [-0.0, -0.0, NAN, 2.0])
    assert np.signbit(sent[:2]).all()
    fine = flatten({"w": np.array([1.0, -0.0, 0.0, 2.0], dtype)})
    sent = elements(narrow.outgoing_difference(fine, "Keep", base), dtype)
    assert sent.tobytes() == np.array([1.0, -0.0, 0.0, 2.0], dtype).tobytes()
