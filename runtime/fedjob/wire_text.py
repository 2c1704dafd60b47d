"""Text in messages, made harmless as it arrives (`text`): no caller sees what the other side wrote as it was.  PURE"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from .api.limits import SENTENCE
from .text import one_line

M = TypeVar("M", bound=Message)
JSON = frozenset({"fedjob.v1.Announce.header"})  # whoever parses it judges what is in it


def read_message(kind: type[M], data: bytes) -> M:
    """A message of this kind, its text harmless. Raises what the library raises for bytes that are none."""
    return harmless(kind.FromString(data))


def harmless(message: M) -> M:
    """The message itself, each text in it now one line of bounded length without what acts on a terminal."""
    for field, value in message.ListFields() if _has_text(message.DESCRIPTOR) else ():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in _each(field, value):
                harmless(inner)
        elif field.type == FieldDescriptor.TYPE_STRING and field.full_name not in JSON:
            plain = [one_line(text, SENTENCE.value) for text in _each(field, value)]
            if field.is_repeated:
                value[:] = plain
            else:
                setattr(message, field.name, plain[0])
    return message


def _each(field: FieldDescriptor, value: Any) -> Iterable[Any]:
    return value if field.is_repeated else (value,)


@cache
def _has_text(kind: Descriptor) -> bool:
    """Whether a message of this kind, or one in it, has text: chunks and ranges, of which there are many, have none."""
    return any(
        field.type == FieldDescriptor.TYPE_STRING
        or (field.type == FieldDescriptor.TYPE_MESSAGE and _has_text(field.message_type))
        for field in kind.fields
    )
