"""The folders of runs: a new one for each run, and which belongs to which job. A name alone never tells: `state/run.json` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .records import HISTORY_FILE, STATUS_FILE
from .stored import write_whole

RECORD = Path("state") / "run.json"
_MARKS = (HISTORY_FILE, STATUS_FILE, str(RECORD))  # one of them is in every run's folder
_STATE = Path("state") / "checkpoint"
FORMAT = 1
_LAST_NUMBER = 999_999


def claim(runs: Path, name: str) -> Path:
    """Make the first of runs/NAME-01, NAME-02, … that is not there; nobody else gets the same. Raises ConfigError, OSError."""
    if runs.is_symlink() and not runs.exists():
        raise ConfigError(f"--runs {runs}: a link to {runs.readlink()}, which does not exist")
    if runs.exists() and not runs.is_dir():
        raise ConfigError(f"--runs {runs}: Not a directory")
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1, _LAST_NUMBER + 1):
        folder = runs / f"{name}-{number:02d}"
        try:
            folder.mkdir()
        except FileExistsError:  # also a link that leads nowhere
            continue
        return folder
    raise ConfigError(f"--runs {runs}: {name} has {_LAST_NUMBER} runs there; remove some, or name another folder")


def latest(runs: Path, name: str) -> Path:
    """The run of the job `name` that began last of those that have a model, else of all that began.

    One that was ended before its first model has nothing to go on from, and must not hide one that has.
    Raises ConfigError if there is none, or none that says whose it is.
    """
    found = [p for p in runs.iterdir() if _has_name(p, name) and (p / RECORD).is_file()] if runs.is_dir() else []
    found.sort(key=lambda p: ((p / _STATE).is_dir(), (p / RECORD).stat().st_mtime_ns, p.name), reverse=True)
    for folder in found:
        job = recall(folder).get("job")
        if job == name:
            return folder
        if job is None:
            raise ConfigError(
                f"{folder / RECORD}: does not say which job it is of: an older fedjob wrote it; if {folder / 'job.yaml'} is "
                f'the job to go on with, add "job": {json.dumps(name)} to it, else move the folder away'
            )
    raise ConfigError(f"{runs}: no run of {name} to resume; leave --resume out to start one")


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a run, of this version or an older one."""
    try:
        return any((folder / mark).exists() for mark in _MARKS)
    except OSError:  # no name of a file, or a folder of somebody else
        return False


def _has_name(folder: Path, name: str) -> bool:
    head, _, number = folder.name.rpartition("-")
    return head == name and number.isascii() and number.isdigit() and 2 <= len(number) <= len(str(_LAST_NUMBER))


def recall(folder: Path) -> dict[str, Any]:
    """What `remember` wrote. Raises ConfigError, naming the file, if it cannot be read."""
    path = folder / RECORD
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']}, this program reads {FORMAT}")
        return {"uid": str(saved["uid"]), "attempt": int(saved["attempt"]), "keys": str(saved.get("keys", "")),
                "job": saved.get("job")}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise ConfigError(
            f"{path}: this run cannot be resumed: {_what_is_wrong(e)}; leave --resume out to start a new one"
        ) from e


def _what_is_wrong(error: Exception) -> str:
    """In words: of most errors people would read the name of a Python class."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON at line {error.lineno}, column {error.colno}"
    return str(error) if isinstance(error, ValueError) else "not what a run writes there"


def remember(folder: Path, *, job: str, uid: str, attempt: int, keys: Path) -> None:
    """Say whose run this is, and which attempt: an older attempt's processes are refused. keys: the folder of its keys."""
    saved = {"format": FORMAT, "job": job, "uid": uid, "attempt": attempt, "keys": str(keys)}
    write_whole(folder / RECORD, json.dumps(saved).encode())
