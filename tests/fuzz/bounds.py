"""Bounds on memory: what a parser may allocate, relative to what it was given."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


class TooMuchMemoryError(AssertionError):
    """A parser has allocated more than its bound."""


@contextmanager
def allocating_at_most(limit: int) -> Iterator[None]:
    """Fail if the peak of Python's and numpy's allocations inside the block is above `limit` bytes.

    Garbage of earlier tests is not collected inside: what its finalizers allocate, a traceback with its sources, is not the block's.
    """
    collects = gc.isenabled()
    gc.disable()
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not running:
            tracemalloc.stop()
        if collects:
            gc.enable()
    if peak > limit:
        raise TooMuchMemoryError(f"{peak} bytes allocated, allowed: {limit}")
