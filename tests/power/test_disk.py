"""The model of a disk: what was forced stays, what was not may go, and nothing else comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from power.disk import Disk, File

SEEDS = range(20)


def disk_with(data: bytes) -> tuple[Disk, File]:
    """A disk with one file `f`, of which nothing is forced."""
    disk = Disk()
    disk.root.name("f", file := File(disk.number()))
    file.write(0, data)
    return disk, file


def contents(disk: Disk) -> dict[str, bytes]:
    return {name: bytes(node.data) for name, node in disk.root.names.items() if isinstance(node, File)}


def test_a_name_and_its_bytes_are_forced_each_by_itself() -> None:
    disk, file = disk_with(b"x")
    assert contents(disk.cut("nothing", 0)) == {}
    file.force()
    assert contents(disk.cut("nothing", 0)) == {}
    disk.root.force()
    file.write(1, b"y")
    assert contents(disk.cut("nothing", 0)) == {"f": b"x"}
    assert contents(disk.cut("names", 0)) == {"f": b"x"}


def test_a_file_may_have_its_name_before_its_bytes() -> None:
    disk, _ = disk_with(b"x")
    assert contents(disk.cut("names", 0)) == {"f": b""}
    assert {contents(disk.cut("some", seed)).get("f") for seed in SEEDS} == {None, b"", b"x"}


def test_a_name_that_goes_over_to_another_file_is_one_of_the_two() -> None:
    disk, file = disk_with(b"old")
    file.force()
    disk.root.force()
    disk.root.name("t", new := File(disk.number()))
    new.write(0, b"new")
    new.force()
    disk.root.name("t", None)
    disk.root.name("f", new)
    assert {contents(disk.cut("some", seed))["f"] for seed in SEEDS} == {b"old", b"new"}


@given(st.lists(st.binary(min_size=1, max_size=4), max_size=6), st.integers(0, 1000))
def test_a_file_that_grows_keeps_a_beginning(pieces: list[bytes], seed: int) -> None:
    disk, file = disk_with(b"")
    disk.root.force()
    for piece in pieces:
        file.write(len(file.data), piece)
    beginnings = [b"".join(pieces[:n]) for n in range(len(pieces) + 1)]
    assert contents(disk.cut("some", seed))["f"] in beginnings


def test_what_a_cut_left_is_on_the_disk() -> None:
    disk, _ = disk_with(b"x")
    after = next(d for d in (disk.cut("some", seed) for seed in SEEDS) if contents(d) == {"f": b"x"})
    assert contents(after.cut("nothing", 0)) == {"f": b"x"}
