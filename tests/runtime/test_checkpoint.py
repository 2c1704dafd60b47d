"""A workflow's state: at every moment there is exactly one on disk, and it is whole."""

from __future__ import annotations

import json
import os
import resource
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import checkpoint
from fedjob.checkpoint import Keeper, load, make_durable, save, tidy
from fedjob.chunks import CHUNK_BYTES
from fedjob.codec import Spec
from fedjob.errors import StateError
from fedjob.stored import write_values
from fedjob.trees import Block, Computed, Tree, in_memory


@dataclass(frozen=True)
class State:
    """As a workflow has it."""

    round: int
    model: Tree
    momentum: Tree | None = None
    note: str = ""


def model(value: float) -> Tree:
    return in_memory({"w": np.full(5, value, np.float32)})


def first(tree: Tree) -> float:
    return float(tree.read(tree.layout.specs[0], 0, 1)[0])


def breaks(tree: Tree) -> Tree:
    """A tree with the layout of another that cannot be read."""

    def compute(spec: Spec, start: int, stop: int) -> Block:
        raise OSError(5, "Input/output error")

    return Computed(tree.layout, compute)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def loaded(folder: Path) -> State:
    found = load(folder, State)
    assert found is not None
    state: State = found[0]
    return state


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save(tmp_path, State(3, model(1.5), model(2.5), "é"), 12.3456)
    found = load(tmp_path, State)
    assert found is not None
    state, seconds = found
    assert (state.round, first(state.model), first(state.momentum), state.note) == (3, 1.5, 2.5, "é")
    assert seconds == 12.346


def test_a_part_of_the_state_may_be_missing(tmp_path: Path) -> None:
    save(tmp_path, State(0, model(1.0)), 0.0)
    assert loaded(tmp_path).momentum is None


def test_there_is_no_state_before_the_first_save(tmp_path: Path) -> None:
    assert load(tmp_path / "nothing", State) is None


def test_what_comes_first_finds_the_new_model_and_the_old_state(tmp_path: Path) -> None:
    """Such as a record of a round, which must be in the history before the round is over."""
    save(tmp_path, State(1, model(1.0)), 0.0)
    seen: list[Any] = []
    save(tmp_path, State(2, model(2.0)), 0.0, first=lambda: seen.append((names(tmp_path), loaded(tmp_path).round)))
    assert seen == [(["checkpoint.json", "model-000001.safetensors", "model-000002.safetensors"], 1)]


def test_files_beside_the_state_are_forced_with_it_until_a_state_is_durable(tmp_path: Path) -> None:
    beside, absent = tmp_path / "history.jsonl", tmp_path / "absent"
    beside.write_text("{}")
    save(tmp_path / "c", State(1, model(1.0)), 0.0, also=[beside])
    with pytest.raises(FileNotFoundError, match="absent"):
        save(tmp_path / "c", State(2, model(2.0)), 0.0, also=[beside, absent])
    with pytest.raises(FileNotFoundError, match="absent"):
        make_durable(tmp_path / "c", [absent])
    assert loaded(tmp_path / "c").round == 1
    make_durable(tmp_path / "c", [beside])
    save(tmp_path / "c", State(2, model(2.0)), 0.0, also=[absent])
    assert loaded(tmp_path / "c").round == 2


def test_old_files_and_what_a_killed_process_left_are_removed(tmp_path: Path) -> None:
    save(tmp_path, State(0, model(0.0), model(0.0)), 0.0)
    (tmp_path / ".model-000001.safetensors.x7f3").write_bytes(b"half a model")
    tidy(tmp_path)
    save(tmp_path, State(1, model(1.0), model(1.0)), 0.0)
    make_durable(tmp_path)
    assert names(tmp_path) == [
        "checkpoint.json", "durable.json", "model-000001.safetensors", "momentum-000001.safetensors",
    ]  # fmt: skip


