"""Named tuples by name: a tree says which class one was, and it is made again where that class is.  PURE

A name that came from elsewhere imports nothing and runs nothing: only a class that this process has loaded already is taken,
and only a tuple with the same fields.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import CodecError


def is_named(value: tuple[Any, ...]) -> bool:
    """Whether a tuple is a named tuple."""
    return isinstance(getattr(type(value), "_fields", None), tuple)


def name_of(kind: type) -> str:
    """`module:Class`, by which `made` finds the class again; "" if it cannot: a class made inside of a function."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    return name if _find(name) is kind else ""


def made(name: str, fields: Sequence[str], values: Iterable[Any]) -> Any:
    """The named tuple. Raises CodecError if this process has no such class."""
    kind = _find(name)
    if not (isinstance(kind, type) and issubclass(kind, tuple) and getattr(kind, "_fields", None) == tuple(fields)):
        raise CodecError(
            f"the tree has a named tuple {name[:200]!r} with the fields {', '.join(fields)[:200]}, and this script has none; "
            "import or define it before fedjob.receive()"
        )
    return tuple.__new__(kind, values)


def _find(name: str) -> Any:
    """What `module:Class` or `module:Outer.Class` names, if it is loaded; looked up without running any `__getattr__`."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found
