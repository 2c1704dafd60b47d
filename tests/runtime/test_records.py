"""history.jsonl, metrics.jsonl and status.json: one definition for the server that writes and whoever reads."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import records
from fedjob.records import (
    Condition,
    JobRef,
    LoggedValue,
    Missing,
    Progress,
    RoundRecord,
    SiteRound,
    SiteStatus,
    Status,
    Traffic,
    append,
    from_json,
    read_history,
    read_metrics,
    read_status,
    to_json,
    write_status,
)

ROUND = RoundRecord(
    round=0,
    kind="Train",
    seconds=1.2,
    phases={"train": 1.0, "aggregate": 0.1, "checkpoint": 0.05},
    contributors=("a", "b"),
    missing=(Missing("c", "NotFinite", "tensor fc.weight holds NaN"),),
    sites={"a": SiteRound(812.0, {"accuracy": 0.9}, 1, 2, 0.1, 0.8, 0.2, 8)},
    metrics={"accuracy": 0.91},
    bytes_in=3,
    bytes_out=4,
    bytes_included=6,
    bytes_wire=5,
    model_digest="c0ffee",
)
STATUS = Status(
    job=JobRef("digits", "u-1", 1),
    state="Running",
    conditions=(Condition("DiskFull", "NoSpaceLeft", "12 MiB left"),),
    progress=Progress(3, 3, 10, 1.0, 2.0, 12.5),
    bytes=Traffic(in_=5, out=6),
    metrics={"accuracy": 0.93},
    sites=(SiteStatus("a", "Uploading", 7, 9, restarts=1, examples=812.0, message="retrying"),),
    updated_at=1690000000.0,
)


def test_a_round_is_written_with_the_names_that_the_file_promises() -> None:
    assert to_json(ROUND) == {
        "round": 0,
        "kind": "Train",
        "seconds": 1.2,
        "phases": {"train": 1.0, "aggregate": 0.1, "checkpoint": 0.05},
        "contributors": ["a", "b"],
        "missing": [{"site": "c", "reason": "NotFinite", "message": "tensor fc.weight holds NaN"}],
        "sites": {
            "a": {
                "examples": 812.0,
                "metrics": {"accuracy": 0.9},
                "bytesDown": 1,
                "bytesUp": 2,
                "secondsDown": 0.1,
                "secondsTrain": 0.8,
                "secondsUp": 0.2,
                "bytesWhole": 8,
            }
        },
        "metrics": {"accuracy": 0.91},
        "bytesIn": 3,
        "bytesOut": 4,
        "bytesIncluded": 6,
        "bytesWire": 5,
        "modelDigest": "c0ffee",
    }


def test_a_status_is_written_with_the_names_that_the_file_promises() -> None:
    written = to_json(STATUS)
    assert written["job"] == {"name": "digits", "uid": "u-1", "attempt": 1}
    assert written["bytes"] == {"in": 5, "out": 6}
    assert written["progress"]["etaSeconds"] == 12.5
    assert written["sites"][0]["doneBytes"] == 7
    assert written["updatedAt"] == 1690000000.0


@pytest.mark.parametrize("record", [ROUND, STATUS, LoggedValue("a", 1, None, "loss", 0.5), Status(), RoundRecord(0)])
def test_what_was_written_reads_back_equal(record: RoundRecord | Status | LoggedValue) -> None:
    assert from_json(type(record), json.loads(json.dumps(to_json(record)))) == record


@given(value=st.floats() | st.integers(-(2**53), 2**53))
def test_every_number_survives_as_valid_json(value: float) -> None:
    text = json.dumps(to_json(LoggedValue("a", 0, 0, "loss", value)), allow_nan=False)
    back = from_json(LoggedValue, json.loads(text)).value
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_numpy_scalars_are_taken_as_numbers() -> None:
    assert to_json(LoggedValue("a", 0, 0, "loss", np.float32(0.5)))["value"] == 0.5  # type: ignore[arg-type]


def test_unknown_keys_are_ignored_and_absent_ones_take_their_default() -> None:
    assert from_json(RoundRecord, {"round": 2, "colour": "blue"}) == RoundRecord(round=2)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param({}, "missing .* 'round'", id="a round without its number is refused"),
        pytest.param([], "a RoundRecord is a JSON object", id="a list is not a round"),
        pytest.param(
            {"round": 0, "metrics": {"f1": None}}, r"RoundRecord.metrics.f1: None", id="null is not a metric's value"
        ),
    ],
)
def test_what_is_not_a_round_is_refused_with_the_reason(data: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        from_json(RoundRecord, data)


def test_lines_are_appended_and_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    append(file, RoundRecord(0))
    append(file, RoundRecord(1), RoundRecord(2))
    assert [each.round for each in read_history(file)] == [0, 1, 2]


def test_files_that_are_not_there_read_as_nothing(tmp_path: Path) -> None:
    assert read_history(tmp_path / "history.jsonl") == []
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    assert read_status(tmp_path / "status.json") is None


def test_a_round_that_ran_again_counts_once_and_its_last_record_stays(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    append(file, RoundRecord(0), RoundRecord(1, seconds=1.0), RoundRecord(2, seconds=1.0))
    append(file, RoundRecord(1, seconds=9.0), RoundRecord(2, seconds=9.0), RoundRecord(2, kind="Evaluate"))
    assert [(each.round, each.kind, each.seconds) for each in read_history(file)] == [
        (0, "Train", 0.0),
        (1, "Train", 9.0),
        (2, "Train", 9.0),
        (2, "Evaluate", 0.0),
    ]


def test_a_value_logged_again_at_the_same_step_replaces_the_first(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append(file, LoggedValue("a", 0, 0, "loss", 1.0), LoggedValue("b", 0, 0, "loss", 2.0))
    append(file, LoggedValue("a", 0, 0, "loss", 3.0))
    assert [(each.site, each.value) for each in read_metrics(file)] == [("a", 3.0), ("b", 2.0)]


def test_values_without_a_step_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append(file, LoggedValue("a", 0, None, "loss", 1.0), LoggedValue("a", 0, None, "loss", 2.0))
    assert [each.value for each in read_metrics(file)] == [1.0, 2.0]


@settings(deadline=None)
@given(data=st.data())
def test_a_write_cut_at_any_byte_loses_at_most_its_own_line(data: st.DataObject, tmp_path_factory: object) -> None:
    file = Path(tmp_path_factory.mktemp("torn")) / "history.jsonl"  # type: ignore[attr-defined]
    append(file, RoundRecord(0))
    whole = file.stat().st_size
    append(file, ROUND_1)
    cut = data.draw(st.integers(whole, file.stat().st_size))
    with file.open("r+b") as opened:
        opened.truncate(cut)

    survived = [0, 1] if cut >= whole + len(json.dumps(to_json(ROUND_1), separators=(",", ":"))) else [0]
    assert [each.round for each in read_history(file)] == survived
    append(file, RoundRecord(5))
    assert [each.round for each in read_history(file)] == [*survived, 5]


ROUND_1 = RoundRecord(1, contributors=("a",), missing=(Missing("b", "Deadline"),), seconds=2.5)


def test_a_broken_line_that_no_crash_explains_is_reported_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text('{"round":0}\n{"rou\n{"round":2}\n')
    with pytest.raises(ValueError, match=r"history\.jsonl, line 2: "):
        read_history(file)


def test_a_status_is_replaced_as_a_whole_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    write_status(file, Status())
    write_status(file, STATUS)
    assert read_status(file) == STATUS
    assert [each.name for each in tmp_path.iterdir()] == ["status.json"]


def test_a_state_of_a_newer_version_is_still_readable() -> None:
    assert from_json(SiteStatus, {"name": "a", "state": "Attesting"}).state == "Attesting"  # type: ignore[comparison-overlap]


def test_the_records_need_the_standard_library_alone() -> None:
    # In an empty package, so that what `fedjob` itself imports does not count; -I -S leaves no site-packages to find.
    script = (
        "import sys, types; package = types.ModuleType('fedjob'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['fedjob'] = package; import fedjob.records"
    )
    folder = str(Path(records.__file__).parent)
    subprocess.run([sys.executable, "-I", "-S", "-c", script, folder], check=True)
