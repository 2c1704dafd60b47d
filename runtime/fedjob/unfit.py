"""Why a value cannot travel as a tensor, and what to send instead.  PURE

What would arrive as something else is refused as well: a mask that is lost, a class that nobody can make again.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from . import tuples
from .dtypes import CODES

_DENSE = f"send a dense tensor of {', '.join(CODES)}"
_INSTEAD = {  # classes of tensors and arrays, by name: their libraries need not be here
    "DTensor": "it lies on several devices; send value.full_tensor()",
    "FakeTensor": "it holds no data; make the model outside of FakeTensorMode",
    "MaskedTensor": "its mask would be lost; send value.to_tensor(0)",
    "MaskedArray": "its mask would be lost; send value.filled(0)",
    "NestedTensor": "its rows differ in length; send torch.nested.to_padded_tensor(value, 0.0)",
    "DataFrame": "send value.to_numpy()",
    "Series": "send value.to_numpy()",
}
_PLAIN_ARRAYS = (np.ndarray, np.memmap)


def tensor(torch: Any, value: Any) -> str:
    """Why a torch tensor cannot travel, as a phrase with the next step; "" if it can. Reads no element."""
    kind = type(value).__name__
    if torch.nn.parameter.is_lazy(value):
        return f"{_a(kind)} cannot travel: it has no shape yet; run one batch through the model first"
    if type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:  # its elements are not in its own memory
        instead = _INSTEAD.get(kind, "send the plain tensors that it is made of")
        return f"{_a(kind)} cannot travel: {instead}"
    if value.is_nested:
        return f"a nested tensor cannot travel: {_INSTEAD['NestedTensor']}"
    what = f"a {value.layout} tensor of {value.dtype} on {value.device} cannot travel"
    if value.layout != torch.strided:
        return f"{what}: send value.to_dense()"
    if value.device.type == "meta":
        return f"{what}: it holds no data; load or initialise the model first"
    if value.is_quantized:
        return f"{what}: send value.dequantize()"
    if value.is_complex():
        return f"{what}: send torch.view_as_real(value)"
    if str(value.dtype).removeprefix("torch.") not in CODES:
        return f"{what}: {_DENSE}"
    reach = (
        value.storage_offset() + sum((n - 1) * step for n, step in zip(value.shape, value.stride(), strict=True)) + 1
    )
    if value.numel() and value.untyped_storage().nbytes() < reach * value.element_size():
        return f"{what}: its memory has been released; gather the whole parameters first (FSDP: full_state_dict)"
    return ""


def other(value: Any) -> str:
    """Why a value that is no torch tensor cannot travel, as a phrase with the next step; "" if it can."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray | np.generic):
        return _array(value, kind)
    if type(value) is int:
        fits = -(1 << 63) <= value < 1 << 63
        return "" if fits else f"a whole number of {value.bit_length()} bits does not fit in 64 with a sign"
    if type(value) is float:
        return ""
    return f"{_a(kind)} cannot travel: {_advice(value, kind)}"


def container(value: list[Any] | tuple[Any, ...]) -> str:
    """Why a list or tuple cannot travel: it is of a class of its own. "" if it can."""
    if type(value) in (list, tuple):
        return ""
    plain = "list" if isinstance(value, list) else "tuple"
    return f"{_a(type(value).__name__)} cannot travel: it would arrive as a {plain}; send {plain}(value)"


def named_tuple(value: Any) -> str:
    """Why a named tuple cannot travel: where it arrives nobody could find its class. "" if it can."""
    kind = type(value)
    if tuples.name_of(kind):
        return ""
    step = "define its class at the top of a module, or send value._asdict()"
    return f"{_a(kind.__name__)} cannot travel: its class cannot be found by name; {step}"


def _array(value: Any, kind: str) -> str:
    dtype = value.dtype
    if dtype.name not in CODES:
        return f"dtype {dtype} cannot travel: {_dtype_advice(dtype)}"
    if isinstance(value, np.ndarray) and type(value) not in _PLAIN_ARRAYS:
        instead = _INSTEAD.get(kind, "it would arrive as a plain array; send numpy.array(value)")
        return f"{_a(kind)} cannot travel: {instead}"
    return ""


def _dtype_advice(dtype: np.dtype[Any]) -> str:
    if dtype.names:
        return "send each of its fields as an array of its own"
    if dtype.kind == "O":
        return "its items are Python objects; send an array of numbers"
    if dtype.kind in "mM":
        return "send value.astype('int64')"
    if dtype.kind == "c":
        return "send value.real and value.imag"
    if dtype.kind == "f":
        return "send value.astype('float64')"
    return f"allowed: {', '.join(CODES)}"


def _advice(value: Any, kind: str) -> str:
    if kind in _INSTEAD:
        return _INSTEAD[kind]
    if isinstance(value, bool | int | float | str):
        return f"it would arrive as a plain {_plain(value)}; send {_plain(value)}(value)"
    if isinstance(value, complex):
        return "send value.real and value.imag"
    if hasattr(value, "state_dict"):
        return "send value.state_dict()"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "send its fields as a dict"
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
        return "send numpy.asarray(value)"
    return "send tensors, arrays, numbers, strings"


def _plain(value: Any) -> str:
    return next(kind.__name__ for kind in (int, float, str) if isinstance(value, kind))


def _a(kind: str) -> str:
    return f"{'an' if kind.lower().startswith(('a', 'e', 'i', 'o', 'un')) else 'a'} {kind}"
