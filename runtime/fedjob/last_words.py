"""What a process has said last: the end of its log, where a traceback names its error."""

from __future__ import annotations

from pathlib import Path

_TAIL_BYTES = 16_384
_MOST_CHARACTERS = 300
_TRACEBACK = "Traceback (most recent call last):"
_SECONDARY = (
    "ChildFailedError",
    "CancelledError",
)  # of torchrun behind that of the script, of asyncio behind that of the server


def last_words(log: Path, since: int = 0) -> str:
    """`said_last` of what is behind `since` bytes of a log; "" if there is no such log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since, size - _TAIL_BYTES, 0))
            return said_last(file.read(_TAIL_BYTES).decode("utf-8", errors="replace"))
    except OSError:
        return ""


def said_last(text: str) -> str:
    """The exception that the last traceback of a text names, else its last line; "" if there is none.

    One line of at most 300 characters, without what a terminal would obey.
    """
    lines = text.splitlines()
    line = " ".join((_exception(lines) or _last(lines)).split())
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return plain if len(plain) <= _MOST_CHARACTERS else f"{plain[: _MOST_CHARACTERS - 1]}…"


def _exception(lines: list[str]) -> str:
    """Of the last traceback: the first line behind its frames, which are indented."""
    found = ""
    for at, line in enumerate(lines):
        prefix, traceback, _ = line.partition(_TRACEBACK)  # torchrun puts a rank before each line
        if traceback:
            behind = (each.removeprefix(prefix) for each in lines[at + 1 :])
            named = next((each for each in behind if each.strip() and not each[0].isspace()), "")
            if named and not (found and any(each in named for each in _SECONDARY)):
                found = named
    return found


def _last(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")
