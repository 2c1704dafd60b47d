"""The algebra's laws: what holds for every set of updates, in bits where bits are promised."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.aggregation import agree, combine, mean, uniform, unlike, weighted_mean
from fedjob.peers import Answer
from fedjob.stored import write, write_values
from fedjob.trees import BLOCK_ELEMENTS, in_memory

FLOATS: list[Any] = [
    np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("error")  # of numpy: overflow on the way to a mean is no news to anybody
LAW = settings(max_examples=50, deadline=None)
WEIGHTS = st.floats(1e-3, 1e6)


def answer(name: str, params: Any, examples: float = 1.0) -> Answer:
    return Answer(name, "Train", 0, num_examples=examples, parts={"params": in_memory(params)})


def values(folder: Path, tree: Any, name: str = "w") -> Any:
    """One tensor of a tree, after it was written: flat."""
    stored = write(folder / "out", tree)
    spec = stored.layout.by_name[name]
    return stored.read(spec, 0, spec.count)


def finite(dtype: Any, size: int, seed: int) -> Any:
    """Any finite bit patterns, zeros of both signs and subnormals among them, far enough from overflow to be subtracted."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, size * np.dtype(dtype).itemsize).astype(np.uint8).view(dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = raw.astype(np.float64)
        keep = np.isfinite(wide) & (np.abs(wide) < 1e300)
    special = np.array([0.0, -0.0, 1.0, -1.5]).astype(dtype)
    return np.concatenate([special, np.where(keep, raw, special[0])])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where results are written: each takes the place of the one before."""
    return tmp_path_factory.mktemp("mean")


# ---------------------------------------------------------------------------------------------------------- in bits


@LAW
@given(st.sampled_from(FLOATS), st.integers(0, 99), WEIGHTS)
def test_one_clients_update_comes_back_bit_for_bit(folder: Path, dtype: Any, seed: int, examples: float) -> None:
    update = finite(dtype, 200, seed)
    assert values(folder, mean([answer("a", {"w": update}, examples)], "params")).tobytes() == update.tobytes()


@LAW
@given(st.sampled_from(FLOATS), st.integers(0, 99), st.lists(WEIGHTS, min_size=2, max_size=6))
def test_equal_updates_give_that_update_bit_for_bit(folder: Path, dtype: Any, seed: int, weights: list[float]) -> None:
    update = finite(dtype, 200, seed)
    answers = [answer(f"s{k}", {"w": update}, w) for k, w in enumerate(weights)]
    assert values(folder, mean(answers, "params")).tobytes() == update.tobytes()


@LAW
@given(st.sampled_from(FLOATS), st.integers(0, 99), st.lists(WEIGHTS, min_size=2, max_size=4))
def test_any_order_of_arrival_gives_the_same_bits(folder: Path, dtype: Any, seed: int, weights: list[float]) -> None:
    answers = [answer(f"s{k}", {"w": finite(dtype, 40, seed + k)}, w) for k, w in enumerate(weights)]
    results = {values(folder, mean(order, "params")).tobytes() for order in itertools.permutations(answers)}
    assert len(results) == 1


def test_integers_and_bools_are_those_of_the_first_site_by_name(folder: Path) -> None:
    answers = [
        answer("b", {"w": np.zeros(1), "steps": np.array([9]), "mask": np.array([True])}),
        answer("a", {"w": np.ones(1), "steps": np.array([4]), "mask": np.array([False])}, examples=1000),
    ]
    tree = mean(answers, "params")
    assert values(folder, tree, "steps").tolist() == [4]
    assert values(folder, tree, "mask").tolist() == [False]


# ------------------------------------------------------------------------------------------------------ to rounding


def neighbours(exact: Fraction, slack: Fraction, dtype: Any) -> tuple[float, float]:
    """The roundings to `dtype` of what lies just below and just above an exact value."""
    return tuple(float(nearest(x, dtype)) for x in (exact - slack, exact + slack))  # type: ignore[return-value]


def nearest(exact: Fraction, dtype: Any) -> Fraction:
    """The number of a binary float type that is nearest to a fraction, ties to even: from the definition."""
    info = ml_dtypes.finfo(dtype)
    if exact == 0:
        return exact
    exponent = math.frexp(float(abs(exact)))[1] - 1 if float(abs(exact)) else -1074
    while Fraction(2) ** exponent > abs(exact):
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(exact):
        exponent += 1
    step = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    return round(exact / step) * step  # Python rounds ties of fractions to even


@LAW
@given(st.sampled_from(FLOATS), st.lists(st.tuples(WEIGHTS, st.lists(st.floats(-400, 400), min_size=3, max_size=3)),
                                         min_size=1, max_size=5))  # fmt: skip
def test_the_mean_is_the_exact_one_rounded_once(folder: Path, dtype: Any, sites: Any) -> None:
    """Against exact fractions: float64's own error, of some 2^-53 of the greatest value, is all that may come before."""
    updates = [(w, np.array(x).astype(dtype)) for w, x in sites]
    got = values(folder, mean([answer(f"s{k}", {"w": x}, w) for k, (w, x) in enumerate(updates)], "params"))
    total = sum(Fraction(w) for w, _ in updates)
    for i in range(3):
        exact = sum((Fraction(w) * Fraction(float(x[i])) for w, x in updates), Fraction(0)) / total
        slack = Fraction(max(abs(float(x[i])) for _, x in updates)) * len(updates) * Fraction(1, 2**50)
        low, high = neighbours(exact, slack, dtype)
        assert low <= float(got[i]) <= high


