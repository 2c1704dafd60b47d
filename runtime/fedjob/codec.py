"""Trees of tensors as safetensors files, streamed straight from and into the tensors' own memory.  PURE

Theory of operation
-------------------
Everything that holds tensors, on the wire and on disk, is one safetensors file::

    8 bytes little-endian N | N bytes JSON header | data
                              name -> {dtype, shape, data_offsets}

so a finished model is loaded by any safetensors reader, in any language. What safetensors has no word for (nesting, order,
Python numbers, whether a tensor was torch's or numpy's) is one JSON text under `__metadata__.fedjob`: the *skeleton*, the
tree with each tensor replaced by its name. A file without a skeleton is a flat dict. A tensor that is narrower or wider here
than in the script's hands has its *own* dtype noted there too; where that is wider, `Inflow` gives it back in that one.

No function here holds more than one copy of anything: `Outflow.read` hands out slices of live tensors, gathered where they are
not contiguous and staged where they are a GPU's; `Inflow.write` copies arriving bytes to where they belong. Tensors that share
their memory (tied weights) travel under each name, so that every reader finds them, and share it again where they arrive.
"""

from __future__ import annotations

import bisect
import json
import math
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import skeleton
from .errors import CodecError
from .rounding import widened

if sys.byteorder != "little":  # safetensors is little-endian; no big-endian machine trains models
    raise ImportError("fedjob runs on little-endian machines only")

Bytes = bytes | bytearray | memoryview

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
MAX_HEADER_BYTES = 100 << 20  # the reference reader's own limit
_WIDEN_ELEMENTS = 1 << 18  # scratch of 1 MiB: 7 GiB/s of bfloat16 (measured)
MAX_DEPTH = 100  # far below Python's recursion limit, far above an optimizer's state (4)
_DTYPE = {  # torch, numpy and ml_dtypes agree on these names

    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CODE_OF = {name: code for code, name in _DTYPE.items()}
_NUMERIC = frozenset({"int", "float", "scalar"})  # forms of one number, in a tensor without dimensions


@dataclass(frozen=True, slots=True)
class Spec:
    """One tensor of a file: where it lies and what it is. `start` and `stop` count bytes of the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The header of a file. `specs` in the order of the tree; `skeleton` JSON or "" for a flat dict."""

    specs: tuple[Spec, ...]
    skeleton: str = ""

    @cached_property
    def header(self) -> bytes:
        """Length prefix and header, padded with spaces so that the data starts at a multiple of 8."""
        entries: dict[str, Any] = {"__metadata__": {"fedjob": self.skeleton}} if self.skeleton else {}
        for s in self.specs:
            entries[s.name] = {"dtype": s.dtype, "shape": list(s.shape), "data_offsets": [s.start, s.stop]}
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    @property
    def data_start(self) -> int:
        """Bytes before the first tensor."""
        return len(self.header)

    @cached_property
    def data_order(self) -> tuple[Spec, ...]:
        """The specs as their bytes follow each other."""
        return tuple(sorted(self.specs, key=lambda s: (s.start, s.stop)))

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.data_start + self.data_size

    @property
    def data_size(self) -> int:
        """Bytes of all tensors."""
        return max((s.stop for s in self.specs), default=0)

    @cached_property
    def _ends(self) -> list[int]:
        return [s.stop for s in self.data_order]

    def overlapping(self, start: int, stop: int) -> Iterator[tuple[Spec, int, int]]:
        """Tensors that have bytes in [start, stop) of the file, in the order of the data, and which of their bytes."""
        a, b = start - self.data_start, stop - self.data_start
        for i in range(bisect.bisect_right(self._ends, a), len(self.specs)):
            spec = self.data_order[i]
            if spec.start >= b:
                return
            if spec.start < spec.stop:
                yield spec, max(a - spec.start, 0), min(b, spec.stop) - spec.start

    @cached_property
    def by_name(self) -> Mapping[str, Spec]:
        """name -> spec."""
        return {s.name: s for s in self.specs}


def header_length(prefix: Bytes) -> int:
    """Bytes of prefix and header together, from a file's first 8 bytes. Raises CodecError if absurd."""
    (n,) = struct.unpack_from("<Q", prefix)
    if not 2 <= n <= MAX_HEADER_BYTES:
        raise CodecError(f"not a tensor file: header of {n} bytes, allowed: 2 to {MAX_HEADER_BYTES}")
    return 8 + int(n)


def parse(header: Bytes) -> Layout:
    """The layout behind prefix and header. Raises CodecError for anything but a well-formed safetensors header."""
    try:
        entries = json.loads(bytes(header[8:]))
    except (ValueError, RecursionError) as e:
        raise CodecError(f"not a tensor file: header is not JSON ({e})") from None
    if not isinstance(entries, dict):
        raise CodecError("not a tensor file: header is not a JSON object")
    metadata = entries.pop("__metadata__", None)
    text = metadata.get("fedjob", "") if isinstance(metadata, dict) else ""
    if not isinstance(text, str):
        raise CodecError("not a tensor file: __metadata__.fedjob is not a string")
    layout = Layout(tuple(_spec(name, entry) for name, entry in entries.items()), text)
    _check_skeleton(layout)
    end = 0
    for s in layout.data_order:
        if s.start != end:
            raise CodecError(f"tensor {s.name!r} starts at byte {s.start}, expected {end}")
        end = s.stop
    # What arrived is what is kept: a header written by another tool may be spaced differently from ours.
    layout.__dict__["header"] = bytes(header)
    return layout


def _spec(name: str, entry: Any) -> Spec:
    if not _is_text(name):
        raise CodecError(f"tensor {name!r}: the name is not Unicode text")
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in (*shape, start, stop))
    except (KeyError, TypeError, ValueError):
        raise CodecError(f"tensor {name!r}: entry has no dtype, shape and data_offsets") from None
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise CodecError(f"tensor {name!r}: dtype {dtype!r} is not known; allowed: {', '.join(ITEM_BYTES)}")
    # numpy and torch count the bytes of a shape without its zeros, in 63 bits, and know at most 64 dimensions.
    fits = whole and len(shape) <= 64 and math.prod(n or 1 for n in shape) * ITEM_BYTES[dtype] < 1 << 63
    if not fits or stop - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise CodecError(f"tensor {name!r}: shape {list(shape)} of {dtype} does not fill bytes {start} to {stop}")
    return Spec(name, dtype, shape, start, stop)


