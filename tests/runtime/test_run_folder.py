"""Folders of runs: one for each run, however many begin at once, and none is ever taken for another job's."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob import run_folder
from fedjob.errors import ConfigError

NAMES = st.from_regex(r"[a-c]([-a-c0-9]{0,6}[a-c0-9])?", fullmatch=True)


def begin(runs: Path, name: str, at: int = 0) -> Path:
    """A run that has begun; at: its time, for the order."""
    folder = run_folder.claim(runs, name)
    (folder / "state").mkdir()
    run_folder.remember(folder, job=name, uid="u", attempt=1, keys=Path("/k"))
    os.utime(folder / run_folder.RECORD, ns=(at, at))
    return folder


def test_runs_that_begin_at_once_each_get_a_folder_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: run_folder.claim(tmp_path / "runs", "mnist"), range(20)))
    assert sorted(f.name for f in folders) == [f"mnist-{i:02d}" for i in range(1, 21)]


def test_the_latest_run_of_a_job_is_the_one_that_began_last(tmp_path: Path) -> None:
    for at in (1, 3, 2):
        begin(tmp_path, "mnist", at)
    assert run_folder.latest(tmp_path, "mnist").name == "mnist-02"


def test_a_later_run_that_never_had_a_model_hides_none_that_has(tmp_path: Path) -> None:
    went, ended_at_once = begin(tmp_path, "mnist", 1), begin(tmp_path, "mnist", 2)
    assert run_folder.latest(tmp_path, "mnist") == ended_at_once
    (went / "state" / "checkpoint").mkdir()
    assert run_folder.latest(tmp_path, "mnist") == went
    (ended_at_once / "state" / "checkpoint").mkdir()
    assert run_folder.latest(tmp_path, "mnist") == ended_at_once


@given(st.sets(NAMES, min_size=1, max_size=6), NAMES)
def test_no_job_ever_gets_a_folder_of_another(
    tmp_path_factory: pytest.TempPathFactory, others: set[str], name: str
) -> None:
    runs = tmp_path_factory.mktemp("runs")
    folders = {other: begin(runs, other) for other in others}
    if name in others:
        assert run_folder.latest(runs, name) == folders[name]
    else:
        with pytest.raises(ConfigError, match=f"no run of {name} to resume; leave --resume out"):
            run_folder.latest(runs, name)


def test_a_folder_with_the_name_of_a_run_of_this_job_that_is_of_another_is_left_alone(tmp_path: Path) -> None:
    mine, other = begin(tmp_path, "mnist", 1), begin(tmp_path, "other", 2)
    other.rename(tmp_path / "mnist-02")
    assert run_folder.latest(tmp_path, "mnist") == mine
    assert run_folder.claim(tmp_path, "mnist").name == "mnist-03"


def test_a_run_that_does_not_say_whose_it_is_is_not_resumed_and_says_what_to_do(tmp_path: Path) -> None:
    folder = begin(tmp_path, "mnist")
    path = folder / run_folder.RECORD
    path.write_text(path.read_text().replace('"job": "mnist", ', ""))
    with pytest.raises(ConfigError, match=re.escape(f"{path}: does not say which job it is of")) as refused:
        run_folder.latest(tmp_path, "mnist")
    assert 'add "job": "mnist" to it' in str(refused.value)
    path.write_text(path.read_text().replace("{", '{"job": "mnist", '))
    assert run_folder.latest(tmp_path, "mnist") == folder


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = begin(tmp_path, "mnist") / run_folder.RECORD
    path.write_text("{")
    with pytest.raises(
        ConfigError, match=re.escape(f"{path}: this run cannot be resumed: not JSON at line 1, column 2;")
    ):
        run_folder.latest(tmp_path, "mnist")


def test_the_folder_of_all_runs_may_be_a_link_and_one_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "elsewhere")
    assert run_folder.claim(tmp_path / "runs", "mnist").resolve() == tmp_path / "elsewhere" / "mnist-01"
    (tmp_path / "dangling").symlink_to("/nowhere")
    with pytest.raises(ConfigError, match=r"--runs .*dangling: a link to /nowhere, which does not exist"):
        run_folder.claim(tmp_path / "dangling", "mnist")
