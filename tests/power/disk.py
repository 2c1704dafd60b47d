"""A disk that keeps what was forced to it, and at a power cut perhaps some of the rest: a model without I/O.

A file is forced to the disk by itself, and its names with their folder. What was not forced may be there or not after a cut:
each name in any of the states that it has had since, whatever becomes of others; each write, but a file grows only from its
end on, as file systems with a journal see to.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

Kept = Literal["nothing", "names", "some"]  # of what was not forced: nothing; all names and no data; a part, drawn


@dataclass(eq=False)
class File:
    """What is in a file for its readers, what the disk has of it, and each change between: an offset, and bytes or a size."""

    number: int
    data: bytearray = field(default_factory=bytearray)
    forced: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    links: int = 1

    def write(self, offset: int, data: bytes) -> None:
        """Bytes at an offset; a hole before them is zeros."""
        _put(self.data, offset, data)
        self.since.append((offset, data))

    def truncate(self, size: int) -> None:
        """Cut it, or extend it by zeros."""
        _put(self.data, size, None)
        self.since.append((size, None))

    def force(self) -> None:
        """All of it is on the disk."""
        self.forced, self.since = bytes(self.data), []

    def after_cut(self, kept: Kept, draw: random.Random) -> bytes:
        """What a cut leaves."""
        data = bytearray(self.forced)
        if kept == "some":
            for offset, change in self.since:
                if draw.random() < 0.5:
                    _put(data, offset, change)
                elif change is None or offset + len(change) > len(data):
                    break  # nothing behind what a file did not grow by
        return bytes(data)


@dataclass(eq=False)
class Folder:
    """Names as its readers see them, as the disk has them, and each change between: a name, and what it has come to mean."""

    number: int
    names: dict[str, File | Folder] = field(default_factory=dict)
    forced: dict[str, File | Folder] = field(default_factory=dict)
    since: list[tuple[str, File | Folder | None]] = field(default_factory=list)

    def name(self, name: str, node: File | Folder | None) -> None:
        """Let a name mean a file or a folder, or nothing any more."""
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node
        self.since.append((name, node))

    def force(self) -> None:
        """Its names are on the disk."""
        self.forced, self.since = dict(self.names), []

    def after_cut(self, kept: Kept, draw: random.Random) -> dict[str, File | Folder]:
        """The names that a cut leaves."""
        if kept == "names":
            return dict(self.names)
        left: dict[str, File | Folder | None] = dict(self.forced)
        if kept == "some":
            for name in dict.fromkeys(name for name, _ in self.since):
                states = [left.get(name), *(node for changed, node in self.since if changed == name)]
                left[name] = draw.choice(states)
        return {name: node for name, node in left.items() if node is not None}


class Disk:
    """Files and folders below `root`."""

    def __init__(self) -> None:
        self._numbers = 1
        self.root = Folder(1)

    def number(self) -> int:
        """One that no file has had."""
        self._numbers += 1
        return self._numbers

    def cut(self, kept: Kept, seed: int) -> Disk:
        """The disk as it is when the power comes back."""
        after, draw, seen = Disk(), random.Random(seed), dict[int, File | Folder]()

        def survivor(node: File | Folder) -> File | Folder:
            if node.number in seen:
                return seen[node.number]
            if isinstance(node, File):
                data = node.after_cut(kept, draw)
                seen[node.number] = File(node.number, bytearray(data), data, links=0)
                return seen[node.number]
            folder = seen[node.number] = Folder(node.number)
            for name, below in node.after_cut(kept, draw).items():
                folder.names[name] = found = survivor(below)
                if isinstance(found, File):
                    found.links += 1
            folder.force()
            return folder

        root = survivor(self.root)
        assert isinstance(root, Folder)
        after.root, after._numbers = root, self._numbers
        return after


def _put(data: bytearray, offset: int, change: bytes | None) -> None:
    """A change of a file: bytes at an offset, or None: this is its size."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    if change is None:
        del data[offset:]
    else:
        data[offset : offset + len(change)] = change
