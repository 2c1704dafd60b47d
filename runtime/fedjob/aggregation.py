"""All algebra a server needs, over stored trees: `mean` and `combine`.  PURE

Everything is accumulated in float64, in the order of site names, and rounded once when it is written. So the result has the
same bytes whatever the order of arrival, one client's update comes back unchanged, and N equal updates give that update.
Integers and bools are not averaged (half a step count means nothing): they are taken from the first site in name order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .codec import Layout, Spec, difference_between
from .dtypes import FLOATS
from .rounding import widened
from .trees import Block, Computed, Tree, finite

if TYPE_CHECKING:
    from .peers import Answer


def examples(answer: Answer) -> float:
    """Weight an update by the examples it was trained on: n_k."""
    return answer.num_examples


def uniform(_: Answer) -> float:
    """Weight every update alike."""
    return 1.0


def mean(answers: Iterable[Answer], part: str, *, by: Callable[[Answer], float] = examples) -> Tree:
    """The weighted mean of one part of some answers: x_1 - Σ p_k (x_1 - x_k), p_k = w_k / Σw.

    The form with differences is exact, in every dtype, where all x_k are equal or there is only one; the signs keep a -0.0.
    answers: at least one; their parts have one layout. by: an answer's weight, > 0.
    """
    ordered = sorted(answers, key=lambda a: a.sender)
    if not ordered:
        raise ValueError("mean of no answers")
    largest = max(by(a) for a in ordered)  # their sum may overflow, their ratios do not
    weights = [by(a) / largest for a in ordered]
    total = sum(weights)
    return weighted_mean([a.parts[part] for a in ordered], [w / total for w in weights])


def agree(answers: Sequence[Answer], part: str) -> bool:
    """Whether every answer has this part, with the same names, shapes and dtypes: what a mean of it needs."""
    trees = [a.parts.get(part) for a in answers]
    first = trees[0].layout if trees and trees[0] else None
    return first is not None and all(t is not None and not difference_between(first, t.layout) for t in trees)


def unlike(answers: Sequence[Answer], part: str) -> str:
    """Why a part that some answers have has no mean, by sites and tensors; "" if it has one, or if nobody has it."""
    ordered = sorted(answers, key=lambda a: a.sender)
    have = [a for a in ordered if part in a.parts]
    if have and len(have) < len(ordered):
        return f"{', '.join(a.sender for a in ordered if part not in a.parts)} sent none, {have[0].sender} did"
    for other in have[1:]:
        if difference := difference_between(have[0].parts[part].layout, other.parts[part].layout):
            return f"{other.sender} differs from {have[0].sender}: {difference}"
    return ""


def weighted_mean(trees: Sequence[Tree], shares: Sequence[float]) -> Tree:
    """Σ p_k x_k over trees of one layout; shares p_k sum to 1.

    Where an x_k is NaN or infinite, that is the mean: `acceptance` has seen to it that all such are what was sent out.
    """

    def block(spec: Spec, start: int, stop: int) -> Block:
        first = trees[0].read(spec, start, stop)
        if spec.dtype not in FLOATS:
            return first
        base = widened(first).astype(np.float64)
        total, scratch = base.copy(), np.empty_like(base)
        with np.errstate(over="ignore", invalid="ignore"):
            for tree, share in zip(trees[1:], shares[1:], strict=True):
                np.copyto(scratch, widened(tree.read(tree.layout.by_name[spec.name], start, stop)))  # then in place
                np.subtract(base, scratch, out=scratch)
                scratch *= share
                total -= scratch
        return total if finite(total) else _settled(total, spec, start, stop)

    def _settled(total: Block, spec: Spec, start: int, stop: int) -> Block:
        """What differences cannot give: infinity less infinity, and numbers so far apart that their difference overflows."""
        blocks = [widened(t.read(t.layout.by_name[spec.name], start, stop)).astype(np.float64) for t in trees]
        sums = sum(share * values for share, values in zip(shares, blocks, strict=True))
        np.copyto(total, sums, where=~np.isfinite(total))
        for values in blocks:
            np.copyto(total, values, where=~np.isfinite(values))
        return total

    return Computed(trees[0].layout, block)


def combine(function: Callable[..., Block], *trees: Tree, layout: Layout | None = None) -> Tree:
    """Element-wise `function` of float64 blocks of trees with one set of names; integers come from the first tree."""

    def block(spec: Spec, start: int, stop: int) -> Block:
        blocks = [t.read(t.layout.by_name[spec.name], start, stop) for t in trees]
        if spec.dtype not in FLOATS:
            return blocks[0]
        return function(*(widened(b).astype(np.float64) for b in blocks))

    return Computed(layout or trees[0].layout, block)
