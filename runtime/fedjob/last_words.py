"""What a process has said last: the end of its log, where a traceback names its error."""

from __future__ import annotations

import re
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import BinaryIO

_TAIL_BYTES = 16_384
_LINE_BYTES = 2048  # more of a line is in no message
_BLOCK_BYTES = 1 << 16
_MOST_READ_BYTES = 1 << 26
_MOST_CHARACTERS = 300
_TRACEBACK = "Traceback (most recent call last):"
_SECONDARY = (
    "ChildFailedError",
    "CancelledError",
)  # of torchrun behind that of the script, of asyncio behind that of the server

_BESIDE = ("Exception in thread", "Exception ignored in", "--- Logging error ---")  # the script went on
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_LOGGED = re.compile(r"[IWEF]\d{4} \d\d:")  # torchrun's own lines, behind those of a script


def last_words(log: Path, since: int = 0) -> str:
    """`said_last` of what is behind `since` bytes of a log; "" if there is no such log."""
    try:
        with log.open("rb") as file:
            return said_last(_tail(file, since, file.seek(0, 2)).decode("utf-8", errors="replace"))
    except OSError:
        return ""


def _tail(file: BinaryIO, since: int, end: int) -> bytes:
    """The end of a log; of a long line its beginning, as an exception is named before its message, be that megabytes long."""
    first, lines, held, at = b"", list[bytes](), 0, end
    while at > since and held < _TAIL_BYTES and end - at < _MOST_READ_BYTES:
        size = min(at - since, _BLOCK_BYTES)
        at -= size
        file.seek(at)
        block = file.read(size).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        block[-1] += first
        first, *whole = (line[:_LINE_BYTES] for line in block)
        lines, held = [*whole, *lines], held + sum(map(len, whole)) + len(whole)
    return b"\n".join([first, *lines])[-_TAIL_BYTES:]


def said_last(text: str) -> str:
    """The exception that the main thread's last traceback names, else the text's last line; "" if there is none.

    One line of at most 300 characters, without what a terminal would obey.
    """
    lines = text.splitlines()
    line = " ".join((_exception(lines) or _last(lines)).split())
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return plain if len(plain) <= _MOST_CHARACTERS else f"{plain[: _MOST_CHARACTERS - 1]}…"


def _exception(lines: list[str]) -> str:
    """Of the last traceback of the main thread, else of the last one: the lines behind its frames, which are indented."""
    found, aside, beside = "", "", False
    for at, line in enumerate(lines):
        prefix, traceback, _ = line.partition(_TRACEBACK)  # torchrun puts a rank before each line
        if not traceback:
            continue
        before = next((each for each in reversed(lines[:at]) if each.strip(prefix + " ")), "").removeprefix(prefix)
        if not before.startswith(_CHAINED):
            beside = before.startswith(_BESIDE)
        named = _named(prefix, lines[at + 1 :])
        if named and beside:
            aside = named
        elif named and not (found and any(each in named.partition("\n")[0] for each in _SECONDARY)):
            found = named
    return found or aside


def _named(prefix: str, behind: list[str]) -> str:
    """The exception behind a traceback's frames, with those lines of its message that are indented or follow a colon.

    Any other line may be what the process has printed afterwards.
    """
    own = takewhile(lambda line: line.startswith(prefix), behind)
    plain = list(dropwhile(lambda line: not line or line[0].isspace(), (line.removeprefix(prefix) for line in own)))
    said = plain[:1]
    for line in plain[1:]:
        if not line.strip() or not (line[0].isspace() or said[-1].rstrip().endswith(":")) or _is_another(line):
            break
        said.append(line)
    return "\n".join(said)


def _is_another(line: str) -> bool:
    """Whether a line begins something else than the message of the exception above it."""
    return line.startswith((_TRACEBACK, *_BESIDE)) or _LOGGED.match(line) is not None


def _last(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")
