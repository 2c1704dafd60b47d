"""How a job has ended, on disk before anybody hears of it: a server that is started again ends in the same way.

It belongs to one attempt. A job that was complete stays so in later ones, unless the job file has changed; one that failed is
tried again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blake3 import blake3

from .errors import StateError
from .stored import sweep, write_whole

VERSION = 1
_FILE = "conclusion.json"
_TERMINATION_BYTES = 4096
_MOST_CHARACTERS = 2000


@dataclass(frozen=True)
class Conclusion:
    """state and reason: as in the job's status. message: a sentence, if it failed."""

    state: Literal["Complete", "Failed"]
    reason: str
    message: str = ""

    def __post_init__(self) -> None:
        """Show what is not UTF-8 in a path as Python writes it: sites could not be told otherwise."""
        object.__setattr__(self, "message", self.message.encode(errors="backslashreplace").decode())

    @property
    def text(self) -> str:
        """One line, for people."""
        return f"{self.reason}: {self.message}" if self.message else self.reason


def save(folder: Path, attempt: int, job: str, conclusion: Conclusion) -> None:
    """Write it, and return when it is on the disk. job: the job's text. Raises OSError when the disk refuses."""
    sweep(folder / _FILE)
    text = {"version": VERSION, "attempt": attempt, "job": _digest(job), **conclusion.__dict__}
    write_whole(folder / _FILE, json.dumps(text).encode())


def load(folder: Path, attempt: int, job: str) -> Conclusion | None:
    """How this attempt at this job has ended, None if it has not. Raises StateError, naming the file, if it is damaged."""
    path = folder / _FILE
    try:
        saved = json.loads(path.read_bytes())
        if saved["version"] != VERSION:
            raise StateError(f"{path}: version {saved['version']}, this program reads {VERSION}")
        valid = saved["attempt"] == attempt or (saved["state"] == "Complete" and saved["job"] == _digest(job))
        return Conclusion(saved["state"], saved["reason"], saved["message"]) if valid else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise StateError(f"{path}: not the conclusion of a job: {e!r}") from e


def _digest(job: str) -> str:
    return blake3(job.encode()).hexdigest()


def last_words(reason: str, message: str) -> bytes:
    """Reason and message as JSON, cut to what a kubelet keeps of a termination message: it would cut off the head."""
    most = _MOST_CHARACTERS
    while True:
        said = {"reason": reason[:most], "message": message[:most]}
        text = json.dumps(said, ensure_ascii=False).encode(errors="replace")
        if len(text) <= _TERMINATION_BYTES:
            return text
        most = most * 3 // 4
