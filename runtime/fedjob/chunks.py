"""Framing: objects cut into chunks with digests; what a receiver holds and lacks, what a sender sends next.  PURE

Theory of operation
-------------------
An object is a tensor file, cut every MiB. A receiver keeps a *table*: the digest of each chunk that it holds. Chunks may
come in any order, doubled or damaged; one counts once its bytes have the digest that travelled with it. Whatever goes
wrong, a cut, a damaged chunk, a process that was replaced, there is one way on: the receiver names the ranges that its table
lacks, and the sender sends those::

    sender                                receiver
    Announce ───────────────────────────►
             ◄─────────────────────────── Want(ranges)   what the table lacks
    Chunk Chunk … ──────────────────────►
             ◄─────────────────────────── Ack(count)     room in the window
    Seal(digests) ──────────────────────►
             ◄─────────────────────────── Want(ranges)   if something came damaged; else the Verdict

The window bounds what a cut can cost. The digest of an object is computed from its table, so that neither end ever reads an
object twice: not to resume it, not to seal it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from blake3 import blake3
from xxhash import xxh3_128_digest

from .errors import TransportError

CHUNK_BYTES = 1 << 20  # 1 to 2 MiB is fastest; less costs calls, more leaves the cache
WINDOW_CHUNKS = 16  # how far a sender may be ahead of the acknowledgements
ACK_EVERY = 4  # chunks; an acknowledgement for each costs a quarter of the rate
DIGEST_BYTES = 16
MAX_RANGES = 64  # in one Want: a bound for what a reply may hold, not for what may be lacking
_NONE = bytes(DIGEST_BYTES)  # no data has this digest: it would take 2^128 tries


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """xxh3-128 of a chunk: guards against damage at the speed of memory; against malice there is the connection."""
    return xxh3_128_digest(data)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [start, stop) of a part; start lies at a chunk's border."""

    part: int
    start: int
    stop: int


class Table:
    """The digests of an object's chunks, as far as they are known. size: bytes of the object."""

    def __init__(self, size: int, digests: bytes = b"", chunk_bytes: int = CHUNK_BYTES) -> None:
        self.size = size
        self.chunk_bytes = chunk_bytes
        self._digests = bytearray(digests.ljust(-(-size // chunk_bytes) * DIGEST_BYTES, b"\0"))
        self.held = sum(self._span(i) for i in range(self.count) if self.at(i))

    @property
    def count(self) -> int:
        """Number of chunks."""
        return len(self._digests) // DIGEST_BYTES

    @property
    def complete(self) -> bool:
        """Whether every chunk is known."""
        return self.held == self.size

    def at(self, index: int) -> bytes:
        """Digest of a chunk, b"" if it is not known."""
        found = bytes(self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])
        return b"" if found == _NONE else found

    def put(self, index: int, known: bytes) -> None:
        """Enter the digest of a chunk."""
        self.held += 0 if self.at(index) else self._span(index)
        self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = known

    def drop(self, index: int) -> None:
        """Forget a chunk."""
        self.held -= self._span(index) if self.at(index) else 0
        self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = _NONE

    def place(self, offset: int, length: int) -> int:
        """Index of the chunk of `length` bytes at `offset`. Raises TransportError if there is no such chunk."""
        index, off_border = divmod(offset, self.chunk_bytes)
        if off_border or not 0 <= index < self.count or length != self._span(index):
            raise TransportError(f"chunk of {length} bytes at {offset} of an object of {self.size}")
        return index

    def lacks(self) -> Iterator[tuple[int, int]]:
        """Byte ranges of the unknown chunks, neighbours joined, in order."""
        start = None
        for i in range(self.count):
            if self.at(i):
                if start is not None:
                    yield start, i * self.chunk_bytes
                start = None
            elif start is None:
                start = i * self.chunk_bytes
        if start is not None:
            yield start, self.size

    def to_bytes(self) -> bytes:
        """The digests, one after the other."""
        return bytes(self._digests)

    def object_digest(self) -> str:
        """What names the object: blake3 of its size and table, hex."""
        return object_digest(self.size, self._digests)

    def _span(self, index: int) -> int:
        return min(self.chunk_bytes, self.size - index * self.chunk_bytes)


def object_digest(size: int, table: bytes | bytearray) -> str:
    """Digest of an object of `size` bytes whose chunks have the digests in `table`; 64 hex digits."""
    return blake3(size.to_bytes(8, "little") + table).hexdigest()


def accept(table: Table, offset: int, data: bytes | bytearray | memoryview, expected: bytes) -> int | None:
    """Index of a chunk that is wanted and undamaged; None for one that is held already, or came damaged.

    Raises TransportError for one that cannot be of this object. The caller stores the data, then calls `Table.put`.
    """
    index = table.place(offset, len(data))
    if table.at(index) or digest(data) != expected:
        return None
    return index


def lacking(tables: Sequence[Table]) -> list[Range]:
    """What is still to be sent of all parts, in order, MAX_RANGES at the most; the rest is asked for afterwards."""
    found: list[Range] = []
    for part, table in enumerate(tables):
        for start, stop in table.lacks():
            if len(found) == MAX_RANGES:
                return found
            found.append(Range(part, start, stop))
    return found


class Pause(Enum):
    """What a sender does when there is no chunk to send."""

    WAIT = "for a Want, or for room in the window"
    SEAL = "everything that was wanted has been sent"


class Sending:
    """One stream's view of what to send next. Raises TransportError if the receiver wants what there is not."""

    def __init__(self, sizes: Sequence[int], window: int = WINDOW_CHUNKS, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._sizes = sizes
        self._window = window
        self._chunk_bytes = chunk_bytes
        self._ranges: deque[Range] | None = None
        self._sent = self._acknowledged = 0

    def want(self, ranges: Iterable[Range]) -> None:
        """The receiver says what it lacks."""
        wanted = deque(ranges)
        for r in wanted:
            size = self._sizes[r.part] if r.part < len(self._sizes) else 0
            whole = r.start % self._chunk_bytes == 0 and (r.stop % self._chunk_bytes == 0 or r.stop == size)
            if not (whole and r.start < r.stop <= size):
                raise TransportError(
                    f"the receiver wants bytes {r.start} to {r.stop} of part {r.part}, of {size} bytes"
                )
        self._ranges = wanted

    def acknowledge(self, chunks: int) -> None:
        """The receiver has dealt with so many chunks of this stream."""
        self._acknowledged = max(self._acknowledged, min(chunks, self._sent))

    def next(self) -> Range | Pause:
        """The chunk to send now, or what to do instead. After SEAL it waits for a further Want."""
        if self._ranges is None:
            return Pause.WAIT
        if not self._ranges:
            self._ranges = None
            return Pause.SEAL
        if self._sent - self._acknowledged >= self._window:
            return Pause.WAIT
        first = self._ranges[0]
        stop = min(first.start + self._chunk_bytes, first.stop)
        if stop == first.stop:
            self._ranges.popleft()
        else:
            self._ranges[0] = Range(first.part, stop, first.stop)
        self._sent += 1
        return Range(first.part, first.start, stop)
