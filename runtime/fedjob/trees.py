"""Trees of tensors that are read block by block and never held whole.  PURE

A tree is in a file (`stored.Stored`) or computed from other trees when it is written; who reads it cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable
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


def first_not_finite(tree: Tree) -> str | None:
    """Name of the first tensor, in the order of the data, that holds NaN or infinity; None if there is none."""
    for spec in tree.layout.data_order:
        if spec.dtype in FLOATS:
            for start in range(0, spec.count, BLOCK_ELEMENTS):
                if not finite(tree.read(spec, start, min(start + BLOCK_ELEMENTS, spec.count))):
                    return spec.name
    return None


def finite(block: Block) -> bool:
    """Whether a block of floating-point numbers holds neither NaN nor infinity."""
    if block.dtype in (np.float32, np.float64):
        # A sum shows a NaN at once and needs no scratch; overflow also looks infinite, so ask exactly then.
        with np.errstate(all="ignore"):
            return bool(np.isfinite(block.sum()) or np.isfinite(block).all())
    if block.dtype == np.float16:
        return bool(np.isfinite(block).all())
    return bool(np.isfinite(widened(block).astype(np.float32, copy=False)).all())  # bfloat16, float8
