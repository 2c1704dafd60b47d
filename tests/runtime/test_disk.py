"""Who may begin to write, on a small disk of the test's own."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedjob.chunks import CHUNK_BYTES
from fedjob.conditions import Conditions
from fedjob.disk import claim, is_full
from fedjob.frames import Piece
from fedjob.spool import Spool

MIB = 1 << 20
SIZE = 16 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def spool(folder: Path, site: str, size: int) -> Spool:
    opened = Spool(folder, f"Train.0.{site}", "u" * 32, [("params", size)])
    opened.open()
    return opened


def test_updates_are_let_in_while_all_that_is_promised_fits(small: Path) -> None:
    """Three of 5 MiB do not fit beside 4 MiB for the next state; when one is gone, the third does."""
    a, b, c = (spool(small, name, 5 * MIB) for name in "abc")
    claim(small, small / "spare", {"a": a.unwritten(), "b": b.unwritten()}, 4 * MIB)
    with pytest.raises(
        OSError, match=r"19\.0 MiB needed for updates \(a 5\.00 MiB, b 5\.00 MiB, c 5\.00 MiB\) .* 1[0-9.]+ MiB free"
    ) as refused:
        claim(small, small / "spare", {"a": a.unwritten(), "b": b.unwritten(), "c": c.unwritten()}, 4 * MIB)
    assert is_full(refused.value)
    a.discard()
    claim(small, small / "spare", {"a": a.unwritten(), "b": b.unwritten(), "c": c.unwritten()}, 4 * MIB)
    b.close()
    c.close()


def test_what_is_written_is_not_counted_twice(small: Path) -> None:
    a = spool(small, "a", 12 * MIB)
    for at in range(0, 10 * MIB, CHUNK_BYTES):
        data = bytes([at % 251]) * CHUNK_BYTES
        from fedjob.chunks import digest

        a.write(Piece(0, at, digest(data), data))
    assert a.unwritten() == 2 * MIB
    claim(small, small / "spare", {"a": a.unwritten()}, 3 * MIB)
    a.close()


def test_spares_are_given_up_before_anybody_is_refused(small: Path) -> None:
    (small / "spare").mkdir()
    for name in "12":
        (small / "spare" / name).write_bytes(os.urandom(6 * MIB))
    claim(small, small / "spare", {"a": 10 * MIB}, 0)
    assert not list((small / "spare").iterdir())


def test_the_condition_names_who_waits_and_ends_with_the_last(tmp_path: Path) -> None:
    conditions = Conditions()
    full = OSError(errno.ENOSPC, "No space left on device")
    conditions.no_room("b", full, tmp_path)
    conditions.no_room("a", full, tmp_path)
    (condition,) = conditions.now()
    assert (condition.type, condition.reason) == ("DiskFull", "NoSpace")
    assert condition.message == f"{tmp_path}: No space left on device; waiting for room: a, b"
    conditions.has_room("a")
    assert len(conditions.now()) == 1
    conditions.has_room("b", "c")
    assert conditions.now() == ()