def difference_between(expected: Layout, got: Layout) -> str:
    """The first difference in names, shapes or dtypes, as a phrase; "" if there is none."""
    missing = [s.name for s in expected.specs if s.name not in got.by_name]
    extra = [s.name for s in got.specs if s.name not in expected.by_name]
    if missing or extra:
        found = len(expected.specs) - len(missing)
        first = f"first missing: {missing[0]!r}" if missing else f"not expected: {extra[0]!r}"
        return f"{found} of {len(expected.specs)} tensors, {len(extra)} others; {first}"
    for s in expected.specs:
        other = got.by_name[s.name]
        if (s.dtype, s.shape) != (other.dtype, other.shape):
            return f"{s.name!r} is {other.dtype} {list(other.shape)}, expected {s.dtype} {list(s.shape)}"
    return ""


# ---------------------------------------------------------------------------------------------- a tree, taken apart


@dataclass(frozen=True)
class Outflow:
    """A tree ready to be sent: its layout, and each tensor's live memory in the order of the data."""

    layout: Layout
    sources: tuple[tuple[Spec, Callable[[int, int], Bytes]], ...]

    def read(self, start: int, stop: int) -> Bytes:
        """Bytes [start, stop) of the file; a view of a tensor's own memory if they lie in one tensor."""
        head = self.layout.data_start
        pieces: list[Bytes] = [self.layout.header[start:stop]] if start < head else []
        a, b = max(start - head, 0), stop - head
        i = bisect.bisect_right(self._starts, a) - 1
        while 0 <= i < len(self.sources) and a < b:
            spec, source = self.sources[i]
            upto = min(b, spec.stop)
            if a < upto:
                pieces.append(source(a - spec.start, upto - spec.start))
                a = upto
            i += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @cached_property
    def _starts(self) -> list[int]:
        return [spec.start for spec, _ in self.sources]


