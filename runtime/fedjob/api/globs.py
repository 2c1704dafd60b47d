"""Glob patterns, matched without backtracking: time grows with pattern and text, whatever both say.  PURE

A pattern falls at its stars into pieces. The first piece must begin the text and the last one end it; each of those between is
taken where it comes first, because a later place would leave less text to the pieces behind it. No choice is ever taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_PATTERNS_KEPT = (
    1024  # cut patterns that are remembered: names of tensors are tried against the same few again and again
)


def fits_path(pattern: str, text: str) -> bool:
    """Whether `pattern` fits all of `text`. `*` stands for any text without `/`; everything else stands for itself."""
    patterns, texts = pattern.split("/"), text.split("/")
    return len(patterns) == len(texts) and all(map(_fits_literally, patterns, texts))


def fits_name(pattern: str, name: str) -> bool:
    """Whether `pattern` fits all of `name`, capitals and all.

    `*` stands for any text, `?` for any character, `[a-z]` for one of those listed, `[!a-z]` for one of the others. A `[` that is
    never closed stands for itself.
    """
    return _in_order(_pieces(pattern), name)


@dataclass(frozen=True)
class _Literal:
    text: str

    def __len__(self) -> int:
        return len(self.text)

    def at(self, text: str, start: int) -> bool:
        return text.startswith(self.text, start)

    def find(self, text: str, start: int, stop: int) -> int:
        """Where the piece comes first in text[start:stop], -1 if it does not."""
        return text.find(self.text, start, stop)


@dataclass(frozen=True)
class _One:
    """One character: of these ranges, or of none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def __call__(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) != self.negated


@dataclass(frozen=True)
class _Classes:
    """A piece with `?` or `[…]`: what each of its characters may be."""

    ones: tuple[_One, ...]

    def __len__(self) -> int:
        return len(self.ones)

    def at(self, text: str, start: int) -> bool:
        return len(text) - start >= len(self) and all(
            one(char) for one, char in zip(self.ones, text[start:], strict=False)
        )

    def find(self, text: str, start: int, stop: int) -> int:
        """As of `_Literal`. Bit i of `alive`: the i + 1 characters read last fit the first i + 1 of the piece."""
        masks: dict[str, int] = {}
        alive, done = 0, 1 << len(self) - 1
        for at in range(start, stop):
            char = text[at]
            if char not in masks:
                masks[char] = sum(1 << i for i, one in enumerate(self.ones) if one(char))
            alive = (alive << 1 | 1) & masks[char]
            if alive & done:
                return at + 1 - len(self)
        return -1


_Piece = _Literal | _Classes


def _fits_literally(pattern: str, text: str) -> bool:
    return _in_order([_Literal(piece) for piece in pattern.split("*")], text)


def _in_order(pieces: Sequence[_Piece], text: str) -> bool:
    first, *middle = pieces
    if not middle:
        return len(first) == len(text) and first.at(text, 0)
    last = middle.pop()
    start, stop = len(first), len(text) - len(last)
    if stop < start or not first.at(text, 0) or not last.at(text, stop):
        return False
    for piece in middle:
        found = piece.find(text, start, stop) if len(piece) else start
        if found < 0:
            return False
        start = found + len(piece)
    return True


@lru_cache(_PATTERNS_KEPT)
def _pieces(pattern: str) -> tuple[_Piece, ...]:
    found: list[list[str | _One]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        end = _end_of_class(pattern, at) if char == "[" else -1
        if char == "*":
            found.append([])
        elif char == "?":
            found[-1].append(_One((), negated=True))
        elif end > 0:
            found[-1].append(_class(pattern[at + 1 : end]))
            at = end
        else:
            found[-1].append(char)
        at += 1
    return tuple(map(_piece, found))


def _piece(ones: Sequence[str | _One]) -> _Piece:
    if all(isinstance(one, str) for one in ones):
        return _Literal("".join(map(str, ones)))
    return _Classes(tuple(_One(((one, one),), negated=False) if isinstance(one, str) else one for one in ones))


def _end_of_class(pattern: str, start: int) -> int:
    """Where the `]` is that closes the `[` at `start`, -1 if none does. The first character listed may be a `]`."""
    return pattern.find("]", start + (3 if pattern[start + 1 : start + 2] == "!" else 2))


def _class(body: str) -> _One:
    listed = body.removeprefix("!")
    ranges, at = [], 0
    while at < len(listed):
        to = at + 2 if listed[at + 1 : at + 2] == "-" and at + 2 < len(listed) else at
        ranges.append((listed[at], listed[to]))
        at = to + 1
    return _One(tuple(ranges), negated=body != listed)