def test_a_state_that_only_moved_on_writes_no_model_again(tmp_path: Path) -> None:
    save(tmp_path, State(1, model(1.0)), 0.0)
    written = (tmp_path / "model-000001.safetensors").stat().st_mtime_ns
    save(tmp_path, State(2, loaded(tmp_path).model), 0.0)
    assert names(tmp_path) == ["checkpoint.json", "model-000001.safetensors"]
    assert (tmp_path / "model-000001.safetensors").stat().st_mtime_ns == written
    assert loaded(tmp_path).round == 2


def test_a_model_in_another_folder_is_copied_here(tmp_path: Path) -> None:
    stored = write_values(tmp_path / "initial.safetensors", {"w": np.ones(2)})
    save(tmp_path / "state", State(0, stored), 0.0)
    stored.path.unlink()
    assert first(loaded(tmp_path / "state").model) == 1.0


# --------------------------------------------------------------------------------------------------------- killed


def test_an_error_while_a_tree_is_written_leaves_the_earlier_state(tmp_path: Path) -> None:
    """The first tree of the new state is on disk already; the second cannot be computed."""
    save(tmp_path, State(1, model(1.0), model(10.0)), 5.0)
    with pytest.raises(OSError, match="Input/output"):
        save(tmp_path, State(2, model(2.0), breaks(model(0.0))), 9.0)
    state = loaded(tmp_path)
    assert (state.round, first(state.model), first(state.momentum or model(0))) == (1, 1.0, 10.0)
    save(tmp_path, State(2, model(2.0), model(20.0)), 9.0)
    assert loaded(tmp_path).round == 2


@pytest.mark.parametrize("count", range(4))
def test_a_kill_after_any_file_leaves_one_valid_state(tmp_path: Path, count: int) -> None:
    """The new state's files appear in the order in which they are written; after each, the folder is loaded."""
    old, new = tmp_path / "old", tmp_path / "new"
    save(old, State(1, model(1.0), model(10.0)), 5.0)
    save(new, State(2, model(2.0), model(20.0)), 9.0)
    written = ["model-000002.safetensors", "momentum-000002.safetensors", "checkpoint.json"]
    for name in written[:count]:
        (old / name).write_bytes((new / name).read_bytes())
    if count < 3:
        (old / f".{written[count]}.k1l1").write_bytes((new / written[count]).read_bytes()[:50])
    state = loaded(old)
    assert (state.round, first(state.model)) == ((2, 2.0) if count == 3 else (1, 1.0))


# ------------------------------------------------------------------------------------------------------- power cut


BACK = "the newest state is damaged, going back to the last one that was forced to the disk: "


def test_a_damaged_state_gives_way_to_the_last_that_was_forced_to_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, State(1, model(1.0)), 3.0)
    make_durable(tmp_path)
    save(tmp_path, State(2, model(2.0)), 5.0)
    save(tmp_path, State(3, model(3.0)), 7.0)
    assert loaded(tmp_path).round == 3
    (tmp_path / "model-000003.safetensors").write_bytes(b"")
    found = load(tmp_path, State)
    assert found is not None
    assert (found[0].round, first(found[0].model), found[1]) == (1, 1.0, 3.0)
    assert caplog.messages == [f"{BACK}{tmp_path / 'model-000003.safetensors'}: truncated: 0 bytes"]


def test_a_state_that_is_being_saved_is_not_removed_with_the_old_ones(tmp_path: Path) -> None:
    save(tmp_path, State(1, model(1.0)), 0.0)
    save(tmp_path, State(2, model(2.0)), 0.0)
    (tmp_path / "model-000003.safetensors").write_bytes(b"written, and not yet named")
    make_durable(tmp_path)
    assert names(tmp_path) == [
        "checkpoint.json", "durable.json", "model-000002.safetensors", "model-000003.safetensors",
    ]  # fmt: skip


def test_a_keeper_that_is_closed_has_made_the_newest_state_durable(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, also=[tmp_path / "history.jsonl"])
    for t in range(20):
        save(tmp_path, State(t, model(float(t))), float(t))
        keeper.saved()
    keeper.close(60)
    assert names(tmp_path) == ["checkpoint.json", "durable.json", "model-000019.safetensors"]
    (tmp_path / "checkpoint.json").unlink()
    assert loaded(tmp_path).round == 19


