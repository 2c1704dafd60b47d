"""Logs of many processes as one: lines with the time that the kubelet gave them, merged by it.  PURE but for waiting"""

from __future__ import annotations

import heapq
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..text import lines

_COLOURS = (36, 33, 35, 34, 32, 96, 93, 95, 94, 92)  # of a terminal; red is for what is wrong
_SERVER_COLOUR = 1  # bold


@dataclass(frozen=True, order=True)
class Line:
    """One line of one log. at: nanoseconds since the epoch. source: "server", or a site's name."""

    at: int
    source: str
    text: str


def parsed(raw: bytes, source: str, before: int) -> Line:
    """A line as the kubelet gives it, its time first. before: the time of the line before, for one that has none."""
    stamp, _, text = raw.decode(errors="replace").partition(" ")
    try:
        return Line(nanoseconds(stamp), source, text)
    except ValueError:
        return Line(before, source, raw.decode(errors="replace"))


def nanoseconds(stamp: str) -> int:
    """An RFC 3339 time, of any precision and offset. Raises ValueError for anything else."""
    whole, point, rest = stamp.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    moment = datetime.fromisoformat(whole + rest[len(digits) :] if point else stamp)
    if moment.tzinfo is None or (point and not digits):
        raise ValueError(f"{stamp!r} is no time with an offset")
    return int(moment.timestamp()) * 1_000_000_000 + int(digits.ljust(9, "0")[:9] or 0)


async def merged(streams: Sequence[AsyncIterator[Line]]) -> AsyncIterator[Line]:
    """All lines of streams that end, the oldest first. Lines of one stream keep their order, whatever their times say.

    No more than one line of each stream is held.
    """
    heap: list[tuple[int, int, Line]] = []
    latest = [0] * len(streams)

    async def advance(index: int) -> None:
        line = await anext(streams[index], None)
        if line is not None:
            latest[index] = max(latest[index], line.at)
            heapq.heappush(heap, (latest[index], index, line))

    for index in range(len(streams)):
        await advance(index)
    while heap:
        _, index, line = heapq.heappop(heap)
        yield line
        await advance(index)


@dataclass(frozen=True)
class Page:
    """How lines are shown, each behind its source. terminal: for a person: in colours, and a line of JSON as what it says."""

    sources: Sequence[str]
    terminal: bool

    def of(self, line: Line) -> str:
        """The line as it is printed, with no control characters but our own: what a pipe gets may end on a terminal as well."""
        name = line.source.ljust(max(map(len, self.sources), default=0))
        if not self.terminal:
            return f"{name}  {lines(line.text)}"
        return f"\x1b[{self._colour(line.source)}m{name}\x1b[0m  {lines(_said(line.text))}"

    def _colour(self, source: str) -> int:
        role = source.partition("/")[0]
        if role == "server":
            return _SERVER_COLOUR
        sites = [name for name in self.sources if name != "server"]
        return _COLOURS[sites.index(role) % len(_COLOURS)] if role in sites else _COLOURS[0]


def _said(text: str) -> str:
    """Level and message of a line of JSON as our processes write them in pods, and the error's last line; else the text."""
    if not text.startswith("{"):
        return text
    try:
        record = json.loads(text)
        said = f"{record['level']} {record['message']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
    error = str(record.get("error") or "").strip().splitlines()
    return f"{said}: {error[-1]}" if error else said
