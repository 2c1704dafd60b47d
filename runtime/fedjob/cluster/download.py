"""A file from a server's volume to this machine: in one piece however often the stream is cut, or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from ..reader import SIZE_BYTES
from .failures import ClusterError, StreamCut, Unreachable

Read = Callable[[int], AsyncGenerator[bytes]]  # from an offset on: the size, eight bytes, then the bytes
Tell = Callable[[int, int], None]  # bytes that are there, of how many

_TRIES = 6  # in a row that bring nothing
_PAUSE_SECONDS = 0.5  # before the second, doubling


def part_of(target: Path, digest: str) -> Path:
    """Where the bytes of a download are until all are there: named by what they are part of, so none goes on with another's."""
    return target.with_name(f".{target.name}.{digest[:16]}.part")


async def fetch(read: Read, part: Path, tell: Tell, pause_seconds: float = _PAUSE_SECONDS) -> int:
    """Bring `part` to its whole size, going on from what is there; returns the size.

    Raises ClusterError if the stream was cut six times in a row without a byte, and OSError.
    """
    fruitless = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return await _once(read, part, before, tell)
        except (StreamCut, Unreachable) as e:
            gained = part.exists() and part.stat().st_size > before
            fruitless = 0 if gained else fruitless + 1
            if fruitless >= _TRIES:
                raise ClusterError(
                    f"the stream was cut {fruitless} times in a row ({e}); the same command goes on from {before} bytes"
                ) from e
            if not gained:
                await asyncio.sleep(pause_seconds * 2 ** (fruitless - 1))


async def _once(read: Read, part: Path, offset: int, tell: Tell) -> int:
    with part.open("ab") as file:
        async with aclosing(read(offset)) as stream:
            size = await _copy(stream, file, part, tell)
        file.flush()
        os.fsync(file.fileno())
    return size


async def _copy(stream: AsyncIterator[bytes], file: BinaryIO, part: Path, tell: Tell) -> int:
    """What is left of a stream's file to the end of `file`; returns its size. Raises StreamCut if not all came."""
    head, size, there = b"", -1, file.tell()
    async for data in stream:
        if size < 0:
            head += data
            if len(head) < SIZE_BYTES:
                continue
            size, data = int.from_bytes(head[:SIZE_BYTES], "big"), head[SIZE_BYTES:]
            if there > size:
                raise ClusterError(f"{part}: {there} bytes are here, and the file there has {size}: remove it")
        file.write(data)
        there += len(data)
        tell(there, size)
        if there >= size:
            return size
    raise StreamCut(f"{there} bytes have come")


def settle(part: Path, target: Path, digest: str) -> None:
    """Give a whole download its name, if it is what it should be. Raises ClusterError; what is damaged is removed."""
    from ..stored import file_digest  # numpy, which the other commands need not wait for

    found = file_digest(part)
    if digest and found != digest:
        part.unlink()
        raise ClusterError(f"{target}: what came has the digest {found}, the job's status says {digest}: try again")
    part.replace(target)
