"""What a site takes from its server on the life line: checked, before anything is named, written or sized by it.  PURE"""

from __future__ import annotations

import re

from . import wire_pb2 as wire
from .api.limits import PART_BYTES, SENTENCE
from .errors import RemoteProtocolError
from .model import PARTS
from .text import one_line

_DIGEST = re.compile(r"[0-9a-f]{64}")


def checked(event: wire.Downward) -> wire.Downward:
    """The event, if a fedjob server may say it. Raises RemoteProtocolError, with what is wrong, for a task that none gives."""
    if event.HasField("task"):
        names = [part.name for part in event.task.parts]
        if len(set(names)) < len(names):
            raise RemoteProtocolError(
                f"the server's task names a part twice: {one_line(', '.join(names), SENTENCE.value)}"
            )
        for part in event.task.parts:
            _check(part)
    return event


def _check(part: wire.Part) -> None:
    if part.name not in PARTS:
        raise RemoteProtocolError(
            f"the server's task has a part {one_line(repr(part.name), SENTENCE.value)}; known: {', '.join(PARTS)}"
        )
    if not _DIGEST.fullmatch(part.digest):
        raise RemoteProtocolError(
            f"the server names {part.name} by {one_line(repr(part.digest), SENTENCE.value)}, which is no digest"
        )
    if part.size > (most := PART_BYTES.value):
        raise RemoteProtocolError(f"the server announces {part.name} of {part.size} bytes; at most {most}")