def test_a_full_disk_costs_a_keeper_time_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, State(1, model(1.0)), 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    keeper = Keeper(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        keeper.saved()
        while "the state is not forced to the disk yet: " not in caplog.text:
            assert keeper._thread.is_alive()
            keeper._thread.join(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "durable.json").exists()
    save(tmp_path, State(2, model(2.0)), 0.0)
    keeper.saved()
    keeper.close(60)
    (tmp_path / "checkpoint.json").unlink()
    assert loaded(tmp_path).round == 2


def test_a_state_that_is_saved_while_another_is_forced_costs_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, State(1, model(1.0)), 0.0)
    save(tmp_path, State(2, model(2.0)), 0.0)
    force = checkpoint._force

    def and_meanwhile(*given: Any) -> None:
        force(*given)
        monkeypatch.undo()
        save(tmp_path, State(3, model(3.0)), 0.0)
        (tmp_path / "model-000004.safetensors").write_bytes(b"and the next is being written")

    monkeypatch.setattr(checkpoint, "_force", and_meanwhile)
    make_durable(tmp_path)
    assert names(tmp_path)[2:] == ["model-000002.safetensors", "model-000003.safetensors", "model-000004.safetensors"]
    assert loaded(tmp_path).round == 3
    (tmp_path / "checkpoint.json").unlink()
    assert loaded(tmp_path).round == 2


