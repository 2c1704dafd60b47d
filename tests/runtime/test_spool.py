"""An answer's files: whatever happens on the way, they end as the very bytes that were sent, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.chunks import digest
from fedjob.codec import flatten
from fedjob.errors import CodecError, TransportError
from fedjob.spool import Spool, facts
from fedjob.stored import open_stored

STEM = "Train.0.site-a"


def file_of(tree: Any) -> bytes:
    outflow = flatten(tree)
    return outflow.read(0, outflow.layout.size)


PARTS = {
    "params": file_of({"w": np.arange(40, dtype=np.float32), "n": 3}),
    "optimizer_params": file_of({"m": [np.ones(7)]}),
}
DIGESTS = [blake3(p).hexdigest() for p in PARTS.values()]
TOTAL = sum(map(len, PARTS.values()))


def announced(folder: Path, upload: str = "u1", parts: dict[str, bytes] = PARTS) -> Spool:
    return Spool(folder, STEM, upload, [(name, len(data)) for name, data in parts.items()])


def send(spool: Spool, count: int, size: int = 50) -> int:
    """The next `count` chunks from where the spool stands; returns how many bytes were sent."""
    sent, data = 0, list(PARTS.values())
    for _ in range(count):
        if spool.position.complete:
            break
        part, offset = spool.position.part, spool.position.offset
        piece = data[part][offset : offset + size]
        spool.write(part, offset, piece, digest(piece))
        sent += len(piece)
    return sent


def contents(folder: Path) -> list[bytes]:
    return [(folder / f"{STEM}.u1.{name}").read_bytes() for name in PARTS]


# ------------------------------------------------------------------------------------------------------------- law

STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 120)),
    st.tuples(st.just("again"), st.integers(1, 120)),
    st.tuples(st.just("skip"), st.integers(1, 120)),
    st.tuples(st.just("damage"), st.integers(0, 400)),
    st.tuples(st.just("restart"), st.integers(0, 0)),
    st.tuples(st.just("tear"), st.integers(0, 100)),
)


def step(spool: Spool, folder: Path, what: str, n: int) -> Spool:
    """One thing that may happen to an upload; gives the spool that goes on."""
    part, offset = spool.position.part, spool.position.offset
    data = list(PARTS.values())[min(part, 1)]
    if what == "restart":
        spool.close()
        return announced(folder)
    if what == "tear":  # a killed process may have written less than it knew of
        spool.close()
        path = folder / f"{STEM}.u1.{list(PARTS)[min(part, 1)]}"
        path.write_bytes(path.read_bytes()[: max(offset - n, 0)])
        return announced(folder)
    at = {"send": offset, "damage": offset, "again": max(offset - n, 0), "skip": offset + n}[what]
    piece = data[at : at + n]
    check = digest(piece)
    if what == "damage" and piece:
        piece = bytes([piece[0] ^ 4]) + piece[1:]
    spool.write(part, at, piece, check)
    return spool


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_no_sequence_of_events_ends_with_other_bytes(tmp_path_factory: Any, events: list[tuple[str, int]]) -> None:
    """Each event is refused or leaves a prefix of the very bytes; in the end they can be completed and sealed."""
    folder = tmp_path_factory.mktemp("spool")
    spool = announced(folder)
    for what, n in events:
        held = spool.position.held
        try:
            spool = step(spool, folder, what, n)
        except TransportError:
            assert spool.position.held == held
        assert b"".join(PARTS.values()).startswith(b"".join(contents(folder)))
        assert spool.position.held == sum(map(len, contents(folder)))
    send(spool, 1000)
    sealed = spool.seal(DIGESTS)
    assert [s.path.read_bytes() for s in sealed.values()] == list(PARTS.values())
    spool.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12))
def test_after_any_cuts_each_byte_has_been_sent_once(tmp_path_factory: Any, cuts: list[int]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, sent = announced(folder), 0
    for count in cuts:
        sent += send(spool, count)
        spool.close()
        spool = announced(folder)
    sent += send(spool, 1000)
    assert sent == TOTAL
    assert spool.seal(DIGESTS).keys() == PARTS.keys()
    spool.close()


# ------------------------------------------------------------------------------------------------------------- rows


def test_a_sealed_part_is_the_tree_that_was_sent_and_can_be_found_again(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    send(spool, 1000)
    stored = spool.seal(DIGESTS)["params"]
    spool.close()
    known = facts(stored)
    assert open_stored(tmp_path / known["file"], known["digest"]) == stored
    assert stored.read(stored.layout.by_name["w"], 0, 3).tolist() == [0, 1, 2]


def test_another_upload_of_the_same_site_drops_the_old_files(tmp_path: Path) -> None:
    """A script that was started again has trained again, and sends other bytes."""
    send(announced(tmp_path), 3)
    spool = announced(tmp_path, "u2")
    assert spool.position.held == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{STEM}.u2.optimizer_params", f"{STEM}.u2.params"]


def test_other_sites_and_other_asks_keep_their_files(tmp_path: Path) -> None:
    others = [tmp_path / "Train.0.site-ab.u0.params", tmp_path / "Train.1.site-a.u0.params", tmp_path / "journal.jsonl"]
    for path in others:
        path.write_bytes(b"x")
    announced(tmp_path).discard()
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_newer_connection_takes_over_and_the_older_one_can_do_no_more(tmp_path: Path) -> None:
    older = announced(tmp_path)
    send(older, 2)
    older.close()
    newer = announced(tmp_path)
    assert newer.position.held == 100
    with pytest.raises(TransportError, match="taken over by a newer connection"):
        send(older, 1)
    send(newer, 1000)
    with pytest.raises(TransportError, match="taken over by a newer connection"):
        older.seal(DIGESTS)
    assert newer.seal(DIGESTS).keys() == PARTS.keys()


def test_a_complete_upload_whose_connection_was_taken_over_is_not_sealed_twice(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    send(spool, 1000)
    spool.close()
    with pytest.raises(TransportError, match="taken over"):
        spool.seal(DIGESTS)


def test_a_seal_before_the_last_byte_is_refused_and_keeps_what_is_held(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    send(spool, 2)
    with pytest.raises(TransportError, match=f"sealed after 100 of {TOTAL} bytes"):
        spool.seal(DIGESTS)
    assert announced(tmp_path).position.held == 100


@pytest.mark.parametrize(
    "digests",
    [
        pytest.param(DIGESTS[::-1], id="digests of other bytes"),
        pytest.param(DIGESTS[:1], id="too few digests"),
        pytest.param([*DIGESTS, DIGESTS[0]], id="too many digests"),
    ],
)
def test_a_seal_with_other_digests_discards_everything(tmp_path: Path, digests: list[str]) -> None:
    spool = announced(tmp_path)
    send(spool, 1000)
    with pytest.raises(TransportError, match="send them again"):
        spool.seal(digests)
    assert list(tmp_path.iterdir()) == []
    assert announced(tmp_path).position.held == 0


def test_a_file_that_was_altered_between_two_processes_is_noticed_at_the_seal(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    send(spool, 3)
    spool.close()
    path = tmp_path / f"{STEM}.u1.params"
    path.write_bytes(b"!" + path.read_bytes()[1:])
    spool = announced(tmp_path)
    send(spool, 1000)
    with pytest.raises(TransportError, match="do not have the digests"):
        spool.seal(DIGESTS)


def test_what_lies_behind_a_gap_is_sent_again(tmp_path: Path) -> None:
    """A lost tail of one part, as after a power failure: the part behind it does not count."""
    spool = announced(tmp_path)
    send(spool, 1000)
    spool.close()
    path = tmp_path / f"{STEM}.u1.params"
    path.write_bytes(path.read_bytes()[:10])
    spool = announced(tmp_path)
    assert (spool.position.held, list(map(len, contents(tmp_path)))) == (10, [10, 0])
    send(spool, 1000)
    assert spool.seal(DIGESTS).keys() == PARTS.keys()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"abc", "part 'params' is not a tensor file: 3 bytes", id="three bytes"),
        pytest.param(b"\x00" * 20, "header of 0 bytes", id="zeros"),
        pytest.param(b"\xff" * 20, "header of", id="ones"),
        pytest.param(PARTS["params"] + b"x", "its header says", id="a byte more than its header says"),
        pytest.param(PARTS["params"][:-1], "its header says", id="a byte less than its header says"),
        pytest.param((5).to_bytes(8, "little") + b"[1,2]", "not a JSON object", id="a list as header"),
        pytest.param(b"", "0 bytes", id="nothing"),
    ],
)
def test_a_part_that_is_no_tensor_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    spool = announced(tmp_path, parts={"params": data})
    if data:
        spool.write(0, 0, data, digest(data))
    with pytest.raises(CodecError, match=message):
        spool.seal([blake3(data).hexdigest()])


def test_an_answer_without_parts_is_sealed_at_once(tmp_path: Path) -> None:
    assert announced(tmp_path, parts={}).seal([]) == {}
