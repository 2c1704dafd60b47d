"""A round's journal: what it says survives a kill at any byte; damage does not pass for a kill."""

from __future__ import annotations

import json
import os
import re
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.errors import StateError
from fedjob.journal import Journal, accepted, forget, put_by

EVENTS: list[dict[str, Any]] = [
    {"ask": ["Train", 0], "sites": ["a", "b"]},
    {"site": "a", "header": {"num_examples": 3.0, "meta": {"text": "é\n\u2028🙂"}}},
    {"site": "b", "reason": "NotFinite"},
    {},
]


def filled(folder: Path) -> bytes:
    """A journal with five records; gives its bytes."""
    journal = Journal(folder)
    for facts in EVENTS:
        journal.append("event", **facts)
    journal.close()
    return (folder / "journal.jsonl").read_bytes()


def told(journal: Journal) -> list[dict[str, Any]]:
    """The facts of the records after the first, which opened it."""
    return [{k: v for k, v in r.items() if k not in ("event", "at")} for r in journal.records[1:]]


def test_a_journal_says_after_reopening_what_it_was_told(tmp_path: Path) -> None:
    filled(tmp_path)
    journal = Journal(tmp_path)
    assert told(journal) == EVENTS
    journal.append("event", last=True)
    journal.close()
    assert told(Journal(tmp_path)) == [*EVENTS, {"last": True}]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6))
def test_any_truncation_loses_the_torn_record_and_those_behind_it(tmp_path_factory: Any, size: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    data = filled(folder)
    kept = data[: size % (len(data) + 1)]
    (folder / "journal.jsonl").write_bytes(kept)
    journal = Journal(folder)
    assert told(journal) == EVENTS[: max(kept.count(b"\n") - 1, 0)]
    journal.append("event", more=1)
    journal.close()
    assert told(Journal(folder))[-1] == {"more": 1}


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_damage_before_good_records_is_an_error_that_names_the_line(tmp_path_factory: Any, at: int, flip: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    data = bytearray(filled(folder))
    before_last_two = bytes(data).rstrip(b"\n").rsplit(b"\n", 2)[0]
    data[at % len(before_last_two)] ^= flip
    (folder / "journal.jsonl").write_bytes(data)
    with pytest.raises(StateError, match=r"journal\.jsonl: line [1-5] is damaged"):
        Journal(folder)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40).filter(lambda tail: b"\n" not in tail))
def test_a_tail_of_any_bytes_is_dropped(tmp_path_factory: Any, tail: bytes) -> None:
    """What a torn write may leave, zeros after a power failure too."""
    folder = tmp_path_factory.mktemp("journal")
    data = filled(folder)
    (folder / "journal.jsonl").write_bytes(data + tail)
    journal = Journal(folder)
    assert told(journal) == EVENTS
    journal.close()
    assert (folder / "journal.jsonl").read_bytes() == data


def test_elapsed_time_goes_on_where_the_last_record_left_it(tmp_path: Path) -> None:
    """Running time only: the journal of a process that ran for an hour, found a day later, says an hour."""
    filled(tmp_path)
    text = json.dumps({"event": "tick", "at": 3600.0})
    with (tmp_path / "journal.jsonl").open("ab") as f:
        f.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
    journal = Journal(tmp_path)
    assert 3600.0 <= journal.elapsed_seconds() < 3660.0
    journal.append("event")
    assert journal.records[-1]["at"] >= 3600.0


def test_time_never_runs_backwards_within_a_journal(tmp_path: Path) -> None:
    for _ in range(3):
        filled(tmp_path)
    times = [r["at"] for r in Journal(tmp_path).records]
    assert times == sorted(times)


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    text = json.dumps({"event": "opened", "at": 0.0, "version": 2})
    (tmp_path / "journal.jsonl").write_text(f"{zlib.crc32(text.encode()):08x} {text}\n")
    with pytest.raises(StateError, match="version 2, this program reads 1"):
        Journal(tmp_path)


