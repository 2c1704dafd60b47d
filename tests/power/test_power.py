"""A machine that loses its power at any moment: the job goes on from what its disk has, to the same model."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fedjob import checkpoint, server
from fedjob.config import ServerConfig
from fedjob.progress import Story
from fedjob.records import HISTORY_FILE, JobRef, RoundRecord, append, read_history
from fedjob.stored import file_digest, open_stored
from fedjob.workflows import fedavg
from power import job
from power.conftest import PowerDisk
from power.disk import Kept

KEPT: tuple[Kept, ...] = ("nothing", "names", "some")
NEVER = 1 << 30  # within the life of a server; so it comes after its end
CUTS = int(os.environ.get("POWER_CUTS", "8"))  # of each kind


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the model of a job whose power stays."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert job.live(job.config(folder, folder / "initial")) == (0, ["Complete", "Complete"])
    return file_digest(folder / "run" / server.MODEL_FILE)


@pytest.mark.parametrize("kept", KEPT)
def test_a_power_cut_at_any_change_of_the_disk_costs_no_more_than_some_rounds(
    kept: Kept, power: PowerDisk, tmp_path: Path, undisturbed: str
) -> None:
    configuration = job.config(power.folder, tmp_path / "initial")
    assert job.live(configuration)[0] == 0
    changes = power.fail_at(-1)
    draw = random.Random(kept)
    for cut in [*draw.sample(range(changes), min(CUTS, changes)), NEVER]:
        _one_cut(power, configuration, cut, kept, undisturbed)


def _one_cut(power: PowerDisk, configuration: ServerConfig, cut: int, kept: Kept, undisturbed: str) -> None:
    power.new()
    power.fail_at(cut)
    _, told = job.live(configuration)
    power.power_back(kept, cut)
    where = f"cut before change {cut}, kept {kept}"
    assert told or cut != NEVER
    if told:
        assert (power.folder / "state" / "conclusion.json").exists(), f"{where}: the end was told, and is forgotten"
    assert job.live(configuration)[0] == 0, where
    assert file_digest(power.folder / "run" / server.MODEL_FILE) == undisturbed, where
    history = read_history(power.folder / "run" / HISTORY_FILE)
    assert [r.round for r in history if r.kind == "Train"] == [0, 1, 2], where


def test_a_state_whose_history_a_power_cut_took_gives_way_to_one_that_has_it(tmp_path: Path) -> None:
    configuration = job.config(tmp_path, tmp_path / "initial.safetensors")
    folder, history = tmp_path / "state" / "checkpoint", tmp_path / "run" / HISTORY_FILE
    history.parent.mkdir()
    model = open_stored(tmp_path / "initial.safetensors")
    for rounds in (1, 2):
        checkpoint.save(folder, fedavg.State(rounds, model), 0.0)
        if rounds == 1:
            append(history, RoundRecord(0))
            checkpoint.make_durable(folder)
    session = server._session(configuration)
    assert server._saved(configuration, Story(JobRef(), job.ROUNDS), session).round == 1
    append(history, RoundRecord(1))
    checkpoint.save(folder, fedavg.State(2, model), 0.0)
    assert server._saved(configuration, Story(JobRef(), job.ROUNDS), session).round == 2
