"""The tensors of a tree as they lie in memory: what each is, and its bytes, read where they are.  PURE

A tensor that is not contiguous is gathered, and a GPU's is staged, a chunk at a time: none is ever copied whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import torch_module, unfit
from .dtypes import CODES, ITEM_BYTES, Bytes
from .errors import CodecError

_FORMS = {int: "int", float: "float"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor of a tree. form: torch, numpy, …; source: its bytes [start, stop); memory: equal where two share theirs."""

    dtype: str
    shape: tuple[int, ...]
    form: str
    source: Callable[[int, int], Bytes]
    memory: Any = None


def leaf(value: Any, path: tuple[str, ...]) -> Leaf:
    """A value as a tensor. path: where it is in its tree. Raises CodecError, with the next step, if it cannot travel."""
    torch = torch_module.loaded()
    is_tensor = torch is not None and isinstance(value, torch.Tensor)
    if why := unfit.tensor(torch, value) if is_tensor else unfit.other(value):
        raise CodecError(f"{where(path)}: {why}")
    return _torch_leaf(torch, value) if is_tensor else _numpy_leaf(value)


def _numpy_leaf(value: Any) -> Leaf:
    """An array, or a number of numpy or Python."""
    form = "scalar" if isinstance(value, np.generic) else _FORMS.get(type(value), "numpy")
    array = np.asarray(value, dtype=np.int64 if form == "int" else None)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    item = array.dtype.itemsize

    def source(start: int, stop: int) -> Bytes:
        if array.flags.c_contiguous:
            return array.reshape(-1).view(np.uint8)[start:stop].data
        a, b = start // item, -(-stop // item)
        gathered = np.concatenate(list(_gather(array, a, b)) or [array.reshape(-1)]).view(np.uint8)
        return gathered[start - a * item : stop - a * item].data

    return Leaf(CODES[array.dtype.name], array.shape, form, source)


def _torch_leaf(torch: Any, tensor: Any) -> Leaf:
    code = CODES[str(tensor.dtype).removeprefix("torch.")]
    live = tensor.detach().resolve_conj().resolve_neg()
    item, on_gpu = ITEM_BYTES[code], live.device.type == "cuda"

    def flat(a: int, b: int) -> Any:
        """Elements [a, b) as bytes, where they lie if they lie one after the other."""
        if live.is_contiguous():
            # Where there is one element, its strides may still be anything.
            return live.as_strided((live.numel(),), (1,))[a:b].view(torch.uint8)
        return torch.cat(list(_gather(live, a, b))).view(torch.uint8)

    def source(start: int, stop: int) -> Bytes:
        a, b = start // item, -(-stop // item)
        data = flat(a, b)[start - a * item : stop - a * item]
        if on_gpu:
            # Through pinned memory, which torch keeps and hands out again: a chunk at a time, at the bus's speed.
            staged = torch.empty(data.numel(), dtype=torch.uint8, pin_memory=True, device="cpu")
            staged.copy_(data)
            data = staged
        return data.cpu().numpy().data  # type: ignore[no-any-return]

    # One tensor under two names, as `state_dict` gives a tied weight.
    memory = (str(live.device), live.data_ptr(), code, tuple(live.shape), live.stride()) if live.numel() else None
    return Leaf(code, tuple(tensor.shape), "torch", source, memory)


def _gather(tensor: Any, a: int, b: int) -> Iterator[Any]:
    """Elements [a, b) of a tensor or array that is not contiguous, in row-major order, as flat pieces.

    Whole rows are copied together; a row that is wanted in part is taken apart in turn: never more is copied than asked for.
    """
    if tensor.ndim <= 1:
        yield tensor.reshape(-1)[a:b]
        return
    row = math.prod(tensor.shape[1:])
    first, last = -(-a // row), b // row
    if first > last:  # within one row
        yield from _gather(tensor[last], a - last * row, b - last * row)
        return
    if a < first * row:
        yield from _gather(tensor[first - 1], a - (first - 1) * row, row)
    if first < last:
        yield tensor[first:last].reshape(-1)
    if last * row < b:
        yield from _gather(tensor[last], 0, b - last * row)


def plain_bytes(value: Any) -> int:
    """Bytes of a plain tensor or array; 0 of anything else, which is not looked at."""
    torch = torch_module.loaded()
    if torch is not None and type(value) in (torch.Tensor, torch.nn.Parameter):
        return int(value.numel() * value.element_size())
    return value.nbytes if type(value) is np.ndarray else 0


def where(path: Sequence[str]) -> str:
    """A place in a tree, for a message."""
    return "/".join(path) or "the value itself"
