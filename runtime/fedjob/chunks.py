"""Framing: objects cut into chunks with digests, and put together in order.  PURE

Theory of operation
-------------------
A sending is a list of parts (whole tensor files), one after the other. Chunks come in order: any other order means that
bytes were lost or doubled, and the connection is ended. There is one way to recover from anything: connect again, hear from
the receiver which part and offset it holds, go on from there. A chunk that fails its digest is simply not held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from .errors import TransportError


def digest(data: bytes) -> int:
    """xxh3-64 of a chunk: 30 GiB/s; guards against damage, not against malice (the connection does that)."""
    return xxh3_64_intdigest(data)


@dataclass
class Position:
    """Where a receiver stands. sizes: bytes of each part; (part, offset): the first byte it lacks."""

    sizes: Sequence[int]
    part: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        self._skip_full()

    @property
    def complete(self) -> bool:
        """Whether every byte of every part is held."""
        return self.part == len(self.sizes)

    @property
    def held(self) -> int:
        """Bytes held, over all parts."""
        return sum(self.sizes[: self.part]) + self.offset

    def take(self, part: int, offset: int, data: bytes, expected: int) -> None:
        """Check a chunk and step over it. Raises TransportError, standing still, if it is not the next or is damaged."""
        if self.complete:
            raise TransportError(f"chunk of part {part} after the last byte of the last part")
        if (part, offset) != (self.part, self.offset):
            raise TransportError(
                f"chunk of part {part} at {offset} where part {self.part} at {self.offset} was expected"
            )
        if not data or offset + len(data) > self.sizes[part]:
            raise TransportError(f"chunk of {len(data)} bytes at {offset} of a part of {self.sizes[part]}")
        if digest(data) != expected:
            raise TransportError(f"chunk of part {part} at {offset} was damaged on the way")
        self.offset += len(data)
        self._skip_full()

    def _skip_full(self) -> None:
        while self.part < len(self.sizes) and self.offset == self.sizes[self.part]:
            self.part, self.offset = self.part + 1, 0
