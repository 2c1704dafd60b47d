"""What of a model crosses the wire: which tensors, and in which dtype.  PURE

Theory of operation
-------------------
A tensor has up to three dtypes. Its *own* is the one in a script's hands and in the final model. Between rounds the server
keeps a *master* of it, in float32 where its own is narrower: a step that is too small for bfloat16 must not be lost, it may
add up over rounds. On the *wire* it is its own again, or the narrower one that `spec.model.exchange.dtype` names. A file
notes a tensor's own dtype where the file's is another, so every form can be made from every other without a second source.

Nothing here rounds a master. Each form is a tree over another that is rounded once, block by block, when it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from . import skeleton
from .api.globs import fits_name
from .codec import Chosen, Layout, Outflow, Spec, own_dtypes
from .dtypes import FLOATS, ITEM_BYTES, Bytes, numpy_dtype
from .errors import OutOfRange
from .rounding import rounded_to, widened
from .trees import Block, Computed, Tree, blocks, finite, laid_out

KEEP = "Keep"
MASTER = "F32"  # the narrowest dtype of a tensor that is summed over rounds


def chooser(patterns: Sequence[str]) -> Chosen | None:
    """Which names travel: those that a pattern fits, or all if none names any, without those that a pattern with `!` fits.

    None where every name travels.
    """
    wanted = [p for p in patterns if not p.startswith("!")]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]

    def travels(name: str) -> bool:
        fits = not wanted or any(fits_name(p, name) for p in wanted)
        return fits and not any(fits_name(p, name) for p in unwanted)

    return travels if patterns else None


def included(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that travel, in their order, see `chooser`."""
    travels = chooser(patterns)
    return [name for name in names if travels is None or travels(name)]


