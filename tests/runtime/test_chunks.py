"""Tables, ranges and the order of sending: whatever happens between two ends, the receiver ends with the sender's bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import chunks
from fedjob.chunks import Pause, Range, Sending, Table, accept, digest, lacking, object_digest
from fedjob.errors import TransportError

CHUNK = 4


def table_of(data: bytes) -> Table:
    table = Table(len(data), chunk_bytes=CHUNK)
    for i in range(table.count):
        table.put(i, digest(data[i * CHUNK : (i + 1) * CHUNK]))
    return table


# ----------------------------------------------------------------------------------------------- two ends of a stream


@dataclass
class Receiver:
    """Parts as files, with their tables: what survives a stream, and this end's process."""

    sizes: list[int]
    files: list[bytearray] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = [bytearray(size) for size in self.sizes]
        self.tables = [Table(size, chunk_bytes=CHUNK) for size in self.sizes]

    def take(self, part: int, offset: int, data: bytes, expected: bytes) -> None:
        """As a spool does."""
        index = accept(self.tables[part], offset, data, expected)
        if index is not None:
            self.files[part][offset : offset + len(data)] = data
            self.tables[part].put(index, expected)

    def restarted(self) -> Receiver:
        """A new process with the files and tables of the old one."""
        fresh = Receiver(self.sizes)
        fresh.files = self.files
        fresh.tables = [Table(t.size, t.to_bytes(), CHUNK) for t in self.tables]
        return fresh


FATES = st.sampled_from(["arrives", "arrives", "arrives", "doubled", "late", "damaged", "lost", "cut", "restarted"])


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=40), min_size=1, max_size=3),
    fates=st.lists(FATES, max_size=60),
    window=st.integers(1, 5),
)
def test_whatever_becomes_of_chunks_and_ends_the_bytes_arrive(
    parts: list[bytes], fates: list[str], window: int
) -> None:
    """Chunks are doubled, reordered, damaged and lost, streams cut, the receiver's process replaced; then all goes well.

    A cut costs at most the window: that much may be on its way. Nothing else that was held is sent again.
    """
    receiver, plan = Receiver([len(p) for p in parts]), iter(fates)
    sent = cuts = faulty = 0
    for _ in range(len(fates) + 2):  # each stream ends by a fault or with everything
        sending, late = Sending(receiver.sizes, window, CHUNK), list[tuple[int, int, bytes, bytes]]()
        arrived = 0
        sending.want(lacking(receiver.tables))
        while True:
            step = sending.next()
            if step is Pause.WAIT:
                sending.acknowledge(arrived)
                continue
            if step is Pause.SEAL:
                for piece in late:
                    receiver.take(*piece)
                late.clear()
                if not lacking(receiver.tables):
                    break
                sending.want(lacking(receiver.tables))
                continue
            assert isinstance(step, Range)
            data = parts[step.part][step.start : step.stop]
            piece = (step.part, step.start, data, digest(data))
            fate = next(plan, "arrives")
            sent, arrived = sent + 1, arrived + 1
            faulty += fate in ("damaged", "lost", "cut", "restarted")
            if fate == "damaged":
                piece = (*piece[:2], bytes([data[0] ^ 1]) + data[1:], piece[3])
            if fate == "late":
                late.append(piece)
            elif fate not in ("lost", "cut", "restarted"):
                receiver.take(*piece)
            if fate == "doubled":
                receiver.take(*piece)
            if fate in ("cut", "restarted"):
                cuts += 1
                faulty += len(late)  # lost with the stream
                receiver = receiver.restarted() if fate == "restarted" else receiver
                break
        if not lacking(receiver.tables):
            break
    assert [bytes(f) for f in receiver.files] == parts
    assert [t.object_digest() for t in receiver.tables] == [table_of(p).object_digest() for p in parts]
    assert sent <= sum(table_of(p).count for p in parts) + faulty


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 6))
def test_a_sender_is_never_further_ahead_than_the_window(acknowledgements: list[int], window: int) -> None:
    sending = Sending([1000], window, CHUNK)
    sending.want([Range(0, 0, 1000)])
    sent = told = 0
    for more in acknowledgements:
        while isinstance(sending.next(), Range):
            sent += 1
        assert sent - told == min(window, 250 - told) or sent == 250
        told = min(told + more, sent)
        sending.acknowledge(told)


def test_a_sender_waits_for_what_is_wanted_seals_and_waits_again() -> None:
    sending = Sending([6, 4], 9, CHUNK)
    assert sending.next() is Pause.WAIT
    sending.want([Range(0, 4, 6), Range(1, 0, 4)])
    assert [sending.next() for _ in range(4)] == [Range(0, 4, 6), Range(1, 0, 4), Pause.SEAL, Pause.WAIT]
    sending.want([])
    assert [sending.next(), sending.next()] == [Pause.SEAL, Pause.WAIT]


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(Range(2, 0, 4), id="of a part that there is not"),
        pytest.param(Range(0, 1, 4), id="from within a chunk"),
        pytest.param(Range(0, 0, 3), id="to within a chunk"),
        pytest.param(Range(0, 4, 8), id="past the end"),
        pytest.param(Range(0, 4, 4), id="nothing"),
        pytest.param(Range(0, 4, 0), id="backwards"),
    ],
)
def test_a_range_that_there_is_not_is_refused(wanted: Range) -> None:
    with pytest.raises(TransportError) as error:
        Sending([6, 4], 9, CHUNK).want([wanted])
    size = [6, 4, 0][wanted.part]
    assert str(error.value) == (
        f"the receiver wants bytes {wanted.start} to {wanted.stop} of part {wanted.part}, of {size} bytes"
    )


