"""Text that others wrote, made harmless for terminals, logs and pages.  PURE

Metric names, log keys, error texts and file names come from sites, scripts and job files. An escape sequence in one of them could
clear a screen or fill a clipboard, a line end could forge a line, a bidirectional override could reorder what is read.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(r"[ \t]*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+[ \t]*")
# Printable to Python, and yet nothing that can be seen: fillers, joiners and selectors without a glyph.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
_SPACES = frozenset("\t\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")


def one_line(text: str, most: int | None = None) -> str:
    r"""`text` on one line, with nothing in it that acts on a terminal or cannot be seen.

    Line ends and all kinds of blanks become spaces; control and format characters and lone surrogates are shown as Python writes
    them, `\x1b`. most: bytes of UTF-8 at the most, a cut is marked with "…".
    """
    if most is not None:
        text = text[: most + 1]  # no character takes less than a byte
    if not (text.isprintable() and _INVISIBLE.isdisjoint(text)):
        text = "".join(map(_shown, _LINE_END.sub(" ", text)))
    return text if most is None else cut(text, most)


def lines(text: str) -> str:
    """`text` of several lines, each as `one_line` gives it; tabs stay."""
    return "\n".join("\t".join(map(one_line, line.split("\t"))) for line in text.replace("\r\n", "\n").split("\n"))


def cut(text: str, most: int) -> str:
    """The beginning of `text` in at most `most` bytes of UTF-8, "…" at its end where something was cut. most: at least 3."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= most:
        return text
    return encoded[: most - 3].decode(errors="ignore") + "…"


def _shown(character: str) -> str:
    if character in _SPACES:
        return " "
    if character.isprintable() and character not in _INVISIBLE:
        return character
    return character.encode("unicode_escape").decode()
