"""Trees of tensors in files, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from .chunks import CHUNK_BYTES, DIGEST_BYTES, Table, digest
from .codec import Layout, Spec, header_length, parse
from .dtypes import ITEM_BYTES, Bytes, numpy_dtype
from .errors import CodecError, StateError
from .files import sync_folder
from .narrow import rounded
from .trees import BLOCK_ELEMENTS, Block, Computed, Tree, in_memory

_WORKERS = min(4, os.cpu_count() or 1)  # each holds one chunk; more would meet the limits of memory and disk


@dataclass(frozen=True)
class Stored:
    """A tree in a file. digest: of the object (`chunks.object_digest`), hex; table: the digests of its chunks."""

    path: Path
    layout: Layout
    digest: str
    table: bytes = field(repr=False)

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

    def digest_at(self, index: int) -> bytes:
        """Digest of a chunk."""
        return self.table[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    def read(self, spec: Spec, start: int, stop: int) -> Block:
        """See `Tree.read`. Raises StateError if the file has become shorter than its header says."""
        item = ITEM_BYTES[spec.dtype]
        wanted = (stop - start) * item
        data = os.pread(self._fd, wanted, self.layout.data_start + spec.start + start * item)
        if len(data) != wanted:
            raise StateError(f"{self.path}: truncated: {spec.name!r} ends after {len(data)} of {wanted} bytes")
        return np.frombuffer(data, numpy_dtype(spec.dtype))


def write(path: Path, tree: Tree, spares: Path | None = None) -> Stored:
    """Write `tree` to `path`, whole or not at all for any reader on this machine.

    Not forced to the disk: see `checkpoint` for when that happens. Floating-point blocks that come in another dtype
    are rounded once, to the nearest of the layout's. Chunks are computed side by side; memory: a few MiB for each worker.
    spares: see `retire`.
    """
    size = tree.layout.size
    digests = [b""] * Table(size).count
    one_writer = threading.Lock()  # the kernel lets one at a time write to a file; others would spin for it
    with replacing(path, durable=False, spares=spares) as f:
        f.truncate(size)

        def chunk(i: int) -> None:
            start, stop = i * CHUNK_BYTES, min((i + 1) * CHUNK_BYTES, size)
            data = _bytes_of(tree, start, stop)
            digests[i] = digest(data)
            with one_writer:
                write_at(f.fileno(), data, start)

        _side_by_side(chunk, len(digests))
    table = Table(size, b"".join(digests))
    stored = Stored(path, tree.layout, table.object_digest(), table.to_bytes())
    if isinstance(tree, Computed):
        tree.stored, tree.compute = stored, stored.read  # its sources, and their files, are let go
    return stored


def _bytes_of(tree: Tree, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of the file that `tree` makes."""
    pieces: list[Any] = [tree.layout.header[start:stop]]
    for spec, a, b in tree.layout.overlapping(start, stop):
        item = ITEM_BYTES[spec.dtype]
        for first in range(a // item, -(-b // item), BLOCK_ELEMENTS):  # whole elements, also where one lies on a border
            last = min(first + BLOCK_ELEMENTS, -(-b // item))
            data = rounded(tree.read(spec, first, last), spec.dtype).view(np.uint8)
            pieces.append(data[max(a - first * item, 0) : min(b, last * item) - first * item].data)
    return b"".join(pieces)


def _side_by_side(work: Callable[[int], None], count: int) -> None:
    """`work(0)` to `work(count - 1)` on a few threads, each going through a share of neighbours. Raises what one raises."""
    if count < 2 * _WORKERS:
        for i in range(count):
            work(i)
        return

    def share(worker: int) -> None:
        for i in range(worker, count, _WORKERS):
            work(i)

    with ThreadPoolExecutor(_WORKERS, "chunks") as pool:
        list(pool.map(share, range(_WORKERS)))


def write_at(fd: int, data: Bytes, offset: int) -> None:
    """All of `data`, whatever the kernel takes at once. Raises OSError when the disk refuses."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def retire(paths: Iterable[Path], spares: Path) -> None:
    """Let go of files: the large ones are kept in the folder `spares`, to be written over.

    A new file costs several times as much as an old one: its pages must be found and cleared first, and its blocks. One that
    has another name, as a published model has, is not written over.
    """
    spares.mkdir(exist_ok=True)
    for path in paths:
        found = path.stat()
        if found.st_size >= CHUNK_BYTES and found.st_nlink == 1:
            path.rename(spares / f"{path.stat().st_ino}")
        else:
            path.unlink()


def take_spare(spares: Path | None, path: Path) -> None:
    """Give `path` to a file that `retire` kept, if there is one and no file of this name."""
    if spares is not None and not path.exists():
        for spare in sorted(spares.glob("*")):
            spare.rename(path)
            return


@contextmanager
def replacing(path: Path, *, durable: bool = True, spares: Path | None = None) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends well, and leaves no trace when it does not.

    durable: it is on the disk then, also for a machine that loses its power. spares: see `retire`; what an old file held is
    still in it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    take_spare(spares, temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o666)  # who else may read it, the umask says
    try:
        with os.fdopen(fd, "wb") as f:
            yield f
            f.flush()
            if durable:
                os.fsync(f.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a small file whole or not at all. durable: as `replacing`."""
    with replacing(path, durable=durable) as f:
        f.write(data)


def sweep(path: Path) -> None:
    """Remove what processes that were killed have left of half-written files that were to become `path`."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        temporary.unlink(missing_ok=True)


def write_values(path: Path, values: Any) -> Stored:
    """Write a tree of live tensors or arrays to `path`."""
    return write(path, in_memory(values))


def open_stored(path: Path, digest: str | None = None) -> Stored:
    """The tree in a file, every chunk of which is read.

    digest: what the object must have; None: it is computed.
    Raises StateError if the file is missing, truncated, longer than its header says, or altered.
    """
    try:
        with path.open("rb") as f:
            prefix = f.read(8)
            if len(prefix) < 8:
                raise StateError(f"{path}: truncated: {len(prefix)} bytes")
            length = header_length(prefix)
            header = prefix + f.read(length - 8)
        if len(header) < length:
            raise StateError(f"{path}: truncated: {len(header)} of the {length} bytes of its header")
        layout = parse(header)
        if (size := path.stat().st_size) != layout.size:
            raise StateError(f"{path}: {size} bytes, its header says {layout.size}")
        table = file_table(path)
    except OSError as e:
        raise StateError(f"{path}: {e.strerror}") from e
    except CodecError as e:
        raise StateError(f"{path}: {e}") from e
    found = table.object_digest()
    if digest is not None and found != digest:
        raise StateError(f"{path}: altered: digest {found[:16]}…, expected {digest[:16]}…")
    return Stored(path, layout, found, table.to_bytes())


def file_table(path: Path) -> Table:
    """The digests of a file's chunks. Raises OSError."""
    with path.open("rb") as f:
        size = os.fstat(f.fileno()).st_size
        digests = [b""] * Table(size).count

        def chunk(i: int) -> None:
            digests[i] = digest(os.pread(f.fileno(), CHUNK_BYTES, i * CHUNK_BYTES))

        _side_by_side(chunk, len(digests))
    return Table(size, b"".join(digests))


def file_digest(path: Path) -> str:
    """Digest of a file as an object, hex: what histories and reports name models by."""
    return file_table(path).object_digest()


def stored_form(tree: Tree) -> Stored | None:
    """The file that a tree is in already: its own, or the one it was computed into."""
    at = tree if isinstance(tree, Stored) else getattr(tree, "stored", None)
    return at if isinstance(at, Stored) else None