def test_large_files_of_an_old_state_become_spares(tmp_path: Path) -> None:
    for at in (1, 2):
        large = in_memory({"w": np.zeros(CHUNK_BYTES // 4, np.float32)})
        save(tmp_path / "c", State(at, large, model(1.0)), 0.0, spares=tmp_path / "spare")
    make_durable(tmp_path / "c", spares=tmp_path / "spare")
    assert [p.stat().st_size > CHUNK_BYTES for p in (tmp_path / "spare").iterdir()] == [True]
    assert names(tmp_path / "c")[2:] == ["model-000002.safetensors", "momentum-000002.safetensors"]
    large = in_memory({"w": np.zeros(CHUNK_BYTES // 4, np.float32)})
    save(tmp_path / "c", State(3, large, model(1.0)), 0.0, spares=tmp_path / "spare")
    assert names(tmp_path / "spare") == []


def test_a_state_that_is_not_known_gives_way_to_one_that_was_forced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, State(1, model(1.0)), 3.0)
    assert load(tmp_path, State, lambda state: state.round < 1) is not None, "there is no other"
    make_durable(tmp_path)
    save(tmp_path, State(2, model(2.0)), 5.0)
    found = load(tmp_path, State, lambda state: state.round < 2)
    assert found is not None
    assert (found[0].round, found[1]) == (1, 3.0)
    assert loaded(tmp_path).round == 1, "it is the newest now"
    assert caplog.messages == [f"{BACK}it is not known to the history"]


def test_a_state_without_its_newest_manifest_is_the_last_that_was_forced(tmp_path: Path) -> None:
    save(tmp_path, State(1, model(1.0)), 3.0)
    make_durable(tmp_path)
    (tmp_path / "checkpoint.json").unlink()
    assert loaded(tmp_path).round == 1
    assert (tmp_path / "checkpoint.json").read_bytes() == (tmp_path / "durable.json").read_bytes()


def test_a_keeper_does_not_hold_up_the_end_of_its_process(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "keeper"]
    assert thread.daemon
    keeper.close(60)
    assert not thread.is_alive()


def test_once_a_state_is_durable_neither_the_next_nor_going_back_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, forced = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda fd: forced.append(fd) or fsync(fd))
    save(tmp_path, State(1, model(1.0)), 0.0)
    make_durable(tmp_path)
    assert forced
    forced.clear()
    save(tmp_path, State(2, model(2.0)), 0.0)
    (tmp_path / "model-000002.safetensors").unlink()
    assert loaded(tmp_path).round == 1
    assert forced == []


# --------------------------------------------------------------------------------------------------------- damage


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_altered_byte_of_a_model_is_an_error_that_names_the_file(tmp_path_factory: Any, at: int, flip: int) -> None:
    folder = tmp_path_factory.mktemp("state")
    save(folder, State(7, model(1.0)), 0.0)
    path = folder / "model-000007.safetensors"
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= flip
    path.write_bytes(data)
    with pytest.raises(StateError, match=r"model-000007\.safetensors: "):
        load(folder, State)


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
def test_a_truncated_model_is_an_error_that_names_the_file(tmp_path: Path, keep: int) -> None:
    save(tmp_path, State(7, model(1.0)), 0.0)
    path = tmp_path / "model-000007.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StateError, match=r"model-000007\.safetensors: "):
        load(tmp_path, State)


def test_a_missing_model_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    save(tmp_path, State(7, model(1.0)), 0.0)
    (tmp_path / "model-000007.safetensors").unlink()
    with pytest.raises(StateError, match=r"model-000007\.safetensors: No such file"):
        load(tmp_path, State)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda m: {**m, "version": 1}, "version 1, this program reads 2", id="another version"),
        pytest.param(lambda _: {}, rf"not a checkpoint of {__name__}: KeyError\('version'\)", id="nothing in it"),
        pytest.param(lambda m: [m], "not a checkpoint", id="a list"),
        pytest.param(lambda m: {**m, "trees": []}, "not a checkpoint", id="a list of trees"),
        pytest.param(lambda m: {**m, "trees": {}}, "not a checkpoint", id="the model is missing"),
        pytest.param(lambda m: {**m, "plain": {"rounds": 1}}, "not a checkpoint", id="a value of another workflow"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    save(tmp_path, State(7, model(1.0)), 0.0)
    path = tmp_path / "checkpoint.json"
    changed = change(json.loads(path.read_text()))
    if isinstance(changed, dict):  # as if it had been saved so
        changed.pop("check", None)
        changed["check"] = checkpoint._check(changed)
    path.write_text(json.dumps(changed))
    with pytest.raises(StateError, match=rf"checkpoint\.json: {message}"):
        load(tmp_path, State)


@pytest.mark.parametrize("check", [{}, {"check": None}, {"check": "0" * 64}], ids=["none", "null", "another"])
def test_a_manifest_without_its_check_is_altered(tmp_path: Path, check: dict[str, Any]) -> None:
    save(tmp_path, State(7, model(1.0)), 0.0)
    path = tmp_path / "checkpoint.json"
    manifest = json.loads(path.read_text())
    del manifest["check"]
    path.write_text(json.dumps({**manifest, **check}))
    with pytest.raises(StateError) as error:
        load(tmp_path, State)
    assert str(error.value) == f"{path}: altered: its check does not fit what it says"


def test_a_manifest_says_the_same_in_whatever_order(tmp_path: Path) -> None:
    save(tmp_path, State(7, model(1.0), note="x"), 2.5)
    path = tmp_path / "checkpoint.json"
    for turned in (False, True):
        manifest = sorted(json.loads(path.read_text()).items(), reverse=turned)
        path.write_text(json.dumps(dict(manifest)))
        assert (loaded(tmp_path).round, loaded(tmp_path).note) == (7, "x")


def test_a_manifest_that_cannot_be_read_is_named_with_the_disks_word(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").mkdir()
    with pytest.raises(StateError) as error:
        load(tmp_path, State)
    assert str(error.value) == f"{tmp_path / 'checkpoint.json'}: Is a directory"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_any_flipped_bit_of_a_manifest_is_noticed(tmp_path_factory: Any, at: int, bit: int) -> None:
    """Above all one in a number: round 13 for round 12 would be a valid state, and a wrong model."""
    folder = tmp_path_factory.mktemp("state")
    save(folder, State(12, model(1.0)), 3.5)
    path = folder / "checkpoint.json"
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)
    try:
        assert loaded(folder).round == 12, "what white space was flipped to is the same JSON"
    except StateError as e:
        assert "checkpoint.json" in str(e)  # noqa: PT017


@pytest.mark.parametrize("keep", [0, 1, 30, -1])
def test_a_truncated_manifest_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    save(tmp_path, State(7, model(1.0)), 0.0)
    path = tmp_path / "checkpoint.json"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StateError, match=r"checkpoint\.json: not a checkpoint"):
        load(tmp_path, State)