def choosing(patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns that choose, without those that exclude."""
    return tuple(pattern for pattern in patterns if not pattern.startswith("!"))


def idle(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The patterns that fit no name: each is a mistake in the job."""
    return [pattern for pattern in patterns if not any(fits_name(pattern.removeprefix("!"), name) for name in names)]


def wire_dtype(dtype: str, shape: Sequence[int], limit: str) -> str:
    """The dtype in which a tensor travels. limit: a dtype, or Keep. A number alone would save nothing, and stays."""
    if limit == KEEP or not shape or dtype not in FLOATS or ITEM_BYTES[dtype] <= ITEM_BYTES[limit]:
        return dtype
    return limit


def master_dtype(dtype: str) -> str:
    """The dtype in which the server keeps a tensor between rounds."""
    return MASTER if dtype in FLOATS and ITEM_BYTES[dtype] < ITEM_BYTES[MASTER] else dtype


# --------------------------------------------------------------------------------------------------- forms of a model


def master_form(model: Tree, patterns: Sequence[str] = ()) -> Tree:
    """The included tensors as the server keeps them: `model` itself where that changes nothing."""
    own = _own(model.layout)
    chosen = {name: master_dtype(own[name]) for name in included(model.layout.by_name, patterns)}
    return _recast(model, chosen, own)


def wire_form(master: Tree, limit: str) -> Tree:
    """A master as it goes out: `master` itself where that changes nothing.

    limit: see `wire_dtype`. Reading it raises OutOfRange for a value that the wire's dtype cannot hold.
    """
    own = _own(master.layout)
    chosen = {s.name: wire_dtype(own[s.name], s.shape, limit) for s in master.layout.specs}
    narrow = _recast(master, chosen, own)
    if narrow is master:
        return master

    def read(spec: Spec, start: int, stop: int) -> Block:
        block = narrow.read(spec, start, stop)
        if not fits(block, spec.dtype) and not fits(_finite_part(block, block), spec.dtype):
            raise OutOfRange(
                f"{spec.name!r} holds a number beyond {largest(spec.dtype):.4g}, the largest of {spec.dtype}, in which it "
                f"travels (spec.model.exchange.dtype)"
            )
        return block

    return Computed(narrow.layout, read)


def own_form(master: Tree) -> Tree:
    """A master as a script has it and as it is published: `master` itself where that changes nothing."""
    own = _own(master.layout)
    return _recast(master, own, own)


def laid_over(rest: Tree, part: Tree) -> Tree:
    """`rest`, with the tensors that `part` has taken from there, in the rest's own dtypes."""
    inner = part.layout.by_name

    def read(spec: Spec, start: int, stop: int) -> Block:
        return part.read(inner[spec.name], start, stop) if spec.name in inner else rest.read(spec, start, stop)

    return Computed(rest.layout, read)


def own_size(layout: Layout) -> int:
    """Bytes of these tensors in their own dtypes."""
    own = _own(layout)
    return relaid(layout, own, own).data_size


def _own(layout: Layout) -> dict[str, str]:
    noted = own_dtypes(layout)
    return {s.name: noted.get(s.name, s.dtype) for s in layout.specs}


def _recast(tree: Tree, dtypes: Mapping[str, str], own: Mapping[str, str]) -> Tree:
    layout = relaid(tree.layout, dtypes, own)
    return tree if layout is tree.layout else laid_out(tree, layout)


# ------------------------------------------------------------------------------------------------- what a script sends


def outgoing(new: Outflow, limit: str, base: Tree | None = None) -> Outflow:
    """How a script's tensors are sent: each rounded once to its wire dtype, as it is read.

    base: what the script received, on the wire; then it is the difference from there that is sent, of floating-point
    tensors: half a count means nothing. It must have what is sent (`codec.difference_between`).
    """
    return _sent(new, limit, base, _minus)


def outgoing_difference(difference: Outflow, limit: str, base: Tree) -> Outflow:
    """As `outgoing`, of differences that a script took itself: infinity less infinity is NaN there, and is sent as no change.

    base: what the script received, on the wire; what it has not goes as it is.
    """
    return _sent(difference, limit, base, _unchanged)


Change = Callable[[Block, Callable[[], Block]], Block]  # of a block, and of what was received in its place


def _sent(new: Outflow, limit: str, base: Tree | None, change: Change) -> Outflow:
    chosen = {s.name: wire_dtype(s.dtype, s.shape, limit) for s in new.layout.specs}
    layout = relaid(new.layout, chosen, chosen)
    if layout is new.layout and base is None:
        return new
    given = {spec.name: (spec, source) for spec, source in new.sources}
    return replace(
        new,
        layout=layout,
        sources=tuple((spec, _source(*given[spec.name], spec, base, change)) for spec in layout.data_order),
    )


def _source(
    have: Spec, read: Callable[[int, int], Bytes], want: Spec, base: Tree | None, change: Change
) -> Callable[[int, int], Bytes]:
    wide, item = ITEM_BYTES[have.dtype], ITEM_BYTES[want.dtype]
    there = base.layout.by_name.get(want.name) if base is not None and have.dtype in FLOATS else None
    origin = base if there is not None and there.shape == want.shape else None
    if have.dtype == want.dtype and origin is None:
        return read

    def source(start: int, stop: int) -> Bytes:
        a, b = start // item, -(-stop // item)  # whole elements around what is wanted
        block = np.frombuffer(read(a * wide, b * wide), numpy_dtype(have.dtype))
        if origin is not None:
            block = change(block, lambda: origin.read(origin.layout.by_name[want.name], a, b))
        return rounded(block, want.dtype).view(np.uint8)[start - a * item : stop - a * item].data

    return source


def _unchanged(difference: Block, base: Callable[[], Block]) -> Block:
    """A difference with -0, no change, where it is NaN because what it was taken from is NaN or infinite."""
    if finite(difference):
        return difference
    wide = widened(difference)
    return np.where(np.isnan(wide) & ~np.isfinite(widened(base())), wide.dtype.type(-0.0), wide)


def _minus(new: Block, received: Callable[[], Block]) -> Block:
    """new - base, as -(base - new): then no change is -0, and adding it leaves every bit of any number, also of a -0."""
    wide = np.float64 if new.dtype == np.float64 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        new, base = widened(new), widened(received())
        difference = np.subtract(base, new, dtype=wide)
        if not finite(difference):  # infinity less the same infinity is no change either
            np.copyto(difference, 0.0, where=~np.isfinite(new) & ((new == base) | (np.isnan(new) & np.isnan(base))))
        return np.negative(difference, out=difference)


# ------------------------------------------------------------------------------------------------------------- layouts


def relaid(layout: Layout, dtypes: Mapping[str, str], own: Mapping[str, str]) -> Layout:
    """The layout of the tensors that `dtypes` names, in those dtypes; `layout` itself if that is what it is.

    own: a tensor's dtype in a script; noted where it is another. The data are ordered as `codec.flatten` orders them.
    """
    specs = [s for s in layout.specs if s.name in dtypes]
    noted = {s.name: own[s.name] for s in specs if own[s.name] != dtypes[s.name]}
    same = len(specs) == len(layout.specs) and all(dtypes[s.name] == s.dtype for s in specs)
    if same and noted == own_dtypes(layout):
        return layout
    placed, at = {}, 0
    for s in sorted(specs, key=lambda s: -ITEM_BYTES[dtypes[s.name]]):
        size = s.count * ITEM_BYTES[dtypes[s.name]]
        placed[s.name] = Spec(s.name, dtypes[s.name], s.shape, at, at + size)
        at += size
    return replace(layout, specs=tuple(placed[s.name] for s in specs), skeleton=_skeleton(layout, placed, noted))


def _skeleton(layout: Layout, kept: Mapping[str, Spec], noted: Mapping[str, str]) -> str:
    """The skeleton of the tensors that stay. A flat dict that had none gets one only while something is to be noted."""
    if not layout.skeleton and not noted:
        return ""
    root = json.loads(layout.skeleton) if layout.skeleton else skeleton.plain(layout.by_name)
    left = skeleton.pruned(root, kept, noted) or {"d": []}
    return "" if skeleton.is_plain(left) else json.dumps(left, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------------------ elements


def fits(block: Block, dtype: str) -> bool:
    """Whether a dtype can hold every value of a block: no NaN, no infinity, nothing beyond its largest number."""
    if dtype not in FLOATS or not block.size:
        return True
    most, block = largest(dtype), widened(block)
    return bool(-most <= block.min() and block.max() <= most)  # False for NaN, which min and max hand on


@cache
def largest(dtype: str) -> float:
    """The largest number of a floating dtype."""
    import ml_dtypes

    return float(ml_dtypes.finfo(numpy_dtype(dtype)).max)  # type: ignore[no-untyped-call]


def first_beyond(tree: Tree, before: Tree, layout: Layout) -> str | None:
    """Name of the first tensor with a value that its dtype in `layout` cannot hold; None if there is none.

    before: what `tree` was made of; where that was not finite, nothing can be.
    """
    for spec in layout.data_order:
        source, origin = tree.layout.by_name[spec.name], before.layout.by_name[spec.name]
        for block in blocks(spec) if spec.dtype in FLOATS else ():
            values = tree.read(source, *block)
            if not fits(values, spec.dtype) and not fits(_finite_part(values, before.read(origin, *block)), spec.dtype):
                return spec.name
    return None


def _finite_part(block: Block, before: Block) -> Block:
    """A block with zeros where `before` is NaN or infinite."""
    return np.where(np.isfinite(widened(before).astype(np.float64)), widened(block), 0)


def rounded(block: Block, dtype: str) -> Block:
    """A block in another dtype, see `rounding.rounded_to`."""
    return rounded_to(block, numpy_dtype(dtype))
