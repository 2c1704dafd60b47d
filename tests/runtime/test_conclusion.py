"""How a job ended, and who left: on disk, for the process that comes after."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fedjob import conclusion, records
from fedjob.conclusion import Conclusion
from fedjob.departures import Departures
from fedjob.errors import StateError

COMPLETE, FAILED = Conclusion("Complete", "RoundsCompleted"), Conclusion("Failed", "QuorumNotMet", "too few")


@pytest.mark.parametrize(
    ("end", "attempt", "job", "expected"),
    [
        pytest.param(COMPLETE, 1, "job", COMPLETE, id="the same attempt"),
        pytest.param(FAILED, 1, "job", FAILED, id="the same attempt, failed"),
        pytest.param(COMPLETE, 2, "job", COMPLETE, id="a resumed job that was complete stays so"),
        pytest.param(COMPLETE, 2, "another", None, id="unless it was changed"),
        pytest.param(FAILED, 2, "job", None, id="a job that failed is tried again"),
    ],
)
def test_a_conclusion_belongs_to_an_attempt(
    end: Conclusion, attempt: int, job: str, expected: Conclusion | None, tmp_path: Path
) -> None:
    assert conclusion.load(tmp_path, 1, "job") is None
    conclusion.save(tmp_path, 1, "job", end)
    assert conclusion.load(tmp_path, attempt, job) == expected


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 9, "attempt": 1}'])
def test_a_damaged_conclusion_is_not_taken_for_none(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "conclusion.json").write_bytes(text)
    with pytest.raises(StateError, match=r"conclusion\.json"):
        conclusion.load(tmp_path, 1, "job")


def test_who_has_left_is_known_until_it_is_back_or_the_job_begins_again(tmp_path: Path) -> None:
    departures = Departures(tmp_path, 1)
    departures.add("a", "its restarts are used up")
    departures.add("b", "it ended")
    departures.remove("b")
    departures.remove("c")
    assert Departures(tmp_path, 1).left == {"a": "its restarts are used up"}
    assert Departures(tmp_path, 2).left == {}
    (tmp_path / "departures.json").write_bytes(b"{")
    assert Departures(tmp_path, 1).left == {}


def test_what_a_killed_process_had_half_written_goes(tmp_path: Path) -> None:
    for name in (".conclusion.json.abc", ".departures.json.xyz"):
        (tmp_path / name).touch()
    Departures(tmp_path, 1).add("a", "it ended")
    conclusion.save(tmp_path, 1, "job", COMPLETE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conclusion.json", "departures.json"]


@pytest.mark.parametrize("letter", ["x", "é", "漢", "\U0001f600", "\x00", '"'])
def test_the_last_words_are_whole_json_of_what_a_kubelet_keeps(letter: str) -> None:
    text = conclusion.last_words("QuorumNotMet", letter * 5000)
    assert len(text) <= 4096
    said = json.loads(text)
    assert said["reason"] == "QuorumNotMet"
    assert len(said["message"]) > 400
    assert set(said["message"]) == {letter}
    assert json.loads(conclusion.last_words("RoundsCompleted", "")) == {"reason": "RoundsCompleted", "message": ""}


def test_a_path_that_is_not_utf_8_can_be_told(tmp_path: Path) -> None:
    end = Conclusion("Failed", "StateDamaged", os.fsdecode(b"/caf\xe9/w: damaged"))
    assert end.message == "/caf\\udce9/w: damaged"
    message = os.fsdecode(b"/caf\xe9: no room")
    records.write_status(tmp_path / "status.json", records.Status(records.JobRef("j", "u", 1), message=message))
    status = records.read_status(tmp_path / "status.json")
    assert status is not None
    assert status.message == "/caf\\udce9: no room"
