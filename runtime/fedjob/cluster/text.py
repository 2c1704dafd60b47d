"""Text from elsewhere, made harmless for a terminal.  PURE

A site's log and a status are written by others: an escape sequence in them could rewrite what a person sees.
"""

from __future__ import annotations

_CONTROL = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) != "\t"}


def printable(text: str) -> str:
    """One line without control characters; line ends become spaces."""
    return " ".join(text.splitlines()).translate(_CONTROL)
