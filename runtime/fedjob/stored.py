"""Trees of tensors in files, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from blake3 import blake3

from .codec import ITEM_BYTES, Layout, Spec, header_length, numpy_dtype, parse
from .errors import CodecError, StateError
from .trees import BLOCK_ELEMENTS, Block, Computed, Tree, in_memory

_BUFFER_BYTES = 1 << 20
_LOW = np.uint64((1 << 29) - 1)  # the bits of a float64 that a float32 lacks


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
        tree.stored, tree.compute = stored, stored.read  # its sources, and their files, are let go
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
    except CodecError as e:
        raise StateError(f"{path}: {e}") from e
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


def _round(block: Block, dtype: str) -> Block:
    with np.errstate(over="ignore"):
        if block.dtype == np.float64 and dtype in ("BF16", "F8_E4M3", "F8_E5M2"):
            block = _to_odd_float32(block)
        return np.ascontiguousarray(block.astype(numpy_dtype(dtype), copy=False))


def _to_odd_float32(block: Block) -> Block:
    """float64 to float32 so that rounding once more, to a narrower type, gives what rounding at once would give.

    ml_dtypes goes by way of float32, and rounding to nearest twice is wrong beside a tie. So what does not fit gets an odd
    last bit instead (Boldo, Melquiond: When double rounding is odd, 2005), which no tie has.
    """
    bits = block.view(np.uint64)
    odd = bits & _LOW
    odd += _LOW
    odd |= bits  # the last bit that stays is set if it was, or if any below it was
    odd &= ~_LOW
    wide = odd.view(np.float64)
    tiny = np.abs(block) < 2.0**-126  # float32 has fewer bits there; bfloat16 steps by 2^-133
    if tiny.any():
        wide[tiny] = np.rint(block[tiny] * 2.0**133) * 2.0**-133
    return wide.astype(np.float32)


def stored_form(tree: Tree) -> Stored | None:
    """The file that a tree is in already: its own, or the one it was computed into."""
    at = tree if isinstance(tree, Stored) else getattr(tree, "stored", None)
    return at if isinstance(at, Stored) else None
