"""Trees of tensors that are read block by block and never held whole.  PURE

A tree is in a file (`stored.Stored`) or computed from other trees when it is written; who reads it cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .codec import Layout, Outflow, Spec, flatten
from .dtypes import FLOATS, ITEM_BYTES, numpy_dtype
from .rounding import widened

Block = np.ndarray[Any, np.dtype[Any]]
BLOCK_ELEMENTS = (
    1 << 15
)  # float64 scratch of 256 KiB: three of them stay in a core's own cache; at 2 MiB half the speed


class Tree(Protocol):
    """Named tensors with a layout, read in flat blocks."""

    @property
    def layout(self) -> Layout:
        """What there is, and where in the file it lies or would lie."""

    def read(self, spec: Spec, start: int, stop: int) -> Block:
        """Elements [start, stop) of one tensor, flat: in its dtype, or in another from which who writes them rounds."""


@dataclass
class Computed:
    """A tree defined by a function of blocks, evaluated when it is written; afterwards it is read from that file.

    compute: as `Tree.read`. Workflows build these; a checkpoint makes them `Stored`, in one pass over their sources.
    """

    layout: Layout
    compute: Callable[[Spec, int, int], Block]
    stored: Tree | None = field(default=None, compare=False)

    def read(self, spec: Spec, start: int, stop: int) -> Block:
        """See `Tree.read`."""
        if self.stored is not None:
            return self.stored.read(spec, start, stop)
        return self.compute(spec, start, stop)


def in_memory(values: Any) -> Computed:
    """A tree of live tensors or arrays as a `Tree`; nothing is copied until it is read."""
    return flowing(flatten(values))


def flowing(outflow: Outflow) -> Computed:
    """What is ready to be sent as a `Tree`."""
    sources = {spec.name: source for spec, source in outflow.sources}

    def compute(spec: Spec, start: int, stop: int) -> Block:
        item = ITEM_BYTES[spec.dtype]
        return np.frombuffer(sources[spec.name](start * item, stop * item), numpy_dtype(spec.dtype))

    return Computed(outflow.layout, compute)


def laid_out(tree: Tree, layout: Layout) -> Tree:
    """Tensors of a tree under another layout of the same shapes; where a dtype differs, who writes it rounds."""
    return Computed(layout, lambda spec, start, stop: tree.read(tree.layout.by_name[spec.name], start, stop))


def blocks(spec: Spec) -> Iterator[tuple[int, int]]:
    """A tensor's elements as ranges of a block each."""
    for start in range(0, spec.count, BLOCK_ELEMENTS):
        yield start, min(start + BLOCK_ELEMENTS, spec.count)


def not_finite(tree: Tree) -> list[str]:
    """Names of the tensors, in the order of the data, that hold NaN or infinity."""
    floats = [spec for spec in tree.layout.data_order if spec.dtype in FLOATS]
    return [spec.name for spec in floats if any(not finite(tree.read(spec, *block)) for block in blocks(spec))]


def as_sent(tree: Tree, sent: Tree, name: str) -> bool:
    """Whether each NaN and infinity of a tensor is what was sent out in its place. Both have one shape."""
    spec, origin = tree.layout.by_name[name], sent.layout.by_name[name]
    return all(_odd_ones_alike(tree.read(spec, *block), sent.read(origin, *block)) for block in blocks(spec))


def _odd_ones_alike(block: Block, sent: Block) -> bool:
    if finite(block):
        return True
    ours, theirs = widened(block).astype(np.float64), widened(sent).astype(np.float64)
    return bool((np.isfinite(ours) | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))).all())


def finite(block: Block) -> bool:
    """Whether a block of floating-point numbers holds neither NaN nor infinity."""
    if block.dtype in (np.float32, np.float64):
        # A sum shows a NaN at once and needs no scratch; overflow also looks infinite, so ask exactly then.
        with np.errstate(all="ignore"):
            return bool(np.isfinite(block.sum()) or np.isfinite(block).all())
    if block.dtype == np.float16:
        return bool(np.isfinite(block).all())
    return bool(np.isfinite(widened(block).astype(np.float32, copy=False)).all())  # bfloat16, float8
