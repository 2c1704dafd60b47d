"""The parsers that the guided search drives: each takes its seeds, and refuses an altered one by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.parsers import PARSERS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))


@pytest.mark.parametrize("name", PARSERS)
def test_the_seeds_are_read(name: str) -> None:
    assert PARSERS[name].seeds
    for seed in PARSERS[name].seeds:
        PARSERS[name].read(seed)


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None, max_examples=EXAMPLES)
@given(at=st.integers(0, 10_000), inserted=st.binary(max_size=8), removed=st.integers(0, 8))
def test_an_altered_seed_is_read_or_refused(name: str, at: int, inserted: bytes, removed: int) -> None:
    for seed in PARSERS[name].seeds:
        place = at % (len(seed) + 1)
        PARSERS[name](seed[:place] + inserted + seed[place + removed :])


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "broke").iterdir()), ids=lambda path: path.name)
def test_what_once_broke_a_parser_is_refused(path: Path) -> None:
    PARSERS[path.name.rpartition("-")[0]](path.read_bytes())
