"""Chunks in order, each checked before it counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.chunks import Position, digest
from fedjob.errors import TransportError

Chunk = tuple[int, int, bytes, int]  # part, offset, data, digest


def cut(parts: list[bytes], size: int) -> list[Chunk]:
    """The parts in chunks of `size` bytes."""
    return [
        (i, at, part[at : at + size], digest(part[at : at + size]))
        for i, part in enumerate(parts)
        for at in range(0, len(part), size)
    ]


@given(st.lists(st.binary(max_size=30), max_size=4), st.integers(1, 40))
def test_chunks_in_order_complete_the_position(parts: list[bytes], size: int) -> None:
    position = Position([len(p) for p in parts])
    for i, at, data, check in cut(parts, size):
        assert not position.complete
        assert (position.part, position.offset) == (i, at)
        position.take(i, at, data, check)
    assert position.complete
    assert position.held == sum(map(len, parts))


@settings(max_examples=200)
@given(
    parts=st.lists(st.binary(max_size=20), min_size=1, max_size=3),
    size=st.integers(1, 9),
    choices=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=30),
)
def test_doubled_lost_reordered_and_damaged_chunks_leave_the_position_where_it_stands(
    parts: list[bytes], size: int, choices: list[tuple[int, bool]]
) -> None:
    """Whatever arrives, what the position counts as held is a prefix of the very bytes."""
    chunks = cut(parts, size)
    position = Position([len(p) for p in parts])
    held = b""
    for which, damaged in choices:
        if not chunks:
            break
        i, at, data, check = chunks[which % len(chunks)]
        if damaged:
            data = bytes([data[0] ^ 1]) + data[1:]
        before = (position.part, position.offset)
        try:
            position.take(i, at, data, check)
            held += data
        except TransportError:
            assert (position.part, position.offset) == before
    assert position.held == len(held)
    assert b"".join(parts).startswith(held)


@pytest.mark.parametrize(
    ("part", "offset", "data", "message"),
    [
        pytest.param(0, 0, b"", "chunk of 0 bytes", id="an empty chunk"),
        pytest.param(0, 0, b"123456", "chunk of 6 bytes at 0 of a part of 5", id="a chunk beyond its part"),
        pytest.param(0, 2, b"1", "part 0 at 2 where part 0 at 0 was expected", id="a chunk after a gap"),
        pytest.param(1, 0, b"1", "part 1 at 0 where part 0 at 0 was expected", id="a chunk of a later part"),
        pytest.param(7, 0, b"1", "part 7 at 0 where", id="a chunk of a part that was not announced"),
    ],
)
def test_a_chunk_that_is_not_the_next_is_refused_with_both_places(
    part: int, offset: int, data: bytes, message: str
) -> None:
    with pytest.raises(TransportError, match=message):
        Position([5, 5]).take(part, offset, data, digest(data))


def test_a_chunk_after_the_last_is_refused() -> None:
    with pytest.raises(TransportError, match="after the last byte"):
        Position([0, 0]).take(0, 0, b"x", digest(b"x"))


def test_damage_is_told_from_the_digest() -> None:
    with pytest.raises(TransportError, match="damaged on the way"):
        Position([3]).take(0, 0, b"abc", digest(b"abd"))


def test_empty_parts_are_held_from_the_start() -> None:
    assert Position([]).complete
    assert Position([0, 0]).complete
    assert Position([0, 3]).part == 1
    assert Position([3, 0], 0, 3).complete
