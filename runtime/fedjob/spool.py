"""An object on its way in: a file that grows with each chunk, and beside it the table of the chunks that it holds.

What is in the file survives this process; the table says what that is. Whoever takes over reads each chunk that the table
names once more and keeps those that have their digest: a file that a power cut or a disk has damaged costs its bad chunks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import chunks, disk
from .chunks import CHUNK_BYTES, DIGEST_BYTES, Range, Table
from .codec import MAX_HEADER_BYTES, Layout, header_length, parse
from .dtypes import FLOATS, ITEM_BYTES, numpy_dtype
from .errors import CodecError, TransportError
from .frames import Piece
from .stored import Stored, take_spare, write_at
from .trees import finite

_TABLE = ".table"


class Spool:
    """Files `<stem>.<upload>.<part>` in a folder, picked up where an earlier process of this server left them.

    Files of the same stem with another upload's name are removed: a script that trains again sends other bytes.
    parts: (name, bytes). spares: see `stored.retire`. header_bytes: how long a part's header may be.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        upload: str,
        parts: Sequence[tuple[str, int]],
        spares: Path | None = None,
        header_bytes: int = MAX_HEADER_BYTES,
    ) -> None:
        self.sizes = [size for _, size in parts]
        self.tables: list[Table] = []  # once it is open
        self.damaged = 0  # chunks that came with other bytes than their digest
        self.again = 0  # these, and those that came though they were held
        self._folder, self._stem, self._spares = folder, stem, spares
        self._names = [name for name, _ in parts]
        self._paths = [folder / f"{stem}.{upload}.{name}" for name, _ in parts]
        self._header_bytes = header_bytes
        self._checks = [_Check(name, header_bytes) for name, _ in parts]
        # Written by workers, sealed by another, closed by whoever takes over: a number must not be reused between.
        self._lock = threading.RLock()
        self._closed = False  # for good: whoever goes on with these files has a Spool of its own
        self._fds: list[int] = []
        self._table_fds: list[int] = []

    @property
    def held(self) -> int:
        """Bytes held, over all parts."""
        return sum(t.held for t in self.tables)

    def lacks(self) -> list[Range]:
        """What is still to come."""
        return chunks.lacking(self.tables)

    def unwritten(self) -> int:
        """Bytes that the disk has yet to find room for; none once it is closed."""
        with self._lock:
            return sum(disk.unwritten(fd, size) for fd, size in zip(self._fds, self.sizes, strict=False))

    def open(self) -> None:
        """Take the files, and read back what they hold.

        Raises OSError when the disk refuses, TransportError if it was closed meanwhile: what opened files then would leak them.
        """
        with self._lock:
            self._check_ours()
            self._folder.mkdir(parents=True, exist_ok=True)
            self.tables = [Table(size) for size in self.sizes]
            ours = {p.name for p in self._paths} | {p.name + _TABLE for p in self._paths}
            for path in self._folder.glob(f"{self._stem}.*"):
                if path.name not in ours:
                    path.unlink()
            try:
                for i, path in enumerate(self._paths):
                    take_spare(self._spares, path)
                    self._fds.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
                    self._table_fds.append(os.open(f"{path}{_TABLE}", os.O_RDWR | os.O_CREAT, 0o666))
                    self._read_back(i)
            except BaseException:
                self.close()
                raise

    def _read_back(self, part: int) -> None:
        table, size = self.tables[part], self.sizes[part]
        os.ftruncate(self._fds[part], size)  # shorter than an old file, or as long as it will be: holes cost nothing
        claimed = Table(size, os.pread(self._table_fds[part], table.count * DIGEST_BYTES, 0))
        for i in range(claimed.count):
            if known := claimed.at(i):
                self._check_ours()
                data = os.pread(self._fds[part], CHUNK_BYTES, i * CHUNK_BYTES)
                if chunks.digest(data) == known:
                    table.put(i, known)
                    self._checks[part].take(i * CHUNK_BYTES, data)

    def write(self, piece: Piece) -> None:
        """Keep a chunk; one that is held already or came damaged changes nothing.

        Raises TransportError if it is none of this upload's, OSError when the disk refuses.
        """
        with self._lock:
            self._check_ours()
            if piece.part >= len(self.tables):
                raise TransportError(f"chunk of part {piece.part}, of {len(self.tables)} parts")
            table, fd = self.tables[piece.part], self._fds[piece.part]
            index = chunks.accept(table, piece.offset, piece.data, piece.digest)
            if index is None:
                self.again += 1
                self.damaged += not table.at(table.place(piece.offset, len(piece.data)))
                return
            write_at(fd, piece.data, piece.offset)
            os.pwrite(self._table_fds[piece.part], piece.digest, index * DIGEST_BYTES)
            table.put(index, piece.digest)
            self._checks[piece.part].take(piece.offset, piece.data)

    def read(self, part: int, index: int) -> Piece | None:
        """A chunk that is held; None, and it is held no longer, if the file has it no more."""
        with self._lock:
            table, at = self.tables[part], index * CHUNK_BYTES
            data, known = os.pread(self._fds[part], CHUNK_BYTES, at), table.at(index)
            if chunks.digest(data) == known:
                return Piece(part, at, known, data)
            table.drop(index)
            return None

    def seal(self, digests: Sequence[str]) -> dict[str, Stored]:
        """The parts, complete and with the sender's digests.

        Raises TransportError if bytes are missing or altered (then nothing is held any more), CodecError if a part is
        not a tensor file.
        """
        with self._lock:
            self._check_ours()
            if self.held < sum(self.sizes):
                raise TransportError(f"sealed after {self.held} of {sum(self.sizes)} bytes")
            if [t.object_digest() for t in self.tables] != list(digests):
                self.discard()
                raise TransportError("the parts do not have the digests that their sender computed; send them again")
            return {name: self._stored(i) for i, name in enumerate(self._names)}

    def looked_at(self) -> dict[str, list[str]]:
        """Part -> the tensors in it that hold NaN or infinity: of the parts whose numbers could be looked at."""
        return {check.name: list(check.found) for check in self._checks if check.whole}

    def _stored(self, i: int) -> Stored:
        size = self.sizes[i]
        prefix = os.pread(self._fds[i], 8, 0)
        if len(prefix) < 8 or header_length(prefix, self._header_bytes) > size:
            raise CodecError(f"part {self._names[i]!r} is not a tensor file: {size} bytes")
        layout = parse(os.pread(self._fds[i], header_length(prefix), 0))
        if layout.size != size:
            raise CodecError(f"part {self._names[i]!r}: {size} bytes, its header says {layout.size}")
        return Stored(self._paths[i], layout, self.tables[i].object_digest(), self.tables[i].to_bytes())

    def _check_ours(self) -> None:
        if self._closed:
            raise TransportError("this upload is over, or was taken over by a newer connection of the same site")

    def close(self) -> None:
        """Let go of the files, for good; they stay."""
        self._closed = True  # before the lock: who reads back what a large file holds lets go of it soon
        with self._lock:
            fds, self._fds, self._table_fds = [*self._fds, *self._table_fds], [], []
            for fd in fds:
                os.close(fd)

    def discard(self) -> None:
        """Remove the files."""
        self.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
            Path(f"{path}{_TABLE}").unlink(missing_ok=True)


