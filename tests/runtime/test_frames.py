"""Chunks in protobuf's format without its library: the same bytes, and the same reading of any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob import wire_pb2 as wire
from fedjob.errors import TransportError
from fedjob.frames import Piece, chunk, chunk_frame, read_chunk, read_frame

pieces = st.builds(
    Piece,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    st.binary(max_size=300),
)


def of_library(c: wire.Chunk) -> Piece:
    return Piece(c.part, c.offset, c.digest, c.data)


@given(pieces)
def test_what_is_written_is_what_the_library_writes_and_reads(piece: Piece) -> None:
    message = wire.Chunk(part=piece.part, offset=piece.offset, digest=piece.digest, data=bytes(piece.data))
    assert chunk(piece) == message.SerializeToString()
    assert chunk_frame(piece) == wire.Frame(chunk=message).SerializeToString()
    assert read_chunk(chunk(piece)) == piece
    assert read_frame(chunk_frame(piece)) == piece


@given(st.lists(st.sampled_from("abcdx"), max_size=8), pieces)
def test_fields_in_any_order_doubled_or_unknown_are_read_as_the_library_reads_them(order: list[str], p: Piece) -> None:
    fields = {
        "a": wire.Chunk(part=p.part).SerializeToString(),
        "b": wire.Chunk(offset=p.offset).SerializeToString(),
        "c": wire.Chunk(digest=p.digest).SerializeToString(),
        "d": wire.Chunk(data=bytes(p.data)).SerializeToString(),
        "x": b"\x7a\x02hi\x79\0\0\0\0\0\0\0\0\x7d\0\0\0\0\x78\x01",  # field 15, of each kind that there is
    }
    message = b"".join(fields[f] for f in order)
    assert read_chunk(message) == of_library(wire.Chunk.FromString(message))


@given(st.binary(max_size=80))
def test_any_bytes_are_read_as_a_chunk_or_refused_by_name(message: bytes) -> None:
    try:
        read_frame(message)
        read_chunk(message)
    except TransportError:
        return


def test_other_frames_go_through_the_library() -> None:
    seal = wire.Frame(seal=wire.Seal(digests=["a"]))
    assert read_frame(seal.SerializeToString()) == seal


def test_a_chunk_with_something_behind_it_is_still_a_chunk() -> None:
    message = chunk_frame(Piece(1, 2, b"d" * 16, b"x")) + b"\x78\x01"
    assert read_frame(message) == Piece(1, 2, b"d" * 16, b"x")


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_chunk_that_is_cut_short_is_refused(cut: int) -> None:
    whole = chunk(Piece(300, 1 << 40, b"d" * 16, b"x" * 200))
    message = whole[: len(whole) - cut]
    with pytest.raises(TransportError):
        read_chunk(message)


def test_a_piece_is_a_view_into_its_message() -> None:
    message = chunk(Piece(0, 0, b"d" * 16, b"x" * 100))
    data = read_chunk(message).data
    assert isinstance(data, memoryview)
    assert data.obj is message
