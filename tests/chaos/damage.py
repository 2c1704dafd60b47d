"""Files of a job's state as a bad disk or a power cut may leave them, while none of its processes runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.faults import STATE_FILES, Damage

MUST_RECOVER = ("partial answer", "answer", "history", "status")  # the others may also end in one clear error


@dataclass(frozen=True)
class Damaged:
    """A file that was altered. what: its place in `STATE_FILES`; before: its bytes until then."""

    path: Path
    what: str
    before: bytes

    def undo(self) -> None:
        """Put the file back as it was."""
        self.path.write_bytes(self.before)


def damage(run: Path, fault: Damage) -> Damaged | None:
    """Alter a file of this run: the kind that the fault names or, if there is none now, the next kind; None: no file."""
    first = STATE_FILES.index(fault.targets[0])
    for what in (*STATE_FILES[first:], *STATE_FILES[:first]):
        for path in sorted(_FINDERS[what](run)):
            before = path.read_bytes()
            after = altered(before, fault, whole_lines=what == "history")
            if after != before:
                path.write_bytes(after)
                return Damaged(path, what, before)
    return None


def altered(before: bytes, fault: Damage, *, whole_lines: bool = False) -> bytes:
    """The bytes with the damage. whole_lines: only a torn line behind the others, as lines are forced to the disk."""
    at = int(fault.place * len(before))
    if whole_lines or fault.how == "append":
        return before + b'{"torn'
    if fault.how == "truncate":
        return before[:at]
    return before[:at] + bytes([before[at] ^ 1 << at % 8]) + before[at + 1 :] if before else before


def _accepted(run: Path) -> set[Path]:
    """Files of answers that the journal of the running round names."""
    found = set()
    for journal in run.glob("state/round-*/journal.jsonl"):
        for line in journal.read_bytes().splitlines():
            record = json.loads(line.partition(b" ")[2] or b"{}") if line.endswith(b"}") else {}
            found |= {journal.parent / part["file"] for part in record.get("parts", {}).values()}
    return found


def _partial(run: Path) -> set[Path]:
    return {p for p in run.glob("state/round-*/Train.*") if p.stat().st_size} - _accepted(run)


_FINDERS: dict[str, Callable[[Path], set[Path]]] = {
    "partial answer": _partial,
    "answer": _accepted,
    "journal": lambda run: set(run.glob("state/round-*/journal.jsonl")),
    "checkpoint": lambda run: set(run.glob("state/checkpoint/*.safetensors")),
    "manifest": lambda run: set(run.glob("state/checkpoint/checkpoint.json")),
    "history": lambda run: set(run.glob("history.jsonl")),
    "status": lambda run: set(run.glob("status.json")),
}
