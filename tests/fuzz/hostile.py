"""Values that break readers: what JSON can hold, and texts and bombs that a careless reader trips over."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, -0.0, 1e308, float("nan"), float("inf"), -float("inf")])
TEXTS = st.sampled_from(
    ["", "\0", "\n", "\ud800", "é\u2028", "../../x", "a" * 300, "NaN", "Infinity", "[bold]", "</script>"]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
BOMBS = {
    "brackets without end": b"[" * 100_000,
    "objects without end": b'{"a":' * 100_000,
    "thousands of digits": b'{"round":' + b"9" * 5000 + b"}",
    "many lists": b"[" + b"[]," * 20_000 + b"[]]",
    "many objects": b'{"a":[' + b'{"":0},' * 4_000 + b"{}]}",
    "one key, many times": b"{" + b'"round":0,' * 20_000 + b'"round":0}',
}


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with some values replaced or removed."""
    places = list(_places(document))
    copy = json.loads(json.dumps(document))
    for path in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        place = copy
        try:
            for step in path[:-1]:
                place = place[step]
            if draw(st.booleans()):
                place[path[-1]] = draw(JSON)
            else:
                del place[path[-1]]
        except (KeyError, IndexError, TypeError):  # an earlier change has taken it away
            continue
    return copy


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from _places(inner, (*path, key))
