"""Chunks altered at will: read without the library as with it, or refused by name."""

from __future__ import annotations

import os

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import wire_pb2 as wire
from fedjob.errors import TransportError
from fedjob.frames import Piece, read_chunk, read_frame
from fuzz.bounds import allocating_at_most

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
CONSTANT = 1 << 16
CHUNK = wire.Chunk(part=1, offset=1 << 20, digest=b"d" * 16, data=b"data" * 10)
FRAME = wire.Frame(chunk=CHUNK)
ALTERED = st.tuples(st.integers(0, 79), st.binary(min_size=1, max_size=6), st.integers(0, 4))


def cut_in(message: bytes, at: int, inserted: bytes, removed: int) -> bytes:
    at %= len(message)
    return message[:at] + inserted + message[at + removed :]


@settings(deadline=None, max_examples=EXAMPLES)
@given(ALTERED)
def test_an_altered_chunk_that_is_read_is_what_the_library_reads_if_it_reads_it(how: tuple[int, bytes, int]) -> None:
    message = cut_in(CHUNK.SerializeToString(), *how)
    try:
        of_library = wire.Chunk.FromString(message)
    except DecodeError:
        of_library = None
    with allocating_at_most(CONSTANT):
        try:
            piece = read_chunk(message)
        except TransportError:
            return
    if of_library is not None:
        assert piece == Piece(of_library.part, of_library.offset, of_library.digest, of_library.data)


@settings(deadline=None, max_examples=EXAMPLES)
@given(ALTERED)
def test_an_altered_frame_is_read_or_refused(how: tuple[int, bytes, int]) -> None:
    with allocating_at_most(CONSTANT):
        try:
            read_frame(cut_in(FRAME.SerializeToString(), *how))
        except TransportError:
            return
