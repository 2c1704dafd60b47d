"""A download through a stream that may be cut anywhere. What is read from is the process that a pod would run."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from fedjob.cluster.connection import StreamCut
from fedjob.cluster.download import fetch, part_of, settle
from fedjob.cluster.failures import ClusterError
from fedjob.reader import EXIT_NO_FILE
from fedjob.stored import file_digest

Read = Callable[[int], AsyncGenerator[bytes]]


def reading(path: Path, cuts: list[int], offsets: list[int]) -> Read:
    """Reads a file through `fedjob.reader`, each time up to the next cut. offsets: where each try began."""

    async def read(offset: int) -> AsyncGenerator[bytes]:
        offsets.append(offset)
        left = cuts.pop(0) if cuts else sys.maxsize
        command = [sys.executable, "-m", "fedjob.reader", str(path), str(offset)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                while data := process.stdout.read(min(left, 50_000)):
                    left -= len(data)
                    yield data
                    if left <= 0:
                        raise StreamCut("cut by the test")
            finally:
                process.kill()

    return read


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of about half a megabyte."""
    path = tmp_path / "there"
    path.write_bytes(random.Random(7).randbytes(500_001))
    return path


def test_a_download_that_is_cut_goes_on_from_where_it_was(model: Path, tmp_path: Path) -> None:
    part, offsets, told = tmp_path / "part", list[int](), list[tuple[int, int]]()
    read = reading(model, [100_000, 3, 8, 250_000, 9], offsets)
    size = asyncio.run(fetch(read, part, lambda *told_now: told.append(told_now), pause_seconds=0.0))
    assert part.read_bytes() == model.read_bytes()
    assert size == 500_001
    assert offsets == [0, 99_992, 99_992, 99_992, 349_984, 349_985]
    assert told[-1] == (500_001, 500_001)


def test_another_command_goes_on_from_what_the_first_has_left(model: Path, tmp_path: Path) -> None:
    part, offsets = tmp_path / "part", list[int]()
    part.write_bytes(model.read_bytes()[:400_000])
    asyncio.run(fetch(reading(model, [], offsets), part, lambda *_: None))
    assert offsets == [400_000]
    assert part.read_bytes() == model.read_bytes()


def test_a_stream_that_brings_nothing_ends_with_one_line(model: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    with pytest.raises(ClusterError, match=r"cut 6 times in a row .* goes on from 12 bytes"):
        asyncio.run(fetch(reading(model, [20, *[4] * 9], []), part, lambda *_: None, pause_seconds=0.0))
    assert part.read_bytes() == model.read_bytes()[:12]


def test_a_file_that_is_shorter_than_what_is_here_is_another_file(model: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"x" * 600_000)
    with pytest.raises(ClusterError, match="600000 bytes are here, and the file there has 500001"):
        asyncio.run(fetch(reading(model, [], []), part, lambda *_: None))


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert asyncio.run(fetch(reading(tmp_path / "empty", [], []), tmp_path / "part", lambda *_: None)) == 0


def test_the_reader_says_which_file_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedjob.reader", str(tmp_path / "nothing"), "0"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (EXIT_NO_FILE, "")
    assert said.stderr == f"{tmp_path / 'nothing'}: No such file or directory\n"


def test_what_came_gets_its_name_only_if_it_has_the_digest(model: Path, tmp_path: Path) -> None:
    target, digest = tmp_path / "model.safetensors", file_digest(model)
    part = part_of(target, digest)
    part.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(ClusterError, match="what came has the digest"):
        settle(part, target, digest)
    assert not part.exists()
    assert not target.exists()
    part.write_bytes(model.read_bytes())
    settle(part, target, digest)
    assert target.read_bytes() == model.read_bytes()
    assert not part.exists()


def test_the_part_of_one_model_is_never_continued_with_another(tmp_path: Path) -> None:
    assert part_of(tmp_path / "m", "a" * 64) != part_of(tmp_path / "m", "b" * 64)
