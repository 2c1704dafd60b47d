"""Messages of wire.proto that no honest peer would send, made from the descriptors: a new field is covered by itself."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from fedjob.chunks import CHUNK_BYTES

_F = FieldDescriptor
TEXTS = st.sampled_from(
    [
        "",
        "\0",
        "a\nb",
        "../../x",
        "/etc/x",
        "params",
        "optimizer_params",
        "Train",
        "a" * 300,
        "é\u2028",
        "[bold]",
        "{}",
        "0" * 32,
        "{" * 5000,
    ]
)
_OF_TYPE: dict[int, st.SearchStrategy[Any]] = {
    _F.TYPE_STRING: TEXTS,
    _F.TYPE_BYTES: st.binary(max_size=20),
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_DOUBLE: st.floats(),
    _F.TYPE_UINT32: st.sampled_from([0, 1, 2, 2**31, 2**32 - 1]),
    _F.TYPE_UINT64: st.sampled_from([0, 1, 2, CHUNK_BYTES, 2**32, 2**62, 2**63, 2**64 - 1]),
    _F.TYPE_INT64: st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]),
}


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    one = made_up(field.message_type) if field.message_type else _OF_TYPE[field.type]
    return st.lists(one, max_size=12) if field.is_repeated else one


@st.composite
def made_up(draw: st.DrawFn, kind: Descriptor) -> Message:
    """A message of this kind with some of its fields, and any values in them."""
    return draw(altered(GetMessageClass(kind)(), most=len(kind.fields)))


@st.composite
def altered(draw: st.DrawFn, message: Message, most: int = 2) -> Message:
    """A copy of a message with up to `most` of its fields made up anew, here or in one of the messages inside."""
    copy = type(message)()
    copy.CopyFrom(message)
    fields = list(message.DESCRIPTOR.fields)
    for field in draw(st.lists(st.sampled_from(fields), max_size=most)) if fields else ():
        if field.message_type and not field.is_repeated and copy.HasField(field.name) and draw(st.booleans()):
            getattr(copy, field.name).CopyFrom(draw(altered(getattr(copy, field.name))))
            continue
        copy.ClearField(field.name)
        value = draw(_value(field))
        if field.is_repeated:
            getattr(copy, field.name).extend(value)
        elif field.message_type:
            getattr(copy, field.name).CopyFrom(value)
            getattr(copy, field.name).SetInParent()  # it is there, also if it has nothing inside
        else:
            setattr(copy, field.name, value)
    return copy
