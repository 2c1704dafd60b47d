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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from . import skeleton, torch_module, tuples, unfit
from .api import limits
from .dtypes import FLOATS, ITEM_BYTES, NAMES, Bytes, numpy_dtype
from .errors import CodecError, FedJobError
from .leaves import Leaf, plain_bytes, where
from .leaves import leaf as leaf_of
from .rounding import widened

if sys.byteorder != "little":  # safetensors is little-endian; no big-endian machine trains models
    raise ImportError("fedjob runs on little-endian machines only")


MAX_HEADER_BYTES = limits.FILE_HEADER.value
_WIDEN_ELEMENTS = 1 << 18  # scratch of 1 MiB: 7 GiB/s of bfloat16 (measured)
_MARKS_A_TENSOR = (
    6  # brackets, and colons, that a header has for each tensor: 3 and 4 for what it is, the others for its place
)
TORCH = "pt"
_FRAMEWORKS = (TORCH, "np", "flax", "jax", "tf", "mlx")  # as safetensors' users name them
Chosen = Callable[[str], bool]  # whether a name travels
_WITHOUT_TENSOR = (type(None), str, bool)
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
    """The header of a file. `specs` in the order of the tree; `skeleton` JSON or "" for a flat dict.

    framework: what other readers call `format`: "pt" for torch's tensors, or "" if nobody knows.
    """

    specs: tuple[Spec, ...]
    skeleton: str = ""
    framework: str = ""

    @cached_property
    def header(self) -> bytes:
        """Length prefix and header, padded with spaces so that the data starts at a multiple of 8."""
        metadata = {"format": self.framework, "fedjob": self.skeleton}
        said = {key: value for key, value in metadata.items() if value}
        entries: dict[str, Any] = {"__metadata__": said} if said else {}
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


def header_length(prefix: Bytes, most: int = MAX_HEADER_BYTES) -> int:
    """Bytes of prefix and header together, from a file's first 8 bytes. Raises CodecError if absurd, or above `most`."""
    if len(prefix) < 8:
        raise CodecError(f"not a tensor file: it ends after {len(prefix)} bytes")
    (n,) = struct.unpack_from("<Q", prefix)
    if not 2 <= n <= most:
        raise CodecError(f"not a tensor file: header of {n} bytes, allowed: 2 to {most}")
    return 8 + int(n)


def parse(header: Bytes) -> Layout:
    """The layout behind prefix and header. Raises CodecError for anything but a well-formed safetensors header."""
    text = bytes(header[8:])
    _check_cost(text)
    try:
        entries = json.loads(text.decode())  # UTF-8 and nothing else
    except (ValueError, RecursionError) as e:
        raise CodecError(f"not a tensor file: header is not JSON ({_brief(e)})") from None
    if not isinstance(entries, dict):
        raise CodecError("not a tensor file: header is not a JSON object")
    metadata = entries.pop("__metadata__", None)
    shape = metadata.get("fedjob", "") if isinstance(metadata, dict) else ""
    if not isinstance(shape, str):
        raise CodecError("not a tensor file: __metadata__.fedjob is not a string")
    framework = metadata.get("format") if isinstance(metadata, dict) else None
    known = framework if framework in _FRAMEWORKS else ""
    layout = Layout(tuple(_spec(name, entry) for name, entry in entries.items()), shape, known)
    _check_skeleton(layout)
    end = 0
    for s in layout.data_order:
        if s.start != end:
            raise CodecError(f"tensor {_brief(s.name)} starts at byte {s.start}, expected {end}")
        end = s.stop
    # What arrived is what is kept: a header written by another tool may be spaced differently from ours.
    layout.__dict__["header"] = bytes(header)
    return layout


def _check_cost(text: bytes) -> None:
    """Whether a header is worth parsing: what it would cost in memory is counted first. Raises CodecError."""
    most = limits.FILE_TENSORS.value
    marks = max(text.count(b"{") + text.count(b"["), text.count(b":"))
    if text.count(b'"dtype"') > most or marks > _MARKS_A_TENSOR * most + 1000:
        raise CodecError(f"a tensor file of more than {most} tensors, which is the most allowed")