def flatten(tree: Any) -> Outflow:
    """Take a tree of tensors apart without copying a tensor.

    Raises CodecError naming the first value that cannot travel.
    """
    leaves: dict[str, Leaf] = {}
    root = _take_apart(tree, (), leaves, {})
    # Widest items first: every tensor then starts at a multiple of its item size, whatever came before it.
    order = sorted(leaves, key=lambda name: -ITEM_BYTES[leaves[name].dtype])
    specs, at = {}, 0
    for name in order:
        dtype, shape = leaves[name].dtype, leaves[name].shape
        size = math.prod(shape) * ITEM_BYTES[dtype]
        specs[name] = Spec(name, dtype, shape, at, at + size)
        at += size
    layout = Layout(tuple(specs[name] for name in leaves), json.dumps(root, separators=(",", ":")))
    return Outflow(layout, tuple((specs[name], leaves[name].source) for name in order))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor of a tree. form: torch, numpy, …; source: its bytes [start, stop); memory: equal where two share theirs."""

    dtype: str
    shape: tuple[int, ...]
    form: str
    source: Callable[[int, int], Bytes]
    memory: Any = None


def _take_apart(node: Any, path: tuple[str, ...], leaves: dict[str, Leaf], seen: dict[Any, str]) -> Any:
    """The skeleton of `node`; its tensors go into `leaves`. Keys may be str or int (optimizers number their state).

    seen: memory of a tensor -> the name under which it was met first.
    """
    if len(path) > MAX_DEPTH:
        raise CodecError(f"{_at(path[:8])}…: nested more than {MAX_DEPTH} deep, or a container that holds itself")
    if isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise CodecError(f"{_at(path)}: key {key!r} is a {type(key).__name__}, allowed: str or int")
        return {"d": [[k, _take_apart(v, (*path, str(k)), leaves, seen)] for k, v in node.items()]}
    if isinstance(node, list | tuple):
        kind = "l" if isinstance(node, list) else "t"
        return {kind: [_take_apart(v, (*path, str(i)), leaves, seen) for i, v in enumerate(node)]}
    if node is None or isinstance(node, str | bool):
        return {"v": node}
    name = "/".join(path) or "value"
    if name in leaves or name == "__metadata__":
        raise CodecError(f"{_at(path)}: the name {name!r} is taken; rename one of the two")
    if not _is_text(name):
        raise CodecError(f"{_at(path)}: the name {name!r} is not Unicode text")
    leaf = leaves[name] = _leaf(node, path)
    first = seen.setdefault(leaf.memory, name) if leaf.memory is not None else name
    return {"x": name, "f": leaf.form} | ({} if first == name else {"s": first})


def _leaf(value: Any, path: tuple[str, ...]) -> Leaf:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch_leaf(torch, value, path)
    form = "numpy"
    if isinstance(value, int):
        form = "int"
    elif isinstance(value, float) and not isinstance(value, np.generic):
        form = "float"
    elif isinstance(value, np.generic):
        form = "scalar"
    elif not isinstance(value, np.ndarray):
        raise CodecError(f"{_at(path)}: a {type(value).__name__} cannot travel; send tensors, arrays, numbers, strings")
    try:
        array = np.asarray(value, dtype=np.int64 if form == "int" else None)
    except OverflowError:
        raise CodecError(
            f"{_at(path)}: a whole number of {value.bit_length()} bits does not fit in 64 with a sign"
        ) from None
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    code = _CODE_OF.get(array.dtype.name)
    if code is None:
        raise CodecError(f"{_at(path)}: dtype {array.dtype} cannot travel; allowed: {', '.join(_CODE_OF)}")

    item = array.dtype.itemsize

    def source(start: int, stop: int) -> Bytes:
        if array.flags.c_contiguous:
            return array.reshape(-1).view(np.uint8)[start:stop].data
        a, b = start // item, -(-stop // item)
        gathered = np.concatenate(list(_gather(array, a, b)) or [array.reshape(-1)]).view(np.uint8)
        return gathered[start - a * item : stop - a * item].data

    return Leaf(code, array.shape, form, source)


def _torch_leaf(torch: Any, tensor: Any, path: tuple[str, ...]) -> Leaf:
    code = _CODE_OF.get(str(tensor.dtype).removeprefix("torch."))
    if code is None or tensor.layout != torch.strided or tensor.device.type == "meta":
        raise CodecError(
            f"{_at(path)}: a {tensor.layout} tensor of {tensor.dtype} on {tensor.device} cannot travel; "
            f"send dense tensors of {', '.join(_CODE_OF)}"
        )
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
        if (
            on_gpu
        ):  # through pinned memory, which torch keeps and hands out again: a chunk at a time, at the bus's speed
            staged = torch.empty(data.numel(), dtype=torch.uint8, pin_memory=True)
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


def _at(path: Sequence[str]) -> str:
    return "/".join(path) or "the value itself"


# ---------------------------------------------------------------------------------------------- a tree, put together


class Inflow:
    """A tree being received: bytes in, tensors filled in place.

    forms: tensor name -> "torch" | "numpy", where this process wants another form than the sender's.
    Pieces may have any size. Up to the end of the header they come in order; the data may come in any order, each byte once.
    """

    def __init__(self, forms: Mapping[str, str] | None = None) -> None:
        self.position = 0  # bytes taken
        self.layout: Layout | None = None
        self._forms = forms or {}
        self._head = bytearray()
        self._tensors: dict[str, Any] = {}
        self._targets: list[tuple[int, int, memoryview]] = []
        self._starts: list[int] = []
        self._narrow: list[tuple[memoryview, str, str]] = []  # memory, dtype that came, dtype that it gets

    @property
    def complete(self) -> bool:
        """Whether every byte has come."""
        return self.layout is not None and self.position == self.layout.size

    def write(self, data: Bytes) -> None:
        """Take the next bytes, where everything comes in order. Raises as `write_at`."""
        self.write_at(self.position, data)

    def write_at(self, offset: int, data: Bytes) -> None:
        """Take the bytes that lie at `offset` of the file.

        Raises CodecError for a malformed header, for bytes past the end, and for data before the header.
        """
        if self.layout is None:
            if offset != len(self._head):
                raise CodecError(f"bytes at {offset} before the header, of which {len(self._head)} bytes are here")
            self._head += data
            if len(self._head) >= 8 and len(self._head) >= header_length(self._head):
                cut = header_length(self._head)
                head, self._head = self._head, bytearray()
                self._begin(parse(memoryview(head)[:cut]))
                self._fill(cut, memoryview(head)[cut:])
        else:
            self._fill(offset, memoryview(data))
        self.position += len(data)

    def _fill(self, offset: int, rest: memoryview) -> None:
        assert self.layout is not None
        if offset + len(rest) > self.layout.size:
            over = offset + len(rest) - self.layout.size
            raise CodecError(f"{over} bytes past the end of a file of {self.layout.size}")
        at = offset - self.layout.data_start
        i = bisect.bisect_right(self._starts, at) - 1
        while rest:
            start, stop, target = self._targets[i]
            n = min(len(rest), stop - at)
            target[at - start : at - start + n] = rest[:n]
            rest, at, i = rest[n:], at + n, i + 1

    def _begin(self, layout: Layout) -> None:
        self.layout = layout
        sent, own = forms(layout), own_dtypes(layout)
        shared = {leaf["x"]: leaf["s"] for leaf in _leaves(layout) if "s" in leaf}
        memory: dict[str, memoryview] = {}
        for spec in layout.data_order:
            form = self._forms.get(spec.name) or sent.get(spec.name) or _native_form()
            wide = max(own.get(spec.name, spec.dtype), spec.dtype, key=ITEM_BYTES.__getitem__)
            first = layout.by_name.get(shared.get(spec.name, ""))
            if first and first.name in memory and (first.dtype, first.shape, form) == (spec.dtype, spec.shape, "torch"):
                self._tensors[spec.name], memory[spec.name] = self._tensors[first.name], memory[first.name]
            else:
                self._tensors[spec.name], memory[spec.name] = _allocate(spec.shape, wide, form)
                if wide != spec.dtype and spec.count:
                    self._narrow.append((memory[spec.name], spec.dtype, wide))
            if spec.stop > spec.start:
                # What comes narrower waits at the end of its tensor's memory, and is widened there: no second copy.
                self._targets.append((spec.start, spec.stop, memory[spec.name][spec.start - spec.stop :]))
                self._starts.append(spec.start)

    def tree(self) -> Any:
        """The tree as it was sent. Raises CodecError before the last byte has come."""
        if self.layout is None or not self.complete:
            raise CodecError(f"the file is not complete: {self.position} bytes so far")
        while self._narrow:
            _widen(*self._narrow.pop())
        if not self.layout.skeleton:
            return dict(self._tensors)
        return skeleton.put_together(json.loads(self.layout.skeleton), self._value)

    def _value(self, name: str) -> Any:
        leaf = self._tensors[name]
        return leaf.value() if isinstance(leaf, _Numeric) else leaf


def forms(layout: Layout) -> dict[str, str]:
    """Tensor name -> form ("torch", "numpy", …) as the sender had it."""
    return {leaf["x"]: leaf["f"] for leaf in _leaves(layout)}


def own_dtypes(layout: Layout) -> dict[str, str]:
    """Tensor name -> the dtype that it has in a script, for those that are narrower or wider in this file."""
    return {leaf["x"]: leaf["o"] for leaf in _leaves(layout) if "o" in leaf}


def _leaves(layout: Layout) -> list[skeleton.Node]:
    return list(skeleton.leaves(json.loads(layout.skeleton))) if layout.skeleton else []


def _check_skeleton(layout: Layout) -> None:
    """Whether a skeleton that came from elsewhere can be put together. Raises CodecError."""
    if not layout.skeleton:
        return
    try:
        leaves = _leaves(layout)
        odd = [leaf for leaf in leaves if _is_odd(leaf, layout.by_name[leaf["x"]])]
        whole = sorted(leaf["x"] for leaf in leaves) == sorted(layout.by_name) and not odd
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise CodecError("not a tensor file: __metadata__.fedjob is not the skeleton of its tensors")


def _is_odd(leaf: skeleton.Node, spec: Spec) -> bool:
    """Whether a leaf cannot be of this tensor: a number with dimensions, or floats that were none."""
    if leaf["f"] in _NUMERIC and spec.shape:
        return True
    return "o" in leaf and not {leaf["o"], spec.dtype} <= FLOATS


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; half a surrogate pair cannot."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _native_form() -> str:
    return "torch" if "torch" in sys.modules else "numpy"


def _allocate(shape: tuple[int, ...], dtype: str, form: str) -> tuple[Any, memoryview]:
    if form == "torch" and "torch" in sys.modules:
        torch = sys.modules["torch"]
        tensor = torch.empty(shape, dtype=getattr(torch, _DTYPE[dtype]))
        return tensor, tensor.reshape(-1).view(torch.uint8).numpy().data
    array: Any = np.empty(shape, numpy_dtype(dtype))
    target = array.reshape(-1).view(np.uint8).data
    return (_Numeric(array, form) if form in _NUMERIC else array), target


def _widen(memory: memoryview, narrow: str, wide: str) -> None:
    """Spread the elements at the end of `memory` over all of it, from the front: what is overwritten has been read."""
    whole = np.frombuffer(memory, numpy_dtype(wide))
    few = np.frombuffer(memory, numpy_dtype(narrow))[-whole.size :]
    for start in range(0, whole.size, _WIDEN_ELEMENTS):
        block = widened(few[start : start + _WIDEN_ELEMENTS])
        whole[start : start + _WIDEN_ELEMENTS] = block.astype(whole.dtype)  # a copy: the two overlap


@dataclass(frozen=True)
class _Numeric:
    """A Python or numpy number, while its bytes are still arriving in a 0-dimensional array."""

    array: Any
    form: str

    def value(self) -> Any:
        return self.array[()] if self.form == "scalar" else self.array.item()


def numpy_dtype(code: str) -> np.dtype[Any]:
    """numpy's dtype of a safetensors dtype code; ml_dtypes supplies bfloat16 and float8."""
    if code in ("BF16", "F8_E4M3", "F8_E5M2"):
        import ml_dtypes  # imported only where such tensors are: 30 ms

        special: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _DTYPE[code]))
        return special
    return np.dtype(_DTYPE[code])