def test_a_half_precision_mean_is_not_rounded_to_half_on_the_way(folder: Path) -> None:
    """Half way between 1 and its neighbour is a tie; ever so slightly less weight for either decides it."""
    one, next_one = np.ones(1, ml_dtypes.bfloat16), np.full(1, 1 + 2**-7, ml_dtypes.bfloat16)
    for examples, expected in [(3.0, 1.0), (1.0000001, 1.0), (0.9999999, 1 + 2**-7)]:
        tree = mean([answer("a", {"w": one}, examples), answer("b", {"w": next_one})], "params")
        assert float(values(folder, tree)[0]) == expected


def test_the_mean_is_weighted_by_examples_unless_it_is_uniform(folder: Path) -> None:
    answers = [answer("a", {"w": np.zeros(1)}, 3), answer("b", {"w": np.full(1, 8.0)}, 1)]
    assert values(folder, mean(answers, "params")).tolist() == [2.0]
    assert values(folder, mean(answers, "params", by=uniform)).tolist() == [4.0]


def test_tensors_longer_than_a_block_are_averaged_to_their_end(folder: Path) -> None:
    a = np.arange(BLOCK_ELEMENTS + 5, dtype=np.float32)
    assert np.array_equal(values(folder, mean([answer("a", {"w": a}), answer("b", {"w": a + 2})], "params")), a + 1)


def test_updates_that_list_their_tensors_in_another_order_are_averaged_by_name(tmp_path: Path) -> None:
    a = {"w": np.zeros(2), "v": np.full(2, 10.0)}
    b = {"v": np.full(2, 20.0), "w": np.ones(2)}
    stored = {name: write_values(tmp_path / name, tree) for name, tree in (("a", a), ("b", b))}
    tree = mean([Answer(name, "Train", 0, parts={"params": s}) for name, s in stored.items()], "params")
    assert values(tmp_path, tree).tolist() == [0.5, 0.5]
    assert values(tmp_path, tree, "v").tolist() == [15.0, 15.0]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weights", [[1.0], [1.0, 3.0, 2.0], [1e300, 1.0]])
def test_the_mean_of_what_is_not_finite_is_that_value(folder: Path, odd: float, weights: list[float]) -> None:
    """Also where a site has made a number of it: nothing finite lies between."""
    models = [np.array([odd, 1.0, odd if k else 7.0]) for k in range(len(weights))]
    mean_of = values(
        folder,
        mean([answer(f"s{k}", {"w": m}, n) for k, (m, n) in enumerate(zip(models, weights, strict=True))], "params"),
    )
    np.testing.assert_array_equal(mean_of, [odd, 1.0, odd if len(weights) > 1 else 7.0])


def test_equal_numbers_beside_one_that_is_not_finite_come_back_bit_for_bit(folder: Path) -> None:
    model = np.array([np.nan, *np.linspace(0.1, 0.9, 99)])
    answers = [answer(f"s{k}", {"w": model}, n) for k, n in enumerate([1.0, 3.0, 7.0])]
    assert values(folder, mean(answers, "params")).tobytes() == model.tobytes()


def test_the_mean_of_the_largest_numbers_is_finite(folder: Path) -> None:
    """Their differences are not."""
    big = np.finfo(np.float64).max
    got = values(
        folder, mean([answer("a", {"w": np.array([big, -big])}), answer("b", {"w": np.array([-big, -big])})], "params")
    )
    assert got.tolist() == [0.0, -big]


@pytest.mark.parametrize("weights", [[3.0, 3.0], [1e308, 1e308], [5e-324, 5e-324], [1e300, 1e-300]])
def test_weights_of_any_size_are_shares(folder: Path, weights: list[float]) -> None:
    models = [np.array([1.0, -4.0]), np.array([3.0, 8.0])]
    got = values(
        folder,
        mean([answer(f"s{k}", {"w": m}, n) for k, (m, n) in enumerate(zip(models, weights, strict=True))], "params"),
    )
    expected = [2.0, 2.0] if weights[0] == weights[1] else [1.0, -4.0]
    assert got.tolist() == expected


def test_uniform_counts_a_site_as_one_whatever_it_was_trained_on() -> None:
    assert uniform(answer("a", {}, 12.5)) == 1.0


def test_each_tree_of_a_mean_has_its_share() -> None:
    trees = [in_memory({"w": np.full(1, x)}) for x in (0.0, 8.0)]
    spec = trees[0].layout.specs[0]
    assert weighted_mean(trees, [0.25, 0.75]).read(spec, 0, 1).tolist() == [6.0]
    for shares in ([1.0], [0.5, 0.25, 0.25]):
        with pytest.raises(ValueError, match="argument 2 is"):
            weighted_mean(trees, shares).read(spec, 0, 1)


