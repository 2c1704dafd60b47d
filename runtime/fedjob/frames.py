"""Chunks to bytes and back, in protobuf's format, without its copies.  PURE

A chunk is nearly all of what travels. The protobuf library copies its data into an arena, out of it, and once more where the
chunk is a part of a Frame: at these sizes that costs as much as the checksum. Here the header is put before the data, one
copy, and what arrives is looked at where it lies. Anything else than a chunk is small, and goes through the library.

Reading takes time linear in the message's length at the most, and a chunk has few fields: what a peer sends is read before anybody
has judged it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from . import wire_pb2 as wire
from .api.limits import CHUNK_FIELDS, SMALL_MESSAGE_BYTES
from .errors import TransportError
from .wire_text import read_message

M = TypeVar("M", bound=Message)
_PART, _OFFSET, _DIGEST, _DATA = 0x08, 0x10, 0x1A, 0x22  # field number << 3 | wire type, of wire.Chunk
_CHUNK_IN_FRAME = 0x12
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True, slots=True)
class Piece:
    """A wire.Chunk whose data is a view into the message that brought it."""

    part: int
    offset: int
    digest: bytes
    data: bytes | bytearray | memoryview


def chunk(piece: Piece) -> bytes:
    """The bytes of a wire.Chunk."""
    return b"".join((_head(piece), piece.data))


def chunk_frame(piece: Piece) -> bytes:
    """The bytes of a wire.Frame that holds the chunk."""
    head = _head(piece)
    return b"".join((bytes((_CHUNK_IN_FRAME,)), _varint(len(head) + len(piece.data)), head, piece.data))


def read_chunk(message: bytes) -> Piece:
    """A wire.Chunk. Raises TransportError if it is none."""
    return _read(memoryview(message))


def read_frame(message: bytes) -> Piece | wire.Frame:
    """A wire.Frame, as the Piece in it if it is a chunk. Raises TransportError if it is none."""
    view = memoryview(message)
    if view[:1] == bytes((_CHUNK_IN_FRAME,)):
        length, at = _read_varint(view, 1)
        if at + length == len(view):  # nothing behind it
            return _read(view[at:])
    frame = read_small(wire.Frame, message)
    if frame.HasField("chunk"):
        c = frame.chunk
        return Piece(c.part, c.offset, c.digest, c.data)
    return frame


def read_small(kind: type[M], message: bytes) -> M:
    """A message of this kind. Raises TransportError if it is none, or longer than any of ours that holds no chunk."""
    name = kind.DESCRIPTOR.name
    if len(message) > SMALL_MESSAGE_BYTES.value:
        raise TransportError(
            f"the message {name} has {len(message)} bytes; allowed: {SMALL_MESSAGE_BYTES.value} without a chunk"
        )
    try:
        return read_message(kind, message)
    except Exception as e:  # noqa: BLE001 - the library's own error type is not public
        raise TransportError(f"the message {name} cannot be read: {e}") from None


def _head(piece: Piece) -> bytes:
    """All fields before the data, and the data's length; a zero is left out, as the library does."""
    head = b""
    if piece.part:
        head += bytes((_PART,)) + _varint(piece.part)
    if piece.offset:
        head += bytes((_OFFSET,)) + _varint(piece.offset)
    if piece.digest:
        head += bytes((_DIGEST,)) + _varint(len(piece.digest)) + piece.digest
    return head + (bytes((_DATA,)) + _varint(len(piece.data)) if piece.data else b"")


def _read(view: memoryview) -> Piece:
    part = offset = at = fields = 0
    digest, data = b"", view[:0]
    while at < len(view):
        if fields == CHUNK_FIELDS.value:
            raise TransportError(f"a chunk of more than {CHUNK_FIELDS.value} fields; the format has 4")
        fields += 1
        tag, at = _read_varint(view, at)
        value: int | memoryview
        if tag & 7 == _VARINT:
            value, at = _read_varint(view, at)
        else:
            length, at = (8, at) if tag & 7 == _FIXED64 else (4, at) if tag & 7 == _FIXED32 else _length(view, at, tag)
            value, at = view[at : at + length], at + length
        if at > len(view):
            raise TransportError("a chunk is cut short")
        if tag == _PART and isinstance(value, int):
            part = value & 0xFFFF_FFFF
        elif tag == _OFFSET and isinstance(value, int):
            offset = value
        elif tag == _DIGEST and isinstance(value, memoryview):
            digest = bytes(value)
        elif tag == _DATA and isinstance(value, memoryview):
            data = value
    return Piece(part, offset, digest, data)


def _length(view: memoryview, at: int, tag: int) -> tuple[int, int]:
    if tag & 7 != _BYTES:
        raise TransportError(f"a chunk has a field of unknown kind {tag & 7}")
    return _read_varint(view, at)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next field begins."""
    value = shift = 0
    while at < len(view) and shift < 64:  # ten bytes at the most
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise TransportError("a number in a message is cut short or too long")
