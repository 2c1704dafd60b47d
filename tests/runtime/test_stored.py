"""Trees in files: written whole or not at all, rounded once, and noticed when they are not what they were."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.chunks import CHUNK_BYTES, DIGEST_BYTES, digest
from fedjob.codec import Layout, Spec, flatten
from fedjob.errors import StateError
from fedjob.stored import (
    file_digest,
    open_stored,
    replacing,
    retire,
    stored_form,
    sweep,
    take_spare,
    write,
    write_at,
    write_values,
    write_whole,
)
from fedjob.trees import BLOCK_ELEMENTS, Block, Computed, in_memory, not_finite

SHORT_FLOATS = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
TREE = {"w": torch.arange(6.0).reshape(2, 3), "n": 3, "layers": [np.zeros(2, np.float16)]}


def as_float64(dtype: str, values: Any) -> Computed:
    """A tree of one tensor `x`, computed in float64 and kept in `dtype`."""
    wide = np.asarray(values, np.float64)
    item = 4 if dtype == "F32" else SHORT_FLOATS[dtype].itemsize
    layout = Layout((Spec("x", dtype, wide.shape, 0, wide.size * item),))
    return Computed(layout, lambda _, start, stop: wide[start:stop])


def test_what_is_written_is_the_bytes_that_travel(tmp_path: Path) -> None:
    outflow = flatten(TREE)
    stored = write_values(tmp_path / "m", TREE)
    assert (tmp_path / "m").read_bytes() == outflow.read(0, outflow.layout.size)
    assert stored.digest == file_digest(tmp_path / "m")
    assert stored.size == (tmp_path / "m").stat().st_size


def test_a_file_opens_as_it_was_written(tmp_path: Path) -> None:
    stored = write_values(tmp_path / "m", TREE)
    assert open_stored(tmp_path / "m", stored.digest) == stored
    assert stored.bytes_at(0, stored.size) == (tmp_path / "m").read_bytes()


def test_a_tensor_is_read_in_any_range(tmp_path: Path) -> None:
    stored = write_values(tmp_path / "m", {"a": np.zeros(3), "b": np.arange(10, dtype=np.float32)})
    assert stored.read(stored.layout.by_name["b"], 3, 7).tolist() == [3, 4, 5, 6]


def test_a_tensor_of_more_than_one_block_is_written_whole(tmp_path: Path) -> None:
    values = np.arange(2 * BLOCK_ELEMENTS + 3, dtype=np.int32)
    stored = write_values(tmp_path / "m", {"a": values})
    assert np.array_equal(stored.read(stored.layout.specs[0], 0, values.size), values)


@pytest.mark.parametrize("dtype", SHORT_FLOATS)
def test_float64_is_rounded_once_beside_every_tie(dtype: str, tmp_path: Path) -> None:
    """Every midpoint between two neighbours goes to the even one, a hair above it up, a hair below it down."""
    kind = SHORT_FLOATS[dtype]
    patterns = np.arange(1 << 8 * kind.itemsize, dtype=f"u{kind.itemsize}")
    with np.errstate(invalid="ignore"):
        values = patterns.view(kind).astype(np.float64)
    finite = np.isfinite(values) & ~(np.signbit(values) & (values == 0))
    order = np.argsort(values[finite])
    values, patterns = values[finite][order], patterns[finite][order]
    low, high = values[:-1], values[1:]
    middle = (low + high) / 2
    even = np.where(patterns[:-1] % 2 == 0, low, high)
    for case, expected in [(middle, even), (np.nextafter(middle, 1e300), high), (np.nextafter(middle, -1e300), low)]:
        stored = write(tmp_path / "m", as_float64(dtype, case))
        assert np.array_equal(stored.read(stored.layout.specs[0], 0, case.size).astype(np.float64), expected)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*SHORT_FLOATS, "F32"]), st.floats(allow_nan=False, width=64))
def test_rounding_leaves_what_fits_and_keeps_the_sign_of_zero(tmp_path_factory: Any, dtype: str, value: float) -> None:
    kind = SHORT_FLOATS.get(dtype, np.dtype(np.float32))
    with np.errstate(over="ignore"):
        fits = np.array([value, -0.0]).astype(kind)
    stored = write(tmp_path_factory.mktemp("x") / "m", as_float64(dtype, fits.astype(np.float64)))
    assert stored.read(stored.layout.specs[0], 0, 2).tobytes() == fits.tobytes()


def test_a_computed_tree_is_evaluated_once_and_then_read_from_its_file(tmp_path: Path) -> None:
    calls = []

    def compute(spec: Spec, start: int, stop: int) -> Block:
        calls.append((start, stop))
        return np.arange(start, stop, dtype=np.float64) / 3

    tree = Computed(Layout((Spec("x", "F32", (4,), 0, 16),)), compute)
    write(tmp_path / "m", tree)
    again = tree.read(tree.layout.specs[0], 1, 3)
    assert calls == [(0, 4)]
    assert again.dtype == np.float32
    assert again.tolist() == [np.float32(1 / 3), np.float32(2 / 3)]


# ------------------------------------------------------------------------------------------------- whole or not at all


def test_an_error_while_writing_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    before = write_values(tmp_path / "m", TREE)

    def fails(spec: Spec, start: int, stop: int) -> Block:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "m", Computed(before.layout, fails))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert open_stored(tmp_path / "m") == before


def test_a_file_takes_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    with replacing(tmp_path / "m") as f:
        f.write(b"half")
        f.flush()
        assert not (tmp_path / "m").exists()
    assert (tmp_path / "m").read_bytes() == b"half"


def test_a_small_file_is_replaced_whole_and_its_half_written_ones_are_swept(tmp_path: Path) -> None:
    write_whole(tmp_path / "m", b"old")
    (tmp_path / ".m.k1ll3d").write_bytes(b"half")
    (tmp_path / ".n.k1ll3d").write_bytes(b"another's")
    write_whole(tmp_path / "m", b"new")
    sweep(tmp_path / "m")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"m": b"new", ".n.k1ll3d": b"another's"}


def test_everything_is_written_whatever_the_kernel_takes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    with (tmp_path / "m").open("wb") as f, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
        write_at(f.fileno(), b"0123456789", 2)
    assert (tmp_path / "m").read_bytes() == b"\0\x000123456789"


def test_a_tree_is_in_a_file_once_it_is_written(tmp_path: Path) -> None:
    tree = as_float64("F32", [1.0, 2.0])
    assert stored_form(tree) is None
    assert stored_form(in_memory({"w": np.zeros(2)})) is None
    stored = write(tmp_path / "m", tree)
    assert stored_form(tree) is stored_form(stored) is stored


def test_many_chunks_are_written_side_by_side_each_with_its_digest(tmp_path: Path) -> None:
    """More than the workers take in one go, the last one short; and an error of any of them is raised."""
    values = np.arange(9 * CHUNK_BYTES // 4 + 5, dtype=np.int32)
    stored = write_values(tmp_path / "m", {"w": values})
    data = (tmp_path / "m").read_bytes()
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    assert [stored.digest_at(i) for i in range(len(chunks))] == [digest(chunk) for chunk in chunks]
    assert len(stored.table) == len(chunks) * DIGEST_BYTES
    assert open_stored(tmp_path / "m", stored.digest) == stored

    def fails(spec: Spec, start: int, stop: int) -> Block:
        if stop == values.size:
            raise OSError(28, "No space left on device")
        return values[start:stop]

    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "n", Computed(stored.layout, fails))
    assert not (tmp_path / "n").exists()


# ------------------------------------------------------------------------------------------------------------ spares


def spare(folder: Path, name: str, size: int) -> Path:
    """A file that was let go of, in the folder `spare`."""
    (folder / name).write_bytes(b"\x7f" * size)
    number = (folder / name).stat().st_ino
    retire([folder / name], folder / "spare")
    return folder / "spare" / str(number)


def test_large_files_are_kept_to_be_written_over_and_small_ones_go(tmp_path: Path) -> None:
    assert spare(tmp_path, "large", CHUNK_BYTES).stat().st_size == CHUNK_BYTES
    assert not spare(tmp_path, "small", CHUNK_BYTES - 1).exists()
    assert [p.name for p in tmp_path.iterdir()] == ["spare"]
    assert len(list((tmp_path / "spare").iterdir())) == 1


@pytest.mark.parametrize("larger", [False, True])
def test_a_file_over_a_spare_holds_nothing_of_it(tmp_path: Path, larger: bool) -> None:
    old = spare(tmp_path, "old", 3 * CHUNK_BYTES if larger else CHUNK_BYTES)
    number = old.stat().st_ino
    stored = write(tmp_path / "m", in_memory({"w": np.zeros(CHUNK_BYTES // 2, np.float32)}), tmp_path / "spare")
    assert (tmp_path / "m").stat().st_ino == number
    assert (tmp_path / "m").stat().st_size == stored.size
    assert open_stored(tmp_path / "m") == stored
    assert list((tmp_path / "spare").iterdir()) == []


def test_who_may_read_a_new_file_among_spares_the_umask_says_too(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "m", in_memory({"w": np.zeros(2)}), tmp_path / "spare")
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o600


def test_one_spare_is_taken_and_never_in_place_of_a_file_that_is_there(tmp_path: Path) -> None:
    spares = [spare(tmp_path, name, CHUNK_BYTES) for name in ("a", "b")]
    (tmp_path / "m").write_bytes(b"mine")
    take_spare(tmp_path / "spare", tmp_path / "m")
    take_spare(None, tmp_path / "n")
    assert (tmp_path / "m").read_bytes() == b"mine"
    assert not (tmp_path / "n").exists()
    take_spare(tmp_path / "spare", tmp_path / "n")
    assert (tmp_path / "n").stat().st_size == CHUNK_BYTES
    assert sum(path.exists() for path in spares) == 1


def test_an_error_over_a_spare_leaves_no_trace(tmp_path: Path) -> None:
    spare(tmp_path, "old", CHUNK_BYTES)

    def half_written() -> None:
        with replacing(tmp_path / "m", spares=tmp_path / "spare") as f:
            f.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        half_written()
    assert [p.name for p in tmp_path.iterdir()] == ["spare"]


# ------------------------------------------------------------------------------------------------------------ damage


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_any_altered_byte_is_noticed(tmp_path_factory: Any, at: int, flip: int) -> None:
    path = tmp_path_factory.mktemp("x") / "m"
    stored = write_values(path, TREE)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= flip
    path.write_bytes(data)
    with pytest.raises(StateError, match="/m: "):
        open_stored(path, stored.digest)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 10**6))
def test_any_truncation_is_noticed_even_without_a_digest(tmp_path_factory: Any, size: int) -> None:
    path = tmp_path_factory.mktemp("x") / "m"
    data = path.read_bytes() if write_values(path, TREE) else b""
    path.write_bytes(data[: size % len(data)])
    with pytest.raises(StateError, match="/m: "):
        open_stored(path)


GOOD = bytes(flatten(TREE).read(0, flatten(TREE).layout.size))
HEADER = flatten(TREE).layout.data_start


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(None, "No such file or directory", id="missing"),
        pytest.param(b"", "truncated: 0 bytes", id="empty"),
        pytest.param(GOOD[:7], "truncated: 7 bytes", id="shorter than the length of its header"),
        pytest.param(GOOD[:8], f"truncated: 8 of the {HEADER} bytes of its header", id="only its header's length"),
        pytest.param(GOOD[:50], f"truncated: 50 of the {HEADER} bytes of its header", id="half a header"),
        pytest.param(GOOD[:-1], f"{len(GOOD) - 1} bytes, its header says {len(GOOD)}", id="without its last byte"),
        pytest.param(bytes([*GOOD, 0]), f"{len(GOOD) + 1} bytes, its header says {len(GOOD)}", id="one byte more"),
        pytest.param(GOOD[:8] + b"x" * (len(GOOD) - 8), "not a tensor file: header is not JSON (", id="no header"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(data: bytes | None, problem: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "m").write_bytes(data)
    with pytest.raises(StateError) as error:
        open_stored(tmp_path / "m")
    assert str(error.value).startswith(f"{tmp_path / 'm'}: {problem}")


def test_a_file_of_other_numbers_is_told_from_the_one_that_was_meant(tmp_path: Path) -> None:
    meant, found = (write_values(tmp_path / name, {"w": np.array(name == "found")}) for name in ("meant", "found"))
    with pytest.raises(StateError) as error:
        open_stored(found.path, meant.digest)
    assert str(error.value) == (f"{found.path}: altered: digest {found.digest[:16]}…, expected {meant.digest[:16]}…")


def test_a_file_is_closed_when_its_tree_is_let_go(tmp_path: Path) -> None:
    """A job of many rounds opens one for each."""
    stored = write_values(tmp_path / "m", TREE)

    def opened() -> int:
        return sum(link.exists() and link.samefile(tmp_path / "m") for link in Path("/proc/self/fd").iterdir())

    stored.bytes_at(0, 1)
    stored.bytes_at(1, 1)
    assert opened() == 1
    del stored
    assert opened() == 0


def test_a_file_that_shrinks_while_it_is_used_says_so(tmp_path: Path) -> None:
    stored = write_values(tmp_path / "m", {"a": np.zeros(10)})
    with (tmp_path / "m").open("r+b") as f:
        f.truncate(stored.size - 8)
    with pytest.raises(StateError, match="truncated: 'a' ends after 72 of 80 bytes"):
        stored.read(stored.layout.specs[0], 0, 10)


# ------------------------------------------------------------------------------------------------------------ finite


@pytest.mark.parametrize(
    "dtype", ["f8", "f4", "f2", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_tensors_that_are_not_finite_are_named(dtype: Any, bad: float) -> None:
    tree = {
        "good": np.ones(5, dtype),
        "bad": np.array([1, bad, 1]).astype(dtype),
        "worse": np.array([bad]).astype(dtype),
    }
    assert not_finite(in_memory(tree)) == ["bad", "worse"]


def test_infinities_of_both_signs_do_not_cancel_out() -> None:
    assert not_finite(in_memory({"w": np.array([np.inf, -np.inf])})) == ["w"]


def test_great_numbers_are_finite_though_their_sum_is_not() -> None:
    assert not not_finite(in_memory({"w": np.full(10, 1e308), "n": np.array([1, 2]), "e": np.empty((0, 3))}))


def test_a_nan_in_the_last_block_is_found() -> None:
    values = np.zeros(BLOCK_ELEMENTS + 2, np.float32)
    values[-1] = np.nan
    assert not_finite(in_memory({"w": values})) == ["w"]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_who_else_may_read_a_file_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_values(tmp_path / "m", TREE)
        write_whole(tmp_path / "small", b"text")
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("m", "small")} == {0o666 & ~umask}


def test_a_file_that_is_published_under_another_name_is_not_written_over(tmp_path: Path) -> None:
    """A job that goes on for more rounds must not change the model that it had published."""
    (tmp_path / "model-1").write_bytes(b"x" * CHUNK_BYTES)
    (tmp_path / "model-2").write_bytes(b"y" * CHUNK_BYTES)
    (tmp_path / "published").hardlink_to(tmp_path / "model-1")
    retire([tmp_path / "model-1", tmp_path / "model-2"], tmp_path / "spare")
    assert [p.read_bytes()[:1] for p in (tmp_path / "spare").iterdir()] == [b"y"]
