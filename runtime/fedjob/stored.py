"""Trees of tensors that are read block by block and never held whole: files, and what is computed from them."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from blake3 import blake3

from .codec import FLOATS, ITEM_BYTES, Layout, Spec, flatten, header_length, numpy_dtype, parse
from .errors import StateError

Block = np.ndarray[Any, np.dtype[Any]]
BLOCK_ELEMENTS = 1 << 18  # float64 scratch of 2 MiB: stays in a core's cache; 3 GiB/s of input (measured)
_BUFFER_BYTES = 1 << 20


class Tree(Protocol):
    """Named tensors with a layout, read in flat blocks."""

    @property
    def layout(self) -> Layout:
        """What there is, and where in the file it lies or would lie."""

    def read(self, spec: Spec, start: int, stop: int) -> Block:
        """Elements [start, stop) of one tensor, flat: in its own dtype, or float64 where they were computed."""


@dataclass(frozen=True)
class Stored:
    """A tree in a file. digest: blake3 of the whole file, hex."""

    path: Path
    layout: Layout
    digest: str

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.layout.size

    @cached_property
    def _fd(self) -> int:
        fd = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, fd)
        return fd

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of the file from `offset`."""
        return os.pread(self._fd, size, offset)

    def read(self, spec: Spec, start: int, stop: int) -> Block:
        """See `Tree.read`. Raises StateError if the file has become shorter than its header says."""
        item = ITEM_BYTES[spec.dtype]
        wanted = (stop - start) * item
        data = os.pread(self._fd, wanted, self.layout.data_start + spec.start + start * item)
        if len(data) != wanted:
            raise StateError(f"{self.path}: truncated: {spec.name!r} ends after {len(data)} of {wanted} bytes")
        return np.frombuffer(data, numpy_dtype(spec.dtype))


@dataclass
class Computed:
    """A tree defined by a function of blocks, evaluated when it is written; afterwards it is read from that file.

    compute: as `Tree.read`. Workflows build these; a checkpoint makes them `Stored`, in one pass over their sources.
    """

    layout: Layout
    compute: Callable[[Spec, int, int], Block]
    stored: Stored | None = field(default=None, compare=False)

    def read(self, spec: Spec, start: int, stop: int) -> Block:
        """See `Tree.read`."""
        if self.stored is not None:
            return self.stored.read(spec, start, stop)
        return self.compute(spec, start, stop)


def write(path: Path, tree: Tree) -> Stored:
    """Write `tree` to `path`, whole or not at all (temporary file, fsync, rename).

    Floating-point blocks that come as float64 are rounded once, to the nearest of the layout's dtype.
    """
    digest = blake3()
    with replacing(path) as f:
        f.write(tree.layout.header)
        digest.update(tree.layout.header)
        for spec in tree.layout.data_order:
            for start in range(0, spec.count, BLOCK_ELEMENTS):
                block = tree.read(spec, start, min(start + BLOCK_ELEMENTS, spec.count))
                data = _round(block, spec.dtype).view(np.uint8).data
                f.write(data)
                digest.update(data)
    stored = Stored(path, tree.layout, digest.hexdigest())
    if isinstance(tree, Computed):
        tree.stored = stored
    return stored


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends well, durably, and leaves no trace when it does not."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb", _BUFFER_BYTES) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    with replacing(path) as f:
        f.write(data)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_values(path: Path, values: Any) -> Stored:
    """Write a tree of live tensors or arrays to `path`."""
    return write(path, in_memory(values))


def in_memory(values: Any) -> Computed:
    """A tree of live tensors or arrays as a `Tree`; nothing is copied until it is read."""
    outflow = flatten(values)
    sources = {spec.name: source for spec, source in outflow.sources}

    def compute(spec: Spec, start: int, stop: int) -> Block:
        item = ITEM_BYTES[spec.dtype]
        return np.frombuffer(sources[spec.name](start * item, stop * item), numpy_dtype(spec.dtype))

    return Computed(outflow.layout, compute)


def open_stored(path: Path, digest: str | None = None) -> Stored:
    """The tree in a file.

    digest: what the file must hash to; None: it is computed.
    Raises StateError if the file is missing, truncated, longer than its header says, or altered.
    """
    try:
        with path.open("rb") as f:
            prefix = f.read(8)
            if len(prefix) < 8:
                raise StateError(f"{path}: truncated: {len(prefix)} bytes")
            header = prefix + f.read(header_length(prefix) - 8)
        layout = parse(header) if len(header) == header_length(prefix) else None
        if layout is None or path.stat().st_size != layout.size:
            raise StateError(f"{path}: {path.stat().st_size} bytes, its header says {layout and layout.size}")
        found = file_digest(path)
    except OSError as e:
        raise StateError(f"{path}: {e.strerror}") from e
    if digest is not None and found != digest:
        raise StateError(f"{path}: altered: digest {found[:16]}…, expected {digest[:16]}…")
    return Stored(path, layout, found)


def file_digest(path: Path) -> str:
    """blake3 of a file, hex."""
    digest = blake3()
    with path.open("rb") as f:
        while data := f.read(8 << 20):
            digest.update(data)
    return str(digest.hexdigest())


def first_not_finite(tree: Tree) -> str | None:
    """Name of the first tensor, in the order of the data, that holds NaN or infinity; None if there is none."""
    for spec in tree.layout.data_order:
        if spec.dtype not in FLOATS:
            continue
        for start in range(0, spec.count, BLOCK_ELEMENTS):
            block = tree.read(spec, start, min(start + BLOCK_ELEMENTS, spec.count))
            # A sum shows a NaN at once and needs no scratch; overflow also looks infinite, so ask exactly then.
            with np.errstate(all="ignore"):
                suspicious = not np.isfinite(block.sum(dtype=np.float64))
            if suspicious and not np.isfinite(block.astype(np.float64)).all():
                return spec.name
    return None


def _round(block: Block, dtype: str) -> Block:
    if block.dtype != numpy_dtype(dtype):
        with np.errstate(over="ignore"):
            block = block.astype(numpy_dtype(dtype))
    return np.ascontiguousarray(block)
