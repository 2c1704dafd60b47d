"""The journal of one round: what was asked, answered, refused and closed, each in its file before its effect.

A process may be killed at any moment. A machine that loses its power may lose lines, or answers that they name: those are
asked again.

A round is replayed, not restored: after a kill the workflow runs again from its last state, asks the same questions, and
finds here the answers that had come. Nobody trains twice. Running time is journalled too, so a deadline survives a restart
without a look at the wall clock.

When a round is over, its journal stays until the next one is: a site whose verdict was lost on its way may still ask what became
of its answer.

One JSON object a line, each behind its CRC-32. A torn last line is what a killed process leaves behind, and is dropped; a
bad line before good ones is damage, and an error.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import StateError

VERSION = 1
_FILE = "journal.jsonl"
_CLOSED_FILE = "closed.jsonl"
log = logging.getLogger(__name__)


class Journal:
    """The journal in a round's folder, made if it is not there; `records` holds what it says, in order.

    Raises StateError if it is damaged or of another version.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        path = folder / _FILE
        self.records, good = _read(path)
        if self.records and self.records[0].get("version") != VERSION:
            raise StateError(f"{path}: version {self.records[0].get('version')}, this program reads {VERSION}")
        self._before = max((r["at"] for r in self.records), default=0.0)
        self._since = time.monotonic()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.ftruncate(self._fd, good)
            os.lseek(self._fd, good, os.SEEK_SET)
            if not self.records:
                self.append("opened", version=VERSION)
        except OSError:
            os.close(self._fd)
            raise

    def elapsed_seconds(self) -> float:
        """Running time of this round, over all processes that have run it."""
        return self._before + time.monotonic() - self._since

    def append(self, event: str, **facts: Any) -> None:
        """Write one record: whatever becomes of this process, it stays. Raises OSError when the disk refuses."""
        record = {"event": event, "at": round(self.elapsed_seconds(), 3), **facts}
        text = json.dumps(record, separators=(",", ":"))
        start = os.lseek(self._fd, 0, os.SEEK_CUR)
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        try:
            written = os.write(self._fd, line)
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:  # a full disk may take half a line; a later record behind it would make it damage
            os.ftruncate(self._fd, start)
            os.lseek(self._fd, start, os.SEEK_SET)
            raise
        self.records.append(record)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def put_by(folder: Path) -> None:
    """Take the journal out of the folder of a round that is over, to the place of the one before it."""
    with contextlib.suppress(FileNotFoundError):
        (folder / _FILE).rename(folder.with_name(_CLOSED_FILE))


def forget(state: Path) -> None:
    """Let go of the last closed round's journal: there is no round after it."""
    (state / _CLOSED_FILE).unlink(missing_ok=True)


def accepted(state: Path) -> frozenset[tuple[str, int, str, str]]:
    """Answers that the last closed round had accepted: kind, n-th ask of the kind, site, name of the upload."""
    try:
        records, _ = _read(state / _CLOSED_FILE)
    except (StateError, OSError) as e:  # it is asked for out of courtesy
        log.warning("what the last round had accepted is not known: %s", e)
        return frozenset()
    return accepted_in(records)


def accepted_in(records: Iterable[Mapping[str, Any]]) -> frozenset[tuple[str, int, str, str]]:
    """Answers that these records accept, named as in `accepted`."""
    return frozenset((*r["ask"], r["site"], r["upload"]) for r in records if r["event"] == "accepted")


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The good records and how many bytes they take."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    records: list[dict[str, Any]] = []
    good = 0
    for i, line in enumerate(lines):
        check, _, text = line.partition(b" ")
        if not line or check != f"{zlib.crc32(text):08x}".encode() or i == len(lines) - 1:
            if any(lines[i + 1 :]):
                raise StateError(f"{path}: line {i + 1} is damaged")
            break
        try:
            record = json.loads(text)
            if not isinstance(record["event"], str) or not isinstance(record["at"], int | float):
                raise TypeError("event and at are not a word and a number")
        except (ValueError, RecursionError, KeyError, TypeError) as e:
            raise StateError(f"{path}: line {i + 1} cannot be read: {e!r}") from e
        records.append(record)
        good += len(line) + 1
    return records, good
