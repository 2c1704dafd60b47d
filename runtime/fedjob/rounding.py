"""Between float64, float32 and the narrower types: each number rounded once, to the nearest, at memory speed.  PURE

numpy converts float16 in software, ml_dtypes float8, at a twentieth of the network's rate where numbers are small, as differences
are. So the narrow types are widened by a table and float16 is rounded in integer arithmetic. ml_dtypes is quick for bfloat16.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Block = np.ndarray[Any, np.dtype[Any]]
_LOW = np.uint64((1 << 29) - 1)  # the bits of a float64 that a float32 lacks
_BY_FLOAT32 = frozenset({"float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"})


def widened(block: Block) -> Block:
    """A block of float16 or float8 in float32, which holds each of its numbers; any other block as it is."""
    if block.dtype.name == "bfloat16" or block.dtype.name not in _BY_FLOAT32:
        return block
    return np.take(_table(block.dtype), block.view(f"u{block.dtype.itemsize}"))


@cache
def _table(dtype: np.dtype[Any]) -> Block:
    """Every number of a narrow type, by its bits: 256 KiB for float16, which stay in a core's own cache."""
    bits = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
    return bits.view(dtype).astype(np.float32)


def rounded_to(block: Block, dtype: np.dtype[Any]) -> Block:
    """A block in another dtype, each element rounded once, to the nearest; contiguous. Beyond the largest: infinity or NaN."""
    if block.dtype == dtype:
        return np.ascontiguousarray(block)
    with np.errstate(over="ignore", invalid="ignore"):
        block = widened(block)
        if block.dtype == np.float64 and dtype.name in _BY_FLOAT32:
            block = _to_odd_float32(block)
        if dtype == np.float16 and block.dtype == np.float32:
            return _to_float16(block)
        return np.ascontiguousarray(block.astype(dtype, copy=False))


def _to_odd_float32(block: Block) -> Block:
    """float64 to float32 so that rounding once more, to a narrower type, gives what rounding at once would give.

    Rounding to nearest twice is wrong beside a tie. So what does not fit gets an odd last bit instead (Boldo, Melquiond: When
    double rounding is odd, 2005), which no tie has.
    """
    bits = block.view(np.uint64)
    odd = bits & _LOW
    odd += _LOW
    odd |= bits  # the last bit that stays is set if it was, or if any below it was
    odd &= ~_LOW
    wide = odd.view(np.float64)
    tiny = np.abs(block) < 2.0**-126  # float32 has fewer bits there; bfloat16 steps by 2^-133
    if tiny.any():
        wide[tiny] = np.rint(block[tiny] * 2.0**133) * 2.0**-133
    return wide.astype(np.float32)


def _to_float16(block: Block) -> Block:
    """float32 to float16, in integer arithmetic.

    Below 2^-14 float16 steps by 2^-24, which is float32's last bit between 1/2 and 1: adding 1/2 rounds to it. Above, half of the
    last bit that stays is added to the bits, less one where that bit is even, and the carry goes where it must.
    """
    bits = block.view(np.uint32)
    size = bits & np.uint32(0x7FFFFFFF)
    low = (size.view(np.float32) + np.float32(0.5)).view(np.uint32) - np.uint32(126 << 23)
    high = (size >> np.uint32(13)) & np.uint32(1)
    high += size
    high -= np.uint32((112 << 23) - 0xFFF)
    high >>= np.uint32(13)
    np.copyto(high, low, where=size < np.uint32(113 << 23))
    beyond = size >= np.uint32(143 << 23)
    if beyond.any():
        high[beyond] = np.where(size[beyond] > np.uint32(0x7F800000), np.uint32(0x7E00), np.uint32(0x7C00))
    high |= (bits >> np.uint32(16)) & np.uint32(0x8000)
    return high.astype(np.uint16).view(np.float16)
