"""An answer's files: whatever happens on the way, they end as the very bytes that were sent, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import chunks
from fedjob.chunks import Table, digest
from fedjob.codec import flatten
from fedjob.errors import CodecError, TransportError
from fedjob.frames import Piece
from fedjob.spool import Spool, facts
from fedjob.stored import open_stored, retire

STEM = "Train.0.site-a"
CHUNK = 64  # of these tests, through `small_chunks`


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few bytes, so that small files have many."""
    monkeypatch.setattr("fedjob.spool.CHUNK_BYTES", CHUNK)
    monkeypatch.setattr("fedjob.stored.CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(Table.__init__, "__defaults__", (b"", CHUNK))


def file_of(tree: Any) -> bytes:
    outflow = flatten(tree)
    return bytes(outflow.read(0, outflow.layout.size))


PARTS = {
    "params": file_of({"w": np.arange(90, dtype=np.float32), "n": 3}),
    "optimizer_params": file_of({"m": [np.ones(7)]}),
}
TOTAL = sum(map(len, PARTS.values()))
SIZE = len(PARTS["params"])


def table_of(data: bytes) -> Table:
    table = Table(len(data), chunk_bytes=CHUNK)
    for i in range(table.count):
        table.put(i, digest(data[i * CHUNK : (i + 1) * CHUNK]))
    return table


DIGESTS = [table_of(p).object_digest() for p in PARTS.values()]


def announced(folder: Path, upload: str = "u1", parts: dict[str, bytes] = PARTS, spares: Path | None = None) -> Spool:
    spool = Spool(folder, STEM, upload, [(name, len(data)) for name, data in parts.items()], spares)
    spool.open()
    return spool


def piece_of(part: int, offset: int, parts: dict[str, bytes] = PARTS) -> Piece:
    data = list(parts.values())[part][offset : offset + CHUNK]
    return Piece(part, offset, digest(data), data)


def send(spool: Spool, count: int, parts: dict[str, bytes] = PARTS) -> int:
    """The next `count` chunks that the spool lacks; returns how many bytes were sent."""
    wanted = [(r.part, at) for r in spool.lacks() for at in range(r.start, r.stop, CHUNK)]
    pieces = [piece_of(part, at, parts) for part, at in wanted[:count]]
    for piece in pieces:
        spool.write(piece)
    return sum(len(p.data) for p in pieces)


def held_of(spool: Spool, folder: Path) -> list[tuple[bytes, bytes]]:
    """Every chunk that the spool holds: as it is in the file, and as it was sent."""
    found = []
    for part, (name, data) in enumerate(PARTS.items()):
        file = (folder / f"{STEM}.u1.{name}").read_bytes()
        for i in range(spool.tables[part].count):
            if spool.tables[part].at(i):
                found.append((file[i * CHUNK : (i + 1) * CHUNK], data[i * CHUNK : (i + 1) * CHUNK]))
    return found


# ------------------------------------------------------------------------------------------------------------- law

STEPS = st.tuples(
    st.sampled_from(["send", "send", "again", "damage", "restart", "tear", "spoil", "absurd"]), st.integers(0, 400)
)


def step(spool: Spool, folder: Path, what: str, n: int) -> Spool:
    """One thing that may happen to an upload; gives the spool that goes on."""
    part = n % 2
    data = list(PARTS.values())[part]
    offset = n % table_of(data).count * CHUNK
    path = folder / f"{STEM}.u1.{list(PARTS)[part]}"
    if what == "restart":
        spool.close()
        return announced(folder)
    if what == "tear":  # a power cut may take the end of a file
        spool.close()
        path.write_bytes(path.read_bytes()[:n])
        return announced(folder)
    if what == "spoil":  # or leave other bytes there
        spool.close()
        path.write_bytes(bytes(b ^ (i == n % len(data)) for i, b in enumerate(path.read_bytes())))
        return announced(folder)
    piece = piece_of(part, offset)
    if what == "damage":
        piece = Piece(part, offset, piece.digest, bytes([piece.data[0] ^ 4]) + bytes(piece.data[1:]))
    if what == "absurd":
        piece = Piece(part + n, offset + n % 3, piece.digest, piece.data)
    spool.write(piece)
    return spool


@settings(max_examples=120, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_no_sequence_of_events_ends_with_other_bytes(tmp_path_factory: Any, events: list[tuple[str, int]]) -> None:
    """What the spool holds is always what was sent; in the end the rest can be sent, and sealed."""
    folder = tmp_path_factory.mktemp("spool")
    spool = announced(folder)
    for what, n in events:
        held = spool.held
        try:
            spool = step(spool, folder, what, n)
        except TransportError:
            assert spool.held == held
        assert all(here == sent for here, sent in held_of(spool, folder))
    send(spool, 1000)
    sealed = spool.seal(DIGESTS)
    assert [s.path.read_bytes() for s in sealed.values()] == list(PARTS.values())
    assert not any(spool.looked_at().values())
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
    assert spool.looked_at() == {name: [] for name in PARTS}
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


def test_what_the_journal_keeps_of_a_part_is_its_files_name_and_digest(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    send(spool, 1000)
    assert {name: facts(stored) for name, stored in spool.seal(DIGESTS).items()} == {
        "params": {"file": f"{STEM}.u1.params", "digest": DIGESTS[0]},
        "optimizer_params": {"file": f"{STEM}.u1.optimizer_params", "digest": DIGESTS[1]},
    }


def test_a_chunk_that_is_held_can_be_read_until_the_file_has_it_no_more(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    send(spool, 1000)
    last = len(PARTS["optimizer_params"]) // CHUNK
    for part, index in ((0, 0), (0, 2), (1, last)):
        assert spool.read(part, index) == piece_of(part, index * CHUNK)
    with (tmp_path / f"{STEM}.u1.params").open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"!")
    assert spool.read(0, 2) is None
    assert spool.held == TOTAL - CHUNK
    assert spool.read(0, 2) is None
    assert spool.held == TOTAL - CHUNK
    assert [(r.part, r.start, r.stop) for r in spool.lacks()] == [(0, 2 * CHUNK, 3 * CHUNK)]
    spool.write(piece_of(0, 2 * CHUNK))
    assert spool.read(0, 2) == piece_of(0, 2 * CHUNK)


def test_room_that_the_disk_has_yet_to_find_is_known_while_the_files_are_open(tmp_path: Path) -> None:
    """A hole has none."""
    sizes = {"params": 1 << 20, "optimizer_params": 1 << 18}
    spool = Spool(tmp_path, STEM, "u1", list(sizes.items()))
    assert spool.unwritten() == 0
    spool.open()
    assert spool.unwritten() == sum(sizes.values())
    data = bytes(CHUNK)
    spool.write(Piece(1, 0, digest(data), data))
    assert sum(sizes.values()) - (64 << 10) <= spool.unwritten() < sum(sizes.values())
    spool.close()
    assert spool.unwritten() == 0


def test_who_else_may_read_an_upload_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        announced(tmp_path / "made" / "here").close()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "made" / "here").iterdir()} == {0o640}


def test_a_chunk_of_a_part_that_was_not_announced_is_refused(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    with pytest.raises(TransportError) as error:
        spool.write(Piece(2, 0, b"d" * 16, b"x"))
    assert str(error.value) == "chunk of part 2, of 2 parts"


def test_another_upload_of_the_same_site_drops_the_old_files(tmp_path: Path) -> None:
    """A script that was started again has trained again, and sends other bytes."""
    send(announced(tmp_path), 3)
    spool = announced(tmp_path, "u2")
    assert spool.held == 0
    ours = [f"{STEM}.u2.optimizer_params", f"{STEM}.u2.params"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(ours + [f"{name}.table" for name in ours])


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
    assert newer.held == 2 * CHUNK
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
    with pytest.raises(TransportError, match=f"sealed after {2 * CHUNK} of {TOTAL} bytes"):
        spool.seal(DIGESTS)
    assert announced(tmp_path).held == 2 * CHUNK


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
    assert announced(tmp_path).held == 0


def test_a_chunk_that_was_altered_between_two_processes_is_sent_again_alone(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    send(spool, 3)
    spool.close()
    path = tmp_path / f"{STEM}.u1.params"
    path.write_bytes(b"!" + path.read_bytes()[1:])
    spool = announced(tmp_path)
    assert spool.held == 2 * CHUNK
    send(spool, 1000)
    assert spool.seal(DIGESTS).keys() == PARTS.keys()


def test_a_damaged_chunk_is_counted_and_lacking(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    good = piece_of(0, 0)
    spool.write(Piece(0, 0, good.digest, b"!" + bytes(good.data[1:])))
    assert (spool.damaged, spool.again, spool.held) == (1, 1, 0)
    spool.write(good)
    spool.write(good)
    assert (spool.damaged, spool.held) == (1, CHUNK)
    assert spool.again == 2  # it came damaged, and once more when it was here


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2"])
def test_numbers_are_looked_at_as_they_come(tmp_path: Path, bad: float, dtype: str) -> None:
    """In whichever chunk it is, and after a restart."""
    import ml_dtypes  # noqa: F401 - numpy knows the names of its dtypes by it

    values = np.zeros(300, np.dtype(dtype))
    values[211] = bad
    parts = {"params": file_of({"fine": np.zeros(40, np.float32), "n": np.arange(50), "w": values})}
    spool = announced(tmp_path, parts=parts)
    send(spool, 2, parts)
    spool.close()
    spool = announced(tmp_path, parts=parts)
    send(spool, 1000, parts)
    assert spool.looked_at() == {"params": ["w"]}


def test_every_tensor_of_a_chunk_is_looked_at_once(tmp_path: Path) -> None:
    """Behind one that has no such numbers, and behind one that is known to have them."""
    odd = {"w": np.full(20, np.nan), "n": np.array([1]), "v": np.full(3, np.inf, np.float32), "fine": np.ones(1, "f4")}
    parts = {"params": file_of(odd), "optimizer_params": file_of({"m": np.ones(3), "k": np.array([2]), "s": np.nan})}
    spool = announced(tmp_path, parts=parts)
    send(spool, 1000, parts)
    assert spool.looked_at() == {"params": ["w", "v"], "optimizer_params": ["s"]}


def test_a_part_that_is_no_tensor_file_is_not_looked_at(tmp_path: Path) -> None:
    parts = {
        "params": (5).to_bytes(8, "little") + b"[1,2]" + bytes(200),
        "optimizer_params": file_of({"m": np.ones(1)}),
    }
    spool = announced(tmp_path, parts=parts)
    send(spool, 1000, parts)
    assert spool.looked_at() == {"optimizer_params": []}


@pytest.mark.parametrize("spaces", range(8))
def test_numbers_that_lie_across_two_chunks_are_left_to_others(tmp_path: Path, spaces: int) -> None:
    """As another tool may write them: its header has any length."""
    text = b'{"w":{"dtype":"F64","shape":[40],"data_offsets":[0,320]}}' + b" " * spaces
    values = np.zeros(40)
    values[33] = np.nan
    parts = {"params": len(text).to_bytes(8, "little") + text + values.tobytes()}
    spool = announced(tmp_path, parts=parts)
    send(spool, 1000, parts)
    aligned = (len(text) + 8) % 8 == 0
    assert spool.looked_at() == ({"params": ["w"]} if aligned else {})


def test_numbers_whose_header_came_late_are_left_to_others(tmp_path: Path) -> None:
    spool = announced(tmp_path)
    spool.write(piece_of(0, 2 * CHUNK))
    send(spool, 1000)
    assert spool.looked_at() == {"optimizer_params": []}


def test_a_file_of_an_earlier_round_is_written_over_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    old, new, spares = tmp_path / "old", tmp_path / "new", tmp_path / "spares"
    send(announced(old), 1000)
    inode = (old / f"{STEM}.u1.params").stat().st_ino
    retire(old.iterdir(), spares)
    assert not list(old.iterdir())
    parts = {"params": file_of({"w": np.ones(20, np.float32)})}
    spool = announced(new, parts=parts, spares=spares)
    assert spool.held == 0
    send(spool, 1000, parts)
    sealed = spool.seal([table_of(parts["params"]).object_digest()])
    assert sealed["params"].path.read_bytes() == parts["params"]
    assert inode in {p.stat().st_ino for p in (*new.iterdir(), *spares.iterdir())}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"abc", "part 'params' is not a tensor file: 3 bytes", id="three bytes"),
        pytest.param(b"\x00" * 20, "not a tensor file: header of 0 bytes, allowed: 2 to", id="zeros"),
        pytest.param(b"\xff" * 20, "header of", id="ones"),
        pytest.param(
            PARTS["params"] + b"x",
            f"part 'params': {SIZE + 1} bytes, its header says {SIZE}",
            id="a byte more than its header says",
        ),
        pytest.param(
            PARTS["params"][:-1],
            f"part 'params': {SIZE - 1} bytes, its header says {SIZE}",
            id="a byte less than its header says",
        ),
        pytest.param((5).to_bytes(8, "little") + b"[1,2]", "not a JSON object", id="a list as header"),
        pytest.param(b"", "part 'params' is not a tensor file: 0 bytes", id="nothing"),
    ],
)
def test_a_part_that_is_no_tensor_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    spool = announced(tmp_path, parts={"params": data})
    send(spool, 1000, {"params": data})
    with pytest.raises(CodecError, match=message):
        spool.seal([table_of(data).object_digest()])


def test_an_answer_without_parts_is_sealed_at_once(tmp_path: Path) -> None:
    assert announced(tmp_path, parts={}).seal([]) == {}


def test_a_longer_header_than_allowed_is_refused_and_not_read(tmp_path: Path) -> None:
    data = PARTS["params"]
    spool = Spool(tmp_path, STEM, "u1", [("params", len(data))], header_bytes=50)
    spool.open()
    send(spool, 1000, {"params": data})
    with pytest.raises(CodecError, match="allowed: 2 to 50"):
        spool.seal([table_of(data).object_digest()])


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@given(st.lists(st.sampled_from(["open", "close", "discard", "write", "unwritten", "lacks"]), max_size=8))
def test_a_spool_that_was_closed_opens_no_file_again(tmp_path_factory: Any, calls: list[str]) -> None:
    """A worker may come to open it after its stream has ended: nobody would close those files."""
    folder, before = tmp_path_factory.mktemp("spool"), descriptors()
    spool = Spool(folder, "Train.0.a", "u" * 32, [("params", CHUNK), ("optimizer_params", 50)])
    over = False
    for call in calls:
        try:
            if call == "write":
                spool.write(Piece(0, 0, digest(b"x" * CHUNK), b"x" * CHUNK))
            else:
                getattr(spool, call)()
        except TransportError:
            continue
        over = over or call in ("close", "discard")
        assert not over or descriptors() == before
    spool.close()
    assert descriptors() == before


def test_a_close_is_not_held_up_by_reading_back_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 * CHUNK
    first = Spool(tmp_path, "Train.0.a", "u" * 32, [("params", size)])
    first.open()
    for at in range(0, size, CHUNK):
        first.write(Piece(0, at, digest(b"x" * CHUNK), b"x" * CHUNK))
    first.close()
    second = Spool(tmp_path, "Train.0.a", "u" * 32, [("params", size)])
    real, read = chunks.digest, []

    def seen(data: bytes) -> bytes:
        read.append(len(data))
        threading.Thread(target=second.close).start()
        while not second._closed:
            pass
        return real(data)

    monkeypatch.setattr(chunks, "digest", seen)
    with pytest.raises(TransportError, match="this upload is over"):
        second.open()
    assert len(read) == 1
