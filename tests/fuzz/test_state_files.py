"""Files of a run, altered at will: each reader gives a value or its documented error, within a bound on memory."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import checkpoint, identity, local
from fedjob.acceptance import Header, read_header
from fedjob.api import FederatedJob, loads
from fedjob.api.limits import ANSWER_TEXT
from fedjob.config import read_server, read_site
from fedjob.errors import ConfigError, StateError
from fedjob.quantities import count_text, metric_text, seconds_text
from fedjob.records import LoggedValue, RoundRecord, Status, append, read_history, read_metrics, read_status, to_json
from fuzz.bounds import allocating_at_most
from fuzz.hostile import BOMBS, JSON, altered
from fuzz.parsers import AUTHORITY, GOOD, NOW

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))  # a long run: FUZZ_EXAMPLES=2000 pytest tests/fuzz
MULTIPLE, CONSTANT = 48, 1 << 20  # bytes of Python's objects for each byte of a file, and besides
PYDANTIC = 512  # measured 390: its error keeps what it was given; only fedjob itself writes these files
RECORD = to_json(RoundRecord(3, contributors=("a",), metrics={"m": 1.0}))


@dataclass(frozen=True)
class State:
    """What a workflow would keep."""

    round: int


def manifest() -> dict[str, Any]:
    return {"version": checkpoint.VERSION, "runningSeconds": 1.0, "plain": {"round": 1}, "trees": {}}


def job() -> FederatedJob:
    text = (Path(__file__).parents[1] / "api" / "ten-lines.yaml").read_text()
    return loads(text)


def resumed(path: Path) -> None:
    folder = path.parent
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "run.json").write_bytes(path.read_bytes())
    local._go_on(local.Run(job(), folder, folder, {}))


def loaded(path: Path) -> None:
    (path.parent / "checkpoint.json").write_bytes(path.read_bytes())
    checkpoint.load(path.parent, State)


READERS: dict[str, tuple[Callable[[Path], object], type[Exception], Any]] = {
    "history": (read_history, ValueError, RECORD),
    "metrics": (read_metrics, ValueError, to_json(LoggedValue("a", 1, 2, "k", 0.5))),
    "status": (read_status, ValueError, to_json(Status())),
    "checkpoint": (loaded, StateError, manifest()),
    "run.json": (resumed, ConfigError, {"format": 1, "uid": "c0ffee", "attempt": 1, "keys": ""}),
    "server's configuration": (read_server, ConfigError, {"uid": "a", "attempt": 1, "trust_domain": "d"}),
    "site's configuration": (lambda path: read_site(str(path)), ConfigError, {"uid": "a", "attempt": 1, "sites": ["a"]}),
}  # fmt: skip


def read_or_refuse(name: str, path: Path, data: bytes) -> None:
    read, error, _ = READERS[name]
    path.write_bytes(data)
    multiple = PYDANTIC if "configuration" in name else MULTIPLE
    with allocating_at_most(CONSTANT + multiple * len(data)), contextlib.suppress(error):
        read(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "file"


@pytest.mark.parametrize("ending", [b"", b"\n"], ids=["torn", "whole"])
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", READERS)
def test_a_bomb_is_refused_within_bounds(name: str, bomb: str, ending: bytes, path: Path) -> None:
    read_or_refuse(name, path, BOMBS[bomb] + ending)


@pytest.mark.parametrize("name", READERS)
@settings(deadline=None, max_examples=EXAMPLES)
@given(data=st.data())
def test_any_json_is_read_or_refused(name: str, path: Path, data: st.DataObject) -> None:
    document = data.draw(JSON | altered(READERS[name][2]))
    read_or_refuse(name, path, json.dumps(document).encode() + b"\n")


@pytest.mark.parametrize("name", READERS)
@settings(deadline=None, max_examples=EXAMPLES)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(name: str, path: Path, data: bytes) -> None:
    read_or_refuse(name, path, data)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_line_is_added_behind_a_torn_bomb(bomb: str, path: Path) -> None:
    path.write_bytes(BOMBS[bomb][:-1])
    append(path, LoggedValue("a", 1, 2, "k", 0.5))
    assert read_metrics(path) == [LoggedValue("a", 1, 2, "k", 0.5)]


@settings(deadline=None, max_examples=EXAMPLES)
@given(JSON | altered(json.loads(Header().to_json())))
def test_the_header_of_an_answer_is_read_or_refused(document: Any) -> None:
    text = json.dumps(document)
    with allocating_at_most(CONSTANT + MULTIPLE * min(len(text), ANSWER_TEXT.value)):
        read_header(text)


@settings(max_examples=EXAMPLES)
@given(st.floats())
def test_every_number_can_be_shown(value: float) -> None:
    assert all(text(value) for text in (seconds_text, count_text, metric_text))


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.sampled_from(["key_pem", "cert_pem", "ca_pem"]), st.integers(0, 10_000), st.binary(max_size=4))
def test_altered_certificates_and_keys_are_judged(which: str, at: int, inserted: bytes) -> None:
    """A list of sentences, whatever the files hold."""
    files = {name: getattr(GOOD, name) for name in ("key_pem", "cert_pem", "ca_pem")}
    pem = files[which]
    at %= len(pem)
    files[which] = pem[:at] + inserted + pem[at + len(inserted) :]
    assert isinstance(identity.problems(identity.Credentials(**files), NOW, AUTHORITY.site("a")), list)
