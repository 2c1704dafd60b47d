"""What is on the disk when a call returns, and what a power cut within it leaves: the state before, or the one after."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedjob import checkpoint, conclusion, files, identity, records, server, stored
from fedjob.chunks import CHUNK_BYTES
from fedjob.conclusion import Conclusion
from fedjob.departures import Departures
from fedjob.errors import StateError
from fedjob.journal import Journal
from fedjob.trees import Tree, in_memory
from power import job
from power.conftest import PowerDisk
from power.disk import Kept

FEW = 5 if "POWER_CUTS" in os.environ else 1  # outcomes of a cut, where there are many cuts


@dataclass(frozen=True)
class State:
    """As a workflow has it."""

    round: int
    model: Tree


def model(value: float) -> Tree:
    return in_memory({"w": np.full(CHUNK_BYTES // 4 + 10, value, np.float32)})


def cuts(
    power: PowerDisk,
    before: Callable[[Path], object],
    work: Callable[[Path], object],
    found: Callable[[Path], Any],
    outcomes: int = 5,
) -> tuple[list[Any], list[Any]]:
    """What is found after a power cut before each change that `work` makes to what `before` has left, and after the last.

    outcomes: of the five that a cut may have, how many are tried of each.
    """
    power.new()
    before(power.folder)
    power.fail_at(-1)
    work(power.folder)
    changes = power.fail_at(-1)
    assert changes

    def after_cut(cut: int, kept: Kept, seed: int) -> Any:
        power.new()
        before(power.folder)
        power.fail_at(cut)
        with contextlib.suppress(OSError):
            work(power.folder)
        power.power_back(kept, seed)
        return found(power.folder)

    every: list[tuple[Kept, int]] = [("nothing", 0), ("names", 0), *(("some", seed) for seed in range(3))]
    tried = [(cut, every[(cut + shift) % 5]) for cut in range(changes) for shift in range(outcomes)]
    within = [after_cut(cut, *one) for cut, one in tried]
    return within, [after_cut(changes, *one) for one in every]


def forced(folder: Path) -> Path:
    """The folder, whose name is on the disk."""
    folder.mkdir()
    files.sync_folder(folder.parent)
    return folder


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def test_a_small_file_is_the_old_one_or_the_new_one_and_the_new_one_once_it_is_written(power: PowerDisk) -> None:
    within, after = cuts(
        power,
        lambda disk: stored.write_whole(disk / "f", b"old"),
        lambda disk: stored.write_whole(disk / "f", b"new and longer"),
        lambda disk: content(disk / "f"),
    )
    assert set(within) == {b"old", b"new and longer"}
    assert set(after) == {b"new and longer"}


def test_a_folder_that_is_made_is_on_the_disk(power: PowerDisk) -> None:
    def work(disk: Path) -> None:
        files.make_folder(disk / "a" / "b")
        stored.write_whole(disk / "a" / "b" / "f", b"new")

    _, after = cuts(power, lambda _: None, work, lambda disk: content(disk / "a" / "b" / "f"))
    assert set(after) == {b"new"}


def test_the_end_of_a_job_is_on_the_disk_when_it_is_said(power: PowerDisk) -> None:
    end = Conclusion("Failed", "QuorumNotMet", "because")
    within, after = cuts(
        power,
        lambda _: None,
        lambda disk: conclusion.save(disk, 1, "job", end),
        lambda disk: conclusion.load(disk, 1, "job"),
    )
    assert set(within) <= {None, end}
    assert set(after) == {end}


def test_who_has_left_is_on_the_disk_when_the_call_returns(power: PowerDisk) -> None:
    within, after = cuts(
        power,
        lambda disk: Departures(disk, 1).add("a", "because"),
        lambda disk: Departures(disk, 1).add("b", "because"),
        lambda disk: tuple(sorted(Departures(disk, 1).left)),
    )
    assert set(within) == {("a",), ("a", "b")}
    assert set(after) == {("a", "b")}


def test_a_key_and_its_certificate_are_on_the_disk_and_none_is_torn(power: PowerDisk) -> None:
    old, new = (_credentials(hours) for hours in (1, 2))
    within, after = cuts(
        power,
        lambda disk: identity.write(old, disk / "tls"),
        lambda disk: identity.write(new, disk / "tls"),
        lambda disk: identity.read(disk / "tls"),
    )
    for found in within:
        assert found.key_pem in (old.key_pem, new.key_pem)
        assert found.cert_pem in (old.cert_pem, new.cert_pem)
    assert all(found == new for found in after)


def _credentials(hours: int) -> identity.Credentials:
    now = datetime.now(UTC)
    authority = identity.create_authority("u", now=now, lifetime=timedelta(days=1))
    return identity.issue(
        authority, authority.server(), now=now, lifetime=timedelta(hours=hours), dns_names=["localhost"]
    )


def test_the_final_model_is_whole_on_the_disk_when_it_is_published(power: PowerDisk, tmp_path: Path) -> None:
    configuration = job.config(power.folder, tmp_path / "initial.safetensors")
    whole = stored.write(tmp_path / "m", model(0.5)).digest

    def found(disk: Path) -> str:
        path = disk / "run" / server.MODEL_FILE
        return stored.file_digest(path) if path.exists() else ""

    within, after = cuts(
        power,
        lambda disk: forced(disk / "run"),
        lambda _: server._publish(configuration, model(0.5)),
        found,
    )
    assert set(within) <= {"", whole}
    assert set(after) == {whole}


# --------------------------------------------------------------------------------------------------------- the state


def found_state(disk: Path) -> tuple[int, float] | None:
    """Round and first number of the state that the next process finds, which knows of the rounds before it."""
    told = {record.round for record in records.read_history(disk / "h")}
    loaded = checkpoint.load(disk / "c", State, lambda state: told.issuperset(range(state.round)))
    if loaded is None:
        return None
    state = loaded[0]
    assert told.issuperset(range(state.round))
    return state.round, float(state.model.read(state.model.layout.specs[0], 0, 1)[0])


def next_state(disk: Path, at: int) -> None:
    """A round has ended."""
    tell = partial(records.append, disk / "h", records.RoundRecord(at - 1))
    checkpoint.save(disk / "c", State(at, model(at + 0.5)), 0.0, tell, disk / "spare", [disk / "h"])


def test_the_first_state_is_whole_or_not_there(power: PowerDisk) -> None:
    within, after = cuts(
        power,
        lambda disk: forced(disk / "c"),
        lambda disk: checkpoint.save(disk / "c", State(0, model(0.5)), 0.0),
        found_state,
    )
    assert set(within) <= {None, (0, 0.5)}
    assert set(after) == {(0, 0.5)}


def test_a_state_that_was_forced_stays_until_a_later_one_is(power: PowerDisk) -> None:
    """Through states that are not forced, and the files that they are written over."""

    def before(disk: Path) -> None:
        checkpoint.save(forced(disk / "c"), State(0, model(0.5)), 0.0)

    def work(disk: Path) -> None:
        for at in (1, 2, 3):
            next_state(disk, at)
            if at != 2:
                checkpoint.make_durable(disk / "c", [disk / "h"], disk / "spare")

    within, after = cuts(power, before, work, found_state, FEW)
    assert {(0, 0.5), (1, 1.5), (3, 3.5)} <= set(within) <= {(at, at + 0.5) for at in range(4)}
    assert set(after) == {(3, 3.5)}


# -------------------------------------------------------------------------------------------------------- not forced


def test_what_is_not_forced_is_lost_from_its_end_or_noticed(power: PowerDisk) -> None:
    """A journal's records, and a large file that was written over a larger spare."""

    def before(disk: Path) -> None:
        stored.write(disk / "old", in_memory({"w": np.ones(CHUNK_BYTES, np.float32)}))
        stored.retire([disk / "old"], disk / "spare")

    def work(disk: Path) -> None:
        journal = Journal(disk / "r")
        for at in range(3):
            journal.append("event", number=at)
        journal.close()
        stored.write(disk / "new", model(0.5), disk / "spare")

    def found(disk: Path) -> tuple[list[int], float | None]:
        journal = Journal(disk / "r")
        journal.close()
        try:
            tree = stored.open_stored(disk / "new")
            value = float(tree.read(tree.layout.specs[0], 0, 1)[0])
        except StateError:
            value = None
        return [r["number"] for r in journal.records[1:]], value

    within, after = cuts(power, before, work, found, FEW)
    for numbers, _ in [*within, *after]:
        assert numbers == [*range(len(numbers))]