class _Check:
    """Looks for NaN and infinity in a part's chunks as they come, while they are in the processor's cache.

    It needs the header first, and numbers that lie whole within their chunk, as ours do. `whole`: it has missed nothing.
    """

    def __init__(self, name: str, header_bytes: int) -> None:
        self.name = name
        self._header_bytes = header_bytes
        self.found: dict[str, None] = {}  # tensors, in the order in which they came
        self.whole = True
        self._head = bytearray()
        self._layout: Layout | None = None

    def take(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if not self.whole:
            return
        if self._layout is None:
            if offset != len(self._head):
                self.whole = False
                return
            self._head += data
            try:
                if len(self._head) < 8 or len(self._head) < header_length(self._head, self._header_bytes):
                    return
                self._layout = parse(memoryview(self._head)[: header_length(self._head)])
            except CodecError:  # `Spool.seal` says so
                self.whole = False
                return
            offset, data = 0, bytes(self._head)
            self._head = bytearray()
        self._look(self._layout, offset, memoryview(data))

    def _look(self, layout: Layout, offset: int, data: memoryview) -> None:
        for spec, first, last in layout.overlapping(offset, offset + len(data)):
            if spec.dtype not in FLOATS or spec.name in self.found:
                continue
            if first % ITEM_BYTES[spec.dtype] or last % ITEM_BYTES[spec.dtype]:
                self.whole = False
                return
            at = layout.data_start + spec.start - offset
            if not finite(_numbers(data[at + first : at + last], spec.dtype)):
                self.found[spec.name] = None


def _numbers(data: memoryview, dtype: str) -> Any:
    return np.frombuffer(data, numpy_dtype(dtype))


def facts(stored: Stored) -> dict[str, Any]:
    """What the journal keeps of a part: enough to find it again and to notice if it has changed."""
    return {"file": stored.path.name, "digest": stored.digest}