def _spec(name: str, entry: Any) -> Spec:
    if why := _no_name(name):
        raise CodecError(f"tensor {_brief(name)}: {why}")
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        # The product of very many would take very long.
        whole = len(shape) <= limits.TENSOR_DIMENSIONS.value and all(
            isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 1 << 63 for x in (*shape, start, stop)
        )
    except (KeyError, TypeError, ValueError):
        raise CodecError(f"tensor {_brief(name)}: entry has no dtype, shape and data_offsets") from None
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise CodecError(f"tensor {_brief(name)}: dtype {_brief(dtype)} is not known; allowed: {', '.join(ITEM_BYTES)}")
    # They count the bytes of a shape without its zeros, in 63 bits.
    fits = whole and math.prod(n or 1 for n in shape) * ITEM_BYTES[dtype] < 1 << 63
    if not fits or stop - start != math.prod(shape) * ITEM_BYTES[dtype]:
        what = f"shape {_brief(list(shape))} of {dtype} does not fill bytes {_brief(start)} to {_brief(stop)}"
        raise CodecError(f"tensor {_brief(name)}: {what}")
    return Spec(name, dtype, shape, start, stop)


def _brief(value: Any) -> str:
    """A value that came from elsewhere, for a message: that may be sent on, and be in a log."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def difference_between(expected: Layout, got: Layout) -> str:
    """The first difference in names, shapes or dtypes, as a phrase; "" if there is none."""
    missing = [s.name for s in expected.specs if s.name not in got.by_name]
    extra = [s.name for s in got.specs if s.name not in expected.by_name]
    if missing or extra:
        found = len(expected.specs) - len(missing)
        first = f"first missing: {_brief(missing[0])}" if missing else f"not expected: {_brief(extra[0])}"
        return f"{found} of {len(expected.specs)} tensors, {len(extra)} others; {first}"
    for s in expected.specs:
        other = got.by_name[s.name]
        if (s.dtype, s.shape) != (other.dtype, other.shape):
            return f"{s.name!r} is {other.dtype} {list(other.shape)}, expected {s.dtype} {list(s.shape)}"
    return ""


# ---------------------------------------------------------------------------------------------- a tree, taken apart


@dataclass(frozen=True)
class Outflow:
    """A tree ready to be sent: its layout, and each tensor's live memory in the order of the data.

    left: names of what was not chosen; left_bytes: of the tensors among them.
    """

    layout: Layout
    sources: tuple[tuple[Spec, Callable[[int, int], Bytes]], ...]
    left: tuple[str, ...] = ()
    left_bytes: int = 0

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
                pieces.append(_read(spec, source, a - spec.start, upto - spec.start))
                a = upto
            i += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @cached_property
    def _starts(self) -> list[int]:
        return [spec.start for spec, _ in self.sources]


def _read(spec: Spec, source: Callable[[int, int], Bytes], start: int, stop: int) -> Bytes:
    try:
        return source(start, stop)
    except FedJobError:
        raise
    except Exception as e:  # any library's own error, which does not know the tensor's name
        raise CodecError(f"{spec.name}: its bytes cannot be read: {type(e).__name__}: {_brief(e)}") from e


def flatten(tree: Any, chosen: Chosen | None = None) -> Outflow:
    """Take a tree of tensors apart without copying a tensor.

    chosen: which names travel, default all. A value that does not is not looked at, whatever it is.
    Raises CodecError naming the first value that cannot travel.
    """
    taken = _Taken(chosen)
    root = taken.apart(tree, ())
    leaves = taken.leaves
    # Widest items first: every tensor then starts at a multiple of its item size, whatever came before it.
    order = sorted(leaves, key=lambda name: -ITEM_BYTES[leaves[name].dtype])
    specs, at = {}, 0
    for name in order:
        dtype, shape = leaves[name].dtype, leaves[name].shape
        size = math.prod(shape) * ITEM_BYTES[dtype]
        specs[name] = Spec(name, dtype, shape, at, at + size)
        at += size
    text = json.dumps({"d": []} if root is None else root, separators=(",", ":"))
    framework = TORCH if any(leaf.form == "torch" for leaf in leaves.values()) else ""
    layout = Layout(tuple(specs[name] for name in leaves), text, framework)
    return Outflow(
        layout, tuple((specs[name], leaves[name].source) for name in order), tuple(taken.left), taken.left_bytes
    )


@dataclass
class _Taken:
    """A tree while it is taken apart: its tensors by name; the names of what is left out, and the bytes of those tensors."""

    chosen: Chosen | None
    leaves: dict[str, Leaf] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    left_bytes: int = 0
    _first: dict[Any, str] = field(default_factory=dict)  # memory of a tensor -> the name under which it was met first

    def apart(self, node: Any, path: tuple[str, ...]) -> skeleton.Node | None:
        """The skeleton of `node`; None if nothing of it travels. Keys may be str or int (optimizers number their state)."""
        if len(path) > (most := limits.TREE_DEPTH.value):
            raise CodecError(f"{where(path[:8])}…: nested more than {most} deep, or a container that holds itself")
        if isinstance(node, Mapping):
            return self._mapping(node, path)
        if isinstance(node, list | tuple):
            return self._sequence(node, path)
        name = "/".join(path) or "value"
        if self.chosen is not None and not self.chosen(name):
            self.left.append(name)
            self.left_bytes += plain_bytes(node)
            return None
        return {"v": node} if type(node) in _WITHOUT_TENSOR else self._leaf(node, name, path)

    def _mapping(self, node: Mapping[Any, Any], path: tuple[str, ...]) -> skeleton.Node | None:
        children = []
        for key, value in node.items():
            if not isinstance(key, str | int) or isinstance(key, bool):
                if self.chosen is not None:
                    continue  # no pattern names it
                raise CodecError(f"{where(path)}: key {key!r} is a {type(key).__name__}, allowed: str or int")
            if (child := self.apart(value, (*path, str(key)))) is not None:
                children.append([key, child])
        return {"d": children} if children or not node else None

    def _sequence(self, node: list[Any] | tuple[Any, ...], path: tuple[str, ...]) -> skeleton.Node | None:
        named = isinstance(node, tuple) and tuples.is_named(node)
        fields: tuple[str, ...] = type(node)._fields if named else ()  # type: ignore[union-attr]
        keys = fields if named else map(str, range(len(node)))
        children = [self.apart(value, (*path, key)) for key, value in zip(keys, node, strict=True)]
        if not any(children) and (node or self.chosen is not None):
            return None
        why = unfit.named_tuple(node) if named else unfit.container(node)
        if why:
            raise CodecError(f"{where(path)}: {why}")
        kind = "l" if isinstance(node, list) else "t"
        beside = {"n": [tuples.name_of(type(node)), *fields]} if named else {}
        # A place in a list means something: what is left out leaves None there.
        return {kind: [{"v": None} if child is None else child for child in children], **beside}

    def _leaf(self, node: Any, name: str, path: tuple[str, ...]) -> skeleton.Node:
        if name in self.leaves or name == "__metadata__":
            raise CodecError(f"{where(path)}: the name {name!r} is taken; rename one of the two")
        if why := _no_name(name):
            raise CodecError(f"{_brief(where(path))}: the name {_brief(name)}: {why}")
        if len(self.leaves) == (most := limits.FILE_TENSORS.value):
            step = "send a list of numbers as one array, or choose tensors with spec.model.exchange.include"
            raise CodecError(f"{where(path)}: more than {most} tensors; {step}")
        leaf = self.leaves[name] = leaf_of(node, path)
        first = self._first.setdefault(leaf.memory, name) if leaf.memory is not None else name
        return {"x": name, "f": leaf.form} | ({} if first == name else {"s": first})


# ---------------------------------------------------------------------------------------------- a tree, put together


class Inflow:
    """A tree being received: bytes in, tensors filled in place.

    forms: tensor name -> "torch" | "numpy", where this process wants another form than the sender's. size: bytes of the
    file as announced; a header that says otherwise is refused before any memory is taken for it.
    Pieces may have any size. Up to the end of the header they come in order; the data may come in any order, each byte once.
    """

    def __init__(self, forms: Mapping[str, str] | None = None, size: int | None = None) -> None:
        self.position = 0  # bytes taken
        self.layout: Layout | None = None
        self._size = size
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
        if self._size not in (None, layout.size):
            raise CodecError(f"a file of {self._size} bytes was announced, its header says {layout.size}")
        self.layout = layout
        sent, own = forms(layout), own_dtypes(layout)
        shared = {leaf["x"]: leaf["s"] for leaf in _leaves(layout) if "s" in leaf}
        memory: dict[str, memoryview] = {}
        for spec in layout.data_order:
            form = self._forms.get(spec.name) or sent.get(spec.name) or _native_form(layout.framework)
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


def _no_name(name: str) -> str:
    """Why a tensor cannot have this name, "" if it can."""
    if any("\ud800" <= c <= "\udfff" for c in name):  # half a surrogate pair
        return "the name is not Unicode text"
    most = limits.TENSOR_NAME.value
    return f"the name is longer than {most} bytes" if len(name.encode()) > most else ""


def _native_form(framework: str) -> str:
    return "torch" if framework == TORCH or torch_module.loaded() else "numpy"


def _allocate(shape: tuple[int, ...], dtype: str, form: str) -> tuple[Any, memoryview]:
    if form == "torch" and (torch := torch_module.needed()):
        tensor = torch.empty(
            shape, dtype=getattr(torch, NAMES[dtype]), device="cpu"
        )  # whatever the script's default is
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
