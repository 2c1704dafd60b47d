"""What the pages give people to paste."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def pasted(page: str, command: str) -> str:
    """The text that a command of a page reads, `command <<EOF`; the page has one such command."""
    [text] = re.findall(rf"^(?:\$ )?{re.escape(command)}.*?<<EOF\n(.*?)^EOF$", (_DOCS / page).read_text(), re.M | re.S)
    return str(text)


def blocks(page: str) -> list[str]:
    """The blocks of a page that are to be pasted into a shell whole."""
    return re.findall(r"^```sh\n(.*?)^```$", (_DOCS / page).read_text(), re.M | re.S)
