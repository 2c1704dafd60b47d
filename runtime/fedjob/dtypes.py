"""The dtypes that travel: their codes in a file, their sizes, and numpy's and torch's names for them.  PURE"""

from __future__ import annotations

from typing import Any

import numpy as np

Bytes = bytes | bytearray | memoryview

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
NAMES = {  # torch, numpy and ml_dtypes agree on these names
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
CODES = {name: code for code, name in NAMES.items()}


def numpy_dtype(code: str) -> np.dtype[Any]:
    """numpy's dtype of a safetensors dtype code; ml_dtypes supplies bfloat16 and float8."""
    if code in ("BF16", "F8_E4M3", "F8_E5M2"):
        import ml_dtypes  # imported only where such tensors are: 30 ms

        special: np.dtype[Any] = np.dtype(getattr(ml_dtypes, NAMES[code]))
        return special
    return np.dtype(NAMES[code])