def test_a_mean_of_nothing_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="mean of no answers"):
        mean([], "params")


def test_a_mean_holds_no_tensor_and_reads_its_updates_when_it_is_written(tmp_path: Path) -> None:
    """The updates' files may change their owner, but not go, before that."""
    stored = write_values(tmp_path / "update", {"w": np.full(3, 7.0)})
    tree = mean([Answer("a", "Train", 0, parts={"params": stored})], "params")
    assert tree.stored is None  # type: ignore[attr-defined]
    first = write(tmp_path / "model", tree)
    (tmp_path / "update").write_bytes(b"")
    assert tree.read(tree.layout.specs[0], 0, 3).tolist() == [7.0] * 3
    assert write(tmp_path / "model-2", tree).digest == first.digest


# ----------------------------------------------------------------------------------------------------------- combine


@LAW
@given(st.sampled_from([np.float64, np.float32, np.float16, ml_dtypes.bfloat16]), st.integers(0, 99))
def test_the_base_plus_a_difference_is_the_full_update_up_to_rounding(folder: Path, dtype: Any, seed: int) -> None:
    """w + (x - w) is x, but for two roundings: of the difference and of the sum."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=50).astype(dtype)
    full = (base.astype(np.float64) + rng.normal(scale=0.01, size=50)).astype(dtype)
    difference = (full.astype(np.float64) - base.astype(np.float64)).astype(dtype)
    layout = in_memory({"w": base}).layout
    tree = combine(lambda d, w: w + d, in_memory({"w": difference}), in_memory({"w": base}), layout=layout)
    error = np.abs(values(folder, tree).astype(np.float64) - full.astype(np.float64))
    sizes = np.abs(full.astype(np.float64)) + np.abs(difference.astype(np.float64))
    assert np.all(error <= float(ml_dtypes.finfo(dtype).eps) * sizes)


def test_combine_takes_integers_from_the_first_tree(folder: Path) -> None:
    a, b = in_memory({"w": np.ones(2), "n": np.array([5])}), in_memory({"w": np.ones(2), "n": np.array([7])})
    tree = combine(lambda x, y: x + y, a, b)
    assert values(folder, tree).tolist() == [2, 2]
    assert values(folder, tree, "n").tolist() == [5]


def test_computed_trees_nest_without_rounding_in_between(folder: Path) -> None:
    """(1 + 2^-30) - 1 is lost in float32, and is not lost here."""
    one = in_memory({"w": np.ones(1, np.float32)})
    little_more = combine(lambda x: x + 2.0**-30, one)
    assert values(folder, combine(lambda x, y: x - y, little_more, one)).tolist() == [2.0**-30]


# ------------------------------------------------------------------------------------------------------------- agree


@pytest.mark.parametrize(
    ("trees", "expected"),
    [
        pytest.param([{"w": np.zeros(2)}, {"w": np.ones(2)}], True, id="equal layouts agree"),
        pytest.param([{"w": np.zeros(2)}, {"w": np.zeros(3)}], False, id="another shape does not"),
        pytest.param([{"w": np.zeros(2)}, {"w": np.zeros(2, "f4")}], False, id="another dtype does not"),
        pytest.param([{"w": np.zeros(2)}, {"v": np.zeros(2)}], False, id="another name does not"),
        pytest.param([{"w": np.zeros(2)}, None], False, id="a site without the part does not"),
        pytest.param([None, {"w": np.zeros(2)}], False, id="a first site without the part does not"),
        pytest.param([], False, id="nobody agrees on nothing"),
    ],
)
def test_a_part_can_be_averaged_where_every_answer_has_it_alike(trees: list[Any], expected: bool) -> None:
    answers = [Answer(f"s{k}", "Train", 0, parts={"o": in_memory(t)} if t else {}) for k, t in enumerate(trees)]
    assert agree(answers, "o") is expected


@pytest.mark.parametrize(
    ("trees", "why"),
    [
        pytest.param([None, None], "", id="nobody has it"),
        pytest.param([{"m": np.zeros(2)}, {"m": np.ones(2)}], "", id="all have it alike"),
        pytest.param([{"m": np.zeros(2)}, None, None], "s1, s2 sent none, s0 did", id="some have none"),
        pytest.param([{"m": np.zeros(2)}, {"m": np.zeros(2)}, {"m": np.zeros(3)}],
                     "s2 differs from s0: 'm' is F64 [3], expected F64 [2]", id="one differs"),
    ],
)  # fmt: skip
def test_why_a_part_has_no_mean_names_the_sites_and_the_tensor(trees: list[Any], why: str) -> None:
    answers = [Answer(f"s{k}", "Train", 0, parts={"o": in_memory(t)} if t else {}) for k, t in enumerate(trees)]
    assert unlike(answers[::-1], "o") == why
