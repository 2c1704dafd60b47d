"""Chunks in protobuf's format without its library: the same bytes, and the same reading of any bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedjob import frames
from fedjob import wire_pb2 as wire
from fedjob.api.limits import CHUNK_FIELDS, SMALL_MESSAGE_BYTES
from fedjob.errors import TransportError
from fedjob.frames import Piece, chunk, chunk_frame, read_chunk, read_frame, read_small

pieces = st.builds(
    Piece,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    st.binary(max_size=300),
)


def of_library(c: wire.Chunk) -> Piece:
    return Piece(c.part, c.offset, c.digest, c.data)


@example(Piece(127, 127, b"d" * 127, b"x" * 127))  # the last numbers of one byte
@example(Piece(128, 128, b"d" * 128, b"x" * 128))
@given(pieces)
def test_what_is_written_is_what_the_library_writes_and_reads(piece: Piece) -> None:
    message = wire.Chunk(part=piece.part, offset=piece.offset, digest=piece.digest, data=bytes(piece.data))
    assert chunk(piece) == message.SerializeToString()
    assert chunk_frame(piece) == wire.Frame(chunk=message).SerializeToString()
    assert read_chunk(chunk(piece)) == piece
    assert read_frame(chunk_frame(piece)) == piece


@given(st.lists(st.sampled_from("abcdx"), max_size=CHUNK_FIELDS.value // 4), pieces)
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


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        pytest.param(b"\x08", "a number in a message is cut short or too long", id="no number"),
        pytest.param(b"\x08\x80", "a number in a message is cut short or too long", id="half a number"),
        pytest.param(b"\x22\x02x", "a chunk is cut short", id="half of the data"),
        pytest.param(b"\x79" + bytes(7), "a chunk is cut short", id="seven bytes of eight"),
        pytest.param(b"\x7d" + bytes(3), "a chunk is cut short", id="three bytes of four"),
        pytest.param(b"\x0b", "a chunk has a field of unknown kind 3", id="a group"),
        pytest.param(b"\x08\x01" * 17, "a chunk of more than 16 fields; the format has 4", id="too many fields"),
    ],
)
def test_what_is_wrong_with_a_chunk_is_said(message: bytes, refusal: str) -> None:
    with pytest.raises(TransportError) as error:
        read_chunk(message)
    assert str(error.value) == refusal


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x08\xff\xff\xff\xff\xff\x01\x22\x01x", id="a part beyond 32 bits"),
        pytest.param(b"\x10" + b"\xff" * 9 + b"\x7f", id="an offset beyond 64 bits"),
        pytest.param(b"\x0a\x01\x07\x18\x05\x20\x06", id="each field of another kind"),
        pytest.param(b"\x79" + b"\xff" * 8 + b"\x08\x05", id="an unknown number of eight bytes before a part"),
        pytest.param(b"\x7d" + b"\xff" * 4 + b"\x08\x05", id="an unknown number of four bytes before a part"),
        pytest.param(b"\x7a\x03\xff\xff\xff\x08\x05", id="unknown bytes before a part"),
        pytest.param(b"\x22\x01a\x22\x01b\x08\x01\x08\x02", id="twice: the last one counts"),
    ],
)
def test_odd_chunks_are_read_as_the_library_reads_them(message: bytes) -> None:
    assert read_chunk(message) == of_library(wire.Chunk.FromString(message))
    frame = b"\x12" + bytes([len(message)]) + message
    assert read_frame(frame) == of_library(wire.Frame.FromString(frame).chunk)


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


@pytest.mark.parametrize("field", [b"\x08\x00", b"\x22\x00", b"\x7a\x00", b"\x78\x01", b"\x79" + bytes(8)])
def test_a_chunk_of_too_many_fields_is_refused_before_all_of_them_are_read(
    field: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = frames._read_varint
    monkeypatch.setattr(frames, "_read_varint", lambda view, at: reads.append(at) or real(view, at))
    body = field * ((1 << 20) // len(field))
    with pytest.raises(TransportError, match="more than 16 fields"):
        read_chunk(body)
    with pytest.raises(TransportError, match="more than 16 fields"):
        read_frame(b"\x12" + frames._varint(len(body)) + body)
    assert len(reads) < 6 * CHUNK_FIELDS.value


def test_a_chunk_of_as_many_fields_as_are_allowed_is_read() -> None:
    assert read_chunk(b"\x08\x07" * CHUNK_FIELDS.value).part == 7


@pytest.mark.parametrize("tail", [b"\x78\x01", b"\x1a\x00", b"\x22\x00"])
def test_a_message_without_a_chunk_is_small(tail: bytes) -> None:
    """A million parts, or fields of no meaning, would each be an object in memory."""
    message = tail * (SMALL_MESSAGE_BYTES.value // len(tail) + 1)
    with pytest.raises(TransportError, match=f"allowed: {SMALL_MESSAGE_BYTES.value}"):
        read_frame(message)
    with pytest.raises(TransportError, match="the message Upward has"):
        read_small(wire.Upward, message)


def test_a_message_may_be_as_long_as_is_allowed_and_no_longer() -> None:
    most = SMALL_MESSAGE_BYTES.value
    assert read_small(wire.Upward, b"\x78\x01" * (most // 2)) is not None
    with pytest.raises(TransportError) as error:
        read_small(wire.Upward, b"\x78\x01" * (most // 2) + b"\0")
    assert str(error.value) == f"the message Upward has {most + 1} bytes; allowed: {most} without a chunk"


@pytest.mark.parametrize("kind", [wire.Upward, wire.Wanted])
def test_a_small_message_is_read_or_refused_by_its_kind(kind: type) -> None:
    assert read_small(kind, b"") == kind()
    with pytest.raises(TransportError, match=f"the message {kind.__name__} cannot be read"):
        read_small(kind, b"\xff")


@pytest.mark.parametrize("bytes_of_it", [10, 11])
def test_a_number_has_ten_bytes_at_the_most(bytes_of_it: int) -> None:
    number = b"\x80" * (bytes_of_it - 1) + b"\x01"
    if bytes_of_it == 10:
        assert read_chunk(b"\x08" + number).part == 0
        return
    with pytest.raises(TransportError, match="too long"):
        read_chunk(b"\x08" + number)