@pytest.fixture
def disk_full_at() -> Iterator[Any]:
    """Gives a function after whose call no file of this process may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_record_that_the_disk_took_by_half_does_not_damage_the_journal(tmp_path: Path, disk_full_at: Any) -> None:
    size = len(filled(tmp_path))
    journal = Journal(tmp_path)
    disk_full_at(size + 500)
    with pytest.raises(OSError, match="File too large"):
        journal.append("event", lost="much " * 200)
    disk_full_at(1 << 30)
    assert (tmp_path / "journal.jsonl").stat().st_size == size
    journal.append("event", kept=True)
    journal.close()
    assert told(Journal(tmp_path)) == [*EVENTS, {"kept": True}] == told(journal)


def test_a_journal_that_the_disk_does_not_take_leaves_no_file_open(tmp_path: Path, disk_full_at: Any) -> None:
    before = _open_files()
    disk_full_at(0)
    with pytest.raises(OSError, match="File too large"):
        Journal(tmp_path)
    assert _open_files() == before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_record_is_written_whole_whatever_the_kernel_takes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        filled(tmp_path)
    assert told(Journal(tmp_path)) == EVENTS


def test_a_journal_says_what_it_is_in_few_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "round-000000"
    journal = Journal(folder)
    assert journal.elapsed_seconds() < 1.0
    journal._since -= 2.00049
    journal.append("event", a=[1, "b"])
    journal.close()
    first, second = (folder / "journal.jsonl").read_text().splitlines()
    assert re.fullmatch(r'[0-9a-f]{8} {"event":"opened","at":0\.\d{1,3},"version":1}', first)
    assert re.fullmatch(r'[0-9a-f]{8} {"event":"event","at":2\.\d{1,3},"a":\[1,"b"\]}', second)
    assert journal.folder == folder
    assert (folder / "journal.jsonl").stat().st_mode & 0o111 == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.append("event")


@pytest.mark.parametrize("line", range(1, 5))
def test_damage_is_named_by_its_line_if_one_whole_record_is_behind_it(tmp_path: Path, line: int) -> None:
    lines = filled(tmp_path).splitlines(keepends=True)[: line + 1]
    lines[line - 1] = b"x" + lines[line - 1]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(StateError, match=rf"journal\.jsonl: line {line} is damaged"):
        Journal(tmp_path)


def test_a_record_without_its_words_is_told_so(tmp_path: Path) -> None:
    text = '{"event":"closed","at":"a"}'
    (tmp_path / "journal.jsonl").write_text(f"{zlib.crc32(text.encode()):08x} {text}\n")
    with pytest.raises(StateError, match="event and at are not a word and a number"):
        Journal(tmp_path)


@pytest.mark.parametrize("text", ['{"x":1}', "[]", "3", '{"event":"closed","at":"a"}', '{"at":1.0}'])
def test_a_line_that_is_whole_and_no_record_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal.jsonl").write_text(f"{zlib.crc32(text.encode()):08x} {text}\n")
    with pytest.raises(StateError, match=r"journal\.jsonl: line 1 cannot be read"):
        Journal(tmp_path)


def test_what_a_closed_round_had_accepted_is_known_until_it_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "round-000003"
    journal = Journal(folder)
    journal.append("accepted", ask=["Train", 0], site="a", upload="x")
    journal.append("out", ask=["Train", 0], site="b", upload="y")
    journal.append("accepted", ask=["Evaluate", 1], site="b", upload="z")
    journal.close()
    assert accepted(tmp_path) == frozenset(), "the round is still open"
    put_by(folder)
    assert list(folder.iterdir()) == []
    put_by(folder)  # once more, after a kill
    assert accepted(tmp_path) == {("Train", 0, "a", "x"), ("Evaluate", 1, "b", "z")}
    forget(tmp_path)
    assert accepted(tmp_path) == frozenset()
    forget(tmp_path)


def test_a_damaged_journal_of_a_closed_round_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    (tmp_path / "journal.jsonl").rename(tmp_path / "closed.jsonl")
    with (tmp_path / "closed.jsonl").open("r+b") as file:
        file.write(b"damaged")
    assert accepted(tmp_path) == frozenset()
    (line,) = caplog.messages
    assert line == f"what the last round had accepted is not known: {tmp_path / 'closed.jsonl'}: line 1 is damaged"
