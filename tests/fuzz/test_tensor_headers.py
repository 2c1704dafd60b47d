"""Headers of tensor files, made up and altered: a layout or CodecError, in memory and words that are bounded."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from fedjob.codec import Inflow, Layout, flatten, header_length, parse
from fedjob.errors import CodecError
from fuzz.bounds import allocating_at_most
from fuzz.hostile import JSON, altered

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
MULTIPLE, CONSTANT = 64, 1 << 20  # bytes of Python's objects for each byte of a file, and besides
MOST_CHARACTERS = 2000  # of a message: it travels back as a verdict
FILE = bytes(
    flatten({"w": np.ones((2, 3), np.float32), "n": [1, 2.5, None], "b": np.ones(5, np.int8)}).read(0, 1 << 20)
)
HEADER = json.loads(FILE[8 : header_length(FILE)])
DATA = FILE[header_length(FILE) :]


def file_of(text: bytes, data: bytes = b"", claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def entry(shape: list[int], start: int, stop: int) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}}).encode()


BOMBS = {
    "brackets without end": b"[" * 100_000,
    "objects without end": b'{"a":' * 100_000,
    "a name as long as the file": b'{"' + b"n" * 200_000 + b'":{}}',
    "a dtype as long as the file": b'{"a":{"dtype":"' + b"F" * 200_000 + b'","shape":[],"data_offsets":[0,4]}}',
    "dimensions without number": entry([1] * 60_000, 0, 4),
    "dimensions of 63 bits": entry([2**62] * 64, 0, 4),
    "one number of many digits": b'{"a":{"dtype":"F32","shape":[' + b"9" * 4_000 + b'],"data_offsets":[0,4]}}',
    "a quintillion bytes": entry([2**58], 0, 2**60),
    "many tensors of nothing": json.dumps(
        {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(3_000)}
    ).encode(),
    "half a surrogate pair": b'{"\\ud800":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}',
    "another encoding": entry([1], 0, 4).decode().encode("utf-16"),
}  # fmt: skip


def parsed(data: bytes) -> Layout | None:
    """The layout that a file begins with, or None."""
    with allocating_at_most(CONSTANT + MULTIPLE * len(data)):
        try:
            return parse(data[: header_length(data)])
        except CodecError as e:
            refusal = str(e)
    assert len(refusal) <= MOST_CHARACTERS
    return None


def received(data: bytes) -> Any:
    """The tree in a file that comes in two pieces and is announced with its true size, or None."""
    with allocating_at_most(CONSTANT + MULTIPLE * len(data)):
        inflow = Inflow(size=len(data))
        try:
            inflow.write(data[:20])
            inflow.write(data[20:])
            return inflow.tree()
        except CodecError as e:
            refusal = str(e)
    assert len(refusal) <= MOST_CHARACTERS
    return None


def reference(data: bytes) -> list[str] | None:
    """The names that the safetensors library finds in a file, or None if it refuses it."""
    try:
        return sorted(name for name, _ in deserialize(data))
    except SafetensorError:
        return None


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_parsed_or_refused_within_bounds(bomb: str) -> None:
    parsed(file_of(BOMBS[bomb]))
    received(file_of(BOMBS[bomb], b"\0\0\0\0"))


@pytest.mark.parametrize("claimed", [0, 1, (100 << 20) + 1, 2**60, 2**64 - 1])
def test_a_header_of_absurd_length_is_refused_before_it_is_awaited(claimed: int) -> None:
    with pytest.raises(CodecError, match="header of"):
        header_length(file_of(b"{}", claimed=claimed))


@settings(deadline=None, max_examples=EXAMPLES)
@given(JSON | altered(HEADER))
def test_any_json_is_a_header_or_refused(document: Any) -> None:
    data = file_of(json.dumps(document).encode(), DATA)
    parsed(data)
    received(data)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.integers(0, len(FILE) - 1), st.binary(min_size=1, max_size=8), st.booleans())
def test_an_altered_file_is_a_tree_or_refused(at: int, inserted: bytes, longer: bool) -> None:
    data = FILE[:at] + inserted + FILE[at + (0 if longer else len(inserted)) :]
    received(data)


@settings(deadline=None, max_examples=EXAMPLES)
@given(altered({name: value for name, value in HEADER.items() if name != "__metadata__"}))
def test_what_the_reference_reads_without_a_skeleton_is_read_with_the_same_names(document: Any) -> None:
    """Names aside, of which a flat dict may hold any: there is nothing that only the library would read."""
    data = file_of(json.dumps(document).encode(), DATA)
    layout, names = parsed(data), reference(data)
    if names is not None:
        assert layout is not None
        assert sorted(layout.by_name) == names
