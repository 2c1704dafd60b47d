"""No text in any message of the wire reaches the code as the other side wrote it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from fedjob import frames
from fedjob import wire_pb2 as wire
from fedjob.api.limits import SENTENCE
from fedjob.text import one_line
from fedjob.wire_text import JSON, read_message

KINDS = [wire.DESCRIPTOR.message_types_by_name[name] for name in sorted(wire.DESCRIPTOR.message_types_by_name)]
RUNTIME = Path(frames.__file__).parent


def filled(kind: Descriptor, text: str) -> Message:
    """A message with this text in every place for text, but one of each choice: the last."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = filled(field.message_type, text)
            value = getattr(message, field.name)
            value.append(inner) if field.is_repeated else value.CopyFrom(inner)
        elif field.type == FieldDescriptor.TYPE_STRING:
            getattr(message, field.name).append(text) if field.is_repeated else setattr(message, field.name, text)
    return message


def texts(message: Message) -> Iterator[tuple[str, str]]:
    """Every text in a message, with its field's name."""
    for field, value in message.ListFields():
        for each in value if field.is_repeated else [value]:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from texts(each)
            elif field.type == FieldDescriptor.TYPE_STRING:
                yield field.full_name, each


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(text=st.one_of(st.text(st.characters(codec="utf-8"), min_size=1), st.just("\x1b[2J\r\n" * 1000)))
def test_every_text_of_every_message_is_one_harmless_line(kind: Descriptor, text: str) -> None:
    for field, arrived in texts(read_message(GetMessageClass(kind), filled(kind, text).SerializeToString())):
        assert arrived == (text if field in JSON else one_line(text, SENTENCE.value))


def test_what_is_harmless_arrives_as_it_was_sent() -> None:
    sent = wire.Downward(task=wire.Task(key=wire.Key(kind="Train", round=3), parts=[wire.Part(name="params", size=9)]))
    assert read_message(wire.Downward, sent.SerializeToString()) == sent
    assert frames.read_small(wire.Announce, wire.Announce(declined="a\nb").SerializeToString()).declined == "a b"


def parses(source: str) -> list[str]:
    """Calls that make a message from bytes."""
    ways = {"FromString", "ParseFromString", "MergeFromString"}
    return [n.attr for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute) and n.attr in ways]


def test_no_other_module_makes_a_message_from_bytes() -> None:
    """gang.py reads what its own rank 0 has written."""
    found = {p.name for p in RUNTIME.glob("**/*.py") if p.name != "wire_pb2.py" and parses(p.read_text("utf-8"))}
    assert found == {"wire_text.py", "gang.py"}
    assert parses("grpc.stream_stream(path, None, wire.Reply.FromString)") == ["FromString"]
