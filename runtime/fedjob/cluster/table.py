"""The table of `fedjob get`: the API server's own columns, printed as kubectl prints them.  PURE"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..text import one_line

ACCEPT = "application/json;as=Table;v=v1;g=meta.k8s.io"
_GAP = "   "


def rows(found: Mapping[str, Any], *, wide: bool, namespaces: bool) -> list[list[str]]:
    """A header and a row for each object of a Table. wide: also the columns of `-o wide`; namespaces: and where each is."""
    columns = [i for i, column in enumerate(found["columnDefinitions"]) if wide or not column.get("priority")]
    head = [found["columnDefinitions"][i]["name"].upper() for i in columns]
    made = [["NAMESPACE", *head] if namespaces else head]
    for row in found.get("rows") or ():
        cells = [_cell(row["cells"][i]) for i in columns]
        made.append([row["object"]["metadata"]["namespace"], *cells] if namespaces else cells)
    return made


def text(table: Sequence[Sequence[str]]) -> str:
    """A table as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else one_line(str(value)) if not isinstance(value, bool) else str(value).lower()
