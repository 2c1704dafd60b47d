"""Narrow types, against numpy's and ml_dtypes' own conversions and against exact fractions."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob.rounding import rounded_to, widened

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # a signalling NaN, in the checks
NARROW: list[Any] = [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


def every_number(dtype: Any) -> np.ndarray[Any, Any]:
    size = np.dtype(dtype).itemsize
    return np.arange(1 << 8 * size, dtype=f"u{size}").view(dtype)


def same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Bit by bit, but that any NaN is as good as another."""
    bits = f"u{a.dtype.itemsize}"
    nan = np.isnan(a.astype(np.float32)) & np.isnan(b.astype(np.float32))
    return a.dtype == b.dtype and bool(((a.view(bits) == b.view(bits)) | nan).all())


@pytest.mark.parametrize("dtype", NARROW)
def test_every_number_of_a_narrow_type_survives_being_widened_and_rounded(dtype: Any) -> None:
    numbers = every_number(dtype)
    assert same(widened(numbers).astype(np.float32), numbers.astype(np.float32))
    for wide in (np.float32, np.float64):
        assert same(rounded_to(numbers.astype(wide), np.dtype(dtype)), numbers)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_between_two_numbers_the_nearer_is_taken_and_on_a_tie_the_even_one(dtype: Any, wide: Any) -> None:
    numbers = every_number(dtype).astype(np.float64)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    lower, upper = numbers[:-1], numbers[1:]
    middle = ((lower + upper) / 2).astype(wide)
    kind = np.dtype(dtype)
    tie = rounded_to(middle, kind)
    assert (tie.view(f"u{kind.itemsize}") % 2 == 0).all()
    below, above = np.nextafter(middle, wide(-np.inf)), np.nextafter(middle, wide(np.inf))
    assert (rounded_to(below, kind).astype(np.float64) == lower).all()
    assert (rounded_to(above, kind).astype(np.float64) == upper).all()


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_any_float32_becomes_the_float16_that_numpy_makes_of_it(bits: list[int]) -> None:
    block = np.array(bits, np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        assert same(rounded_to(block, np.dtype(np.float16)), block.astype(np.float16))


def test_a_block_of_its_own_dtype_is_not_copied() -> None:
    block = np.arange(3.0)
    assert rounded_to(block, np.dtype(np.float64)) is block
    assert widened(block) is block
