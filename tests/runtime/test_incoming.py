"""A download whose process dies goes on in the next one: only what was not kept travels again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedjob import identity
from fedjob.api import FedAvg
from fedjob.chunks import CHUNK_BYTES, Range
from fedjob.codec import Inflow
from fedjob.errors import JobFailed
from fedjob.frames import Piece
from fedjob.incoming import Incoming
from fedjob.limits import Limits
from fedjob.session import Session
from fedjob.stored import Stored, write_values
from fedjob.uplink import Uplink
from fedjob.wire_pb2 import Part
from fedjob.workflows import fedavg

CHUNKS = 9


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def model(tmp_path: Path) -> Stored:
    rng = np.random.default_rng(1)
    return write_values(tmp_path / "model", {"w": rng.standard_normal(CHUNKS * CHUNK_BYTES // 4 - 100, np.float32)})


@pytest.fixture
def federation(tmp_path: Path, serving: Any, model: Stored) -> Iterator[tuple[Session, Callable[[], Uplink]]]:
    """A server with one round open, and a way to be its site."""
    authority = identity.create_authority("c0ffee", now=datetime.now(UTC), lifetime=timedelta(hours=1))
    own = identity.issue(authority, authority.site("a"), now=datetime.now(UTC), lifetime=timedelta(hours=1))
    session = Session(["a"], frozenset(), Limits(60.0, 0.0, 60.0, 60.0, 600.0), tmp_path)
    with serving(session, tmp_path, authority) as address:

        def rounds() -> None:
            with pytest.raises(JobFailed, match="QuorumNotMet"):
                list(fedavg.server(session, fedavg.start(model), FedAvg(rounds=1)))

        thread = threading.Thread(target=rounds)
        thread.start()
        uplinks: list[Uplink] = []

        def join() -> Uplink:
            uplinks.append(Uplink(address, "localhost", own, 1, 60.0))
            return uplinks[-1]

        yield session, join
        task = join().next_task(30)
        assert task is not None
        from fedjob.wire_pb2 import Announce

        uplinks[-1].submit(Announce(key=task.key, declined="enough"), ())
        thread.join(30)
        for uplink in uplinks:
            uplink.close()


def asked_for(uplink: Uplink) -> list[int]:
    """Sizes of the ranges that this process asks the server for, as it goes on."""
    sizes: list[int] = []
    fetch = uplink._channel.fetch

    def counted(digest: str, wanted: Range) -> Iterator[Piece]:
        sizes.append(wanted.stop - wanted.start)
        return fetch(digest, wanted)

    uplink._channel.fetch = counted  # type: ignore[method-assign]
    return sizes


def download(uplink: Uplink, folder: Path, dies_after: int = 99, keeps_after: float = 0.0) -> Any:
    """One process's try: the tree, or Killed after so many chunks."""
    task = uplink.next_task(30)
    assert task is not None
    (part,) = task.parts
    inflow, kept = Inflow(), Incoming(folder, part, keeps_after)
    taken = 0

    def take(offset: int, data: Any) -> None:
        nonlocal taken
        if taken == dies_after:
            raise Killed
        taken += 1
        inflow.write_at(offset, data)

    try:
        uplink.fetch(part, take, kept)
    except Killed:
        kept.close()
        raise
    kept.discard()
    return inflow.tree()


def test_what_earlier_processes_have_kept_does_not_travel_again(tmp_path: Path, federation: Any, model: Stored) -> None:
    """Three processes die on the way, each a little further; the last asks for what none of them had."""
    _, join = federation
    for dies_after in (3, 5, 6):
        with pytest.raises(Killed):
            download(join(), tmp_path / "work", dies_after)
    last = join()
    asked = asked_for(last)
    tree = download(last, tmp_path / "work")
    assert np.array_equal(tree["w"], model.read(model.layout.specs[0], 0, model.layout.specs[0].count))
    assert asked == [model.size - 6 * CHUNK_BYTES]
    assert not list((tmp_path / "work").glob("incoming.*")), "nothing is left once it is whole"


def test_a_damaged_kept_chunk_is_fetched_again_alone(tmp_path: Path, federation: Any, model: Stored) -> None:
    _, join = federation
    with pytest.raises(Killed):
        download(join(), tmp_path / "work", 5)
    (file,) = (f for f in (tmp_path / "work").glob("incoming.*") if f.suffix != ".table")
    data = bytearray(file.read_bytes())
    data[2 * CHUNK_BYTES + 17] ^= 1
    file.write_bytes(data)
    last = join()
    asked = asked_for(last)
    download(last, tmp_path / "work")
    assert asked == [CHUNK_BYTES, model.size - 5 * CHUNK_BYTES]


def test_a_fast_download_leaves_no_file(tmp_path: Path, federation: Any) -> None:
    _, join = federation
    with pytest.raises(Killed):
        download(join(), tmp_path / "work", 5, keeps_after=600.0)
    assert not list((tmp_path / "work").glob("*"))


def test_what_was_kept_of_an_older_model_is_removed(tmp_path: Path, federation: Any) -> None:
    _, join = federation
    with pytest.raises(Killed):
        download(join(), tmp_path / "work", 5)
    Incoming(tmp_path / "work", Part(name="params", size=5, digest="f" * 64))
    assert not list((tmp_path / "work").glob("incoming.*"))


def test_a_disk_that_is_full_costs_the_convenience_alone(tmp_path: Path, federation: Any, model: Stored) -> None:
    """A folder in which no file can be made: a file has its name."""
    _, join = federation
    (tmp_path / "work").write_text("in the way")
    tree = download(join(), tmp_path / "work")
    assert tree["w"].size == model.layout.specs[0].count