# ------------------------------------------------------------------------------------------------------------- tables


@given(st.binary(max_size=60), st.sets(st.integers(0, 14)))
def test_what_a_table_lacks_and_what_it_holds_are_the_whole_object(data: bytes, dropped: set[int]) -> None:
    table = table_of(data)
    for i in dropped & set(range(table.count)):
        table.drop(i)
    lacks = list(table.lacks())
    assert table.held + sum(stop - start for start, stop in lacks) == len(data)
    assert table.complete == (not lacks)
    assert all(a[1] < b[0] for a, b in pairwise(lacks)), "neighbours are joined"
    assert [t.held for t in (table, Table(len(data), table.to_bytes(), CHUNK))] == [table.held] * 2


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_only_equal_objects_have_equal_digests(a: bytes, b: bytes) -> None:
    assert (table_of(a).object_digest() == table_of(b).object_digest()) == (a == b)


def test_a_request_names_so_many_ranges_at_the_most() -> None:
    table = table_of(bytes(CHUNK * 400))
    for i in range(0, 400, 2):
        table.drop(i)
    assert lacking([table, table]) == [Range(0, i * CHUNK, (i + 1) * CHUNK) for i in range(0, 2 * chunks.MAX_RANGES, 2)]


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        pytest.param(1, 4, id="off the border"),
        pytest.param(-4, 4, id="before the beginning"),
        pytest.param(0, 3, id="too short"),
        pytest.param(4, 4, id="the last one too long"),
        pytest.param(8, 4, id="behind the end"),
        pytest.param(0, 0, id="empty"),
        pytest.param(1 << 70, 4, id="absurd"),
    ],
)
def test_a_chunk_that_cannot_be_of_the_object_is_refused(offset: int, length: int) -> None:
    with pytest.raises(TransportError, match=f"chunk of {length} bytes at {offset} of an object of 6"):
        Table(6, chunk_bytes=CHUNK).place(offset, length)


def test_a_chunk_counts_once_however_often_it_is_entered_or_dropped() -> None:
    table = Table(6, chunk_bytes=CHUNK)
    assert (table.held, table.at(1), table.complete, table.to_bytes()) == (0, b"", False, bytes(32))
    for _ in range(2):
        table.put(1, b"d" * 16)
        assert (table.held, table.at(1), list(table.lacks())) == (2, b"d" * 16, [(0, 4)])
    table.put(0, b"e" * 16)
    assert (table.held, table.complete, table.to_bytes()) == (6, True, b"e" * 16 + b"d" * 16)
    for _ in range(2):
        table.drop(1)
        assert (table.held, table.at(1), list(table.lacks())) == (4, b"", [(4, 6)])


def test_an_empty_object_is_complete_and_has_a_digest() -> None:
    assert Table(0).complete
    assert list(Table(0).lacks()) == []
    assert Table(0).object_digest() == object_digest(0, b"")


def test_a_cut_costs_sixteen_chunks_at_the_most() -> None:
    """What a sender runs ahead is lost with its stream, and lies in memory at both ends."""
    sending = Sending([100 * chunks.CHUNK_BYTES])
    sending.want([Range(0, 0, 100 * chunks.CHUNK_BYTES)])
    sent = 0
    while isinstance(sending.next(), Range):
        sent += 1
    assert (sent, chunks.CHUNK_BYTES) == (16, 1 << 20)


COUNT = st.one_of(st.integers(-2, 20), st.just(10**9))


@given(st.lists(st.tuples(COUNT, COUNT), max_size=20), st.integers(1, 5))
def test_no_acknowledgement_of_what_was_not_sent_widens_the_window(
    acknowledgements: list[tuple[int, int]], window: int
) -> None:
    """Nor does one that comes late, of less than was acknowledged before, narrow it."""
    sending = Sending([1000], window, CHUNK)
    sending.want([Range(0, 0, 1000)])
    sent = told = 0
    for counts in acknowledgements:
        for count in counts:
            sending.acknowledge(count)
            told = max(told, min(count, sent))
        while isinstance(sending.next(), Range):
            sent += 1
        assert sent == min(told + window, 250)


def test_the_digests_are_those_that_files_of_older_versions_have() -> None:
    """A state, a run that is resumed and a site that goes on with a download all compare them."""
    data = bytes(range(256)) * 9000
    table = Table(len(data))
    for i in range(table.count):
        table.put(i, digest(data[i * chunks.CHUNK_BYTES : (i + 1) * chunks.CHUNK_BYTES]))
    assert digest(b"fedjob").hex() == "bb706e093a6a717ddf3f68e65d88936a"
    assert object_digest(0, b"") == "71e0a99173564931c0b8acc52d2685a8e39c64dc52e3d02390fdac2a12b155cb"
    assert table.object_digest() == "40cc422ceca9cdd6ed638accaa3c8f10810e2e82e538f87a1c19c91c1f0253da"
