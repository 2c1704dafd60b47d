"""What a run leaves behind for people to read: history.jsonl, metrics.jsonl and status.json.

The server writes these files; the live view, the report and the operator read them. One set of dataclasses serves
both sides. Attribute names are snake_case here and camelCase in JSON, as in the resource's status; `in_` is `in`.

Quick to import: the server loads this module before anything else works. What is read is made harmless for whoever shows it
(`text.one_line`): a run folder may come from elsewhere.

Numbers that JSON does not know (a loss that went to NaN) are written as the strings "NaN", "Infinity" and
"-Infinity", so that every line is valid JSON to every reader and the value survives.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from .text import one_line

HISTORY_FILE = "history.jsonl"
METRICS_FILE = "metrics.jsonl"
STATUS_FILE = "status.json"

RoundKind = Literal["Train", "Evaluate"]
JobState = Literal["Starting", "Running", "Complete", "Failed", "Interrupted"]
SiteState = Literal[
    "Absent",  # has not connected yet
    "Waiting",  # connected, no task in hand
    "Downloading",
    "Training",
    "Uploading",
    "Answered",  # its update for this round is here
    "Declined",  # the script skipped this round
    "Refused",  # its update for this round was not accepted
    "Lost",  # connected once, silent now
    "Left",  # went away at the end
]

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class SiteRound:
    """One site's part in one round. Metrics score the model that the site received.

    bytes_whole: of the tensors of the model that the script sent, in their own dtypes; what was chosen of them went up. 0: not
    known.
    """

    examples: float = 0.0
    metrics: Metrics = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds_down: float = 0.0
    seconds_train: float = 0.0
    seconds_up: float = 0.0
    bytes_whole: int = 0


@dataclass(frozen=True)
class Missing:
    """A site that was asked and did not count in a round, and why (reason is CamelCase, message a sentence)."""

    site: str
    reason: str
    message: str = ""


@dataclass(frozen=True)
class RoundRecord:
    """One completed round: a line of history.jsonl.

    metrics: example-weighted mean over the contributors. In a Train round it scores the model that the round
    started from; in an Evaluate round, the final model.
    phases: seconds of "train", "aggregate", "checkpoint"; they add up to `seconds` or a little less.
    bytes_in, bytes_out: as the server sees them (in: from the sites).
    bytes_included, bytes_wire: of the tensors of the model that each site was sent: in their own dtypes, and as they went.
    model_digest: of the model after this round as the server keeps it, in hex.
    """

    round: int
    kind: RoundKind = "Train"
    seconds: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    contributors: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    sites: Mapping[str, SiteRound] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_included: int = 0
    bytes_wire: int = 0
    model_digest: str = ""


@dataclass(frozen=True)
class LoggedValue:
    """One scalar that a script logged: a line of metrics.jsonl. `step` is None if the script gave none."""

    site: str
    round: int
    step: int | None
    key: str
    value: float


@dataclass(frozen=True)
class JobRef:
    """Which job, and which attempt at it (the first is 1)."""

    name: str = ""
    uid: str = ""
    attempt: int = 1


@dataclass(frozen=True)
class Progress:
    """How far the job is. `current_round` counts from 0; `eta_seconds` is None until a round is complete.

    recalled_rounds: that were complete before this process of the server. contributors: sites of the last complete round.
    """

    current_round: int = 0
    completed_rounds: int = 0
    total_rounds: int = 0
    round_elapsed_seconds: float = 0.0
    last_round_seconds: float = 0.0
    eta_seconds: float | None = None
    recalled_rounds: int = 0
    contributors: int = 0


@dataclass(frozen=True)
class Traffic:
    """Bytes at the server since the job began, earlier attempts of the server included."""

    in_: int = 0
    out: int = 0


@dataclass(frozen=True)
class SiteStatus:
    """What one site is doing now. `done_bytes` of `total_bytes` is its present transfer; 0 of 0 without one."""

    name: str
    state: SiteState = "Absent"
    done_bytes: int = 0
    total_bytes: int = 0
    restarts: int = 0
    examples: float = 0.0
    metrics: Metrics = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class Condition:
    """Something that people should know of while it lasts, e.g. type DiskFull.

    type, reason: CamelCase words; there is at most one condition of a type. message: a sentence.
    """

    type: str
    reason: str = ""
    message: str = ""

    @property
    def text(self) -> str:
        """One line, for people."""
        return ": ".join(part for part in (self.type, self.reason, self.message) if part)


@dataclass(frozen=True)
class FinalModel:
    """The file model.safetensors. digest: as `fedjob digest` prints it; "" before there is one."""

    digest: str = ""
    size: int = 0


@dataclass(frozen=True)
class Status:
    """The whole of status.json. `conditions`: sorted by type. `updated_at` is in seconds since the epoch.

    metrics: the newest means, those that most sites sent first; metrics_left_out: how many there are beyond them.
    """

    job: JobRef = field(default_factory=JobRef)
    state: JobState = "Starting"
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    progress: Progress = field(default_factory=Progress)
    bytes: Traffic = field(default_factory=Traffic)
    metrics: Metrics = field(default_factory=dict)
    metrics_left_out: int = 0
    sites: tuple[SiteStatus, ...] = ()
    model: FinalModel = field(default_factory=FinalModel)
    updated_at: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the job has reached a state that it will not leave by itself."""
        return self.state in ("Complete", "Failed", "Interrupted")


Record = TypeVar("Record")


def to_json(record: object) -> dict[str, Any]:
    """Turn a record into what `json.dumps` takes, with the names and number spellings of the files."""
    return {name: _encode(getattr(record, attribute)) for attribute, name, _ in _layout(type(record))}


def from_json(kind: type[Record], data: object) -> Record:
    """Read a `kind` from parsed JSON.

    Unknown keys are ignored and absent ones take their defaults, so that files of a newer or older version stay
    readable. Raises ValueError if a key without a default is absent or a value has the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a {kind.__name__} is a JSON object, not {data!r}")  # noqa: TRY004  # bad data, not a bad call
    present = {
        attribute: _decode(annotation, data[name], f"{kind.__name__}.{name}")
        for attribute, name, annotation in _layout(kind)
        if name in data
    }
    try:
        return kind(**present)
    except TypeError as exc:
        raise ValueError(str(exc).replace("__init__()", "JSON")) from exc


def append(path: Path, *records: RoundRecord | LoggedValue) -> None:
    """Add one line per record to a .jsonl file, in one write.

    A torn last line, left by a process that was killed while it wrote, is cut off first: if it stayed, the new
    line would be glued to it and both would be lost. Only one process may append to a file. Raises OSError.
    """
    lines = "".join(_dumps(record) + "\n" for record in records).encode()
    with path.open("a+b") as file:
        _mend_tail(path, file.fileno())
        file.write(lines)


def read_history(path: Path) -> list[RoundRecord]:
    """Read history.jsonl, oldest round first; no file reads as no rounds.

    A server that dies after it wrote the line and before it wrote the checkpoint runs that round again: the last
    record of each (round, kind) is the one that led to the model. Raises ValueError with file and line if a line
    other than a torn last one is broken.
    """
    return list({(record.round, record.kind): record for record in _read_lines(path, RoundRecord)}.values())


def read_metrics(path: Path) -> list[LoggedValue]:
    """Read metrics.jsonl in the order of logging; no file reads as no values. Raises ValueError as `read_history`.

    Of values with the same site, round, step and key, which a round that ran again leaves, the last one stays.
    Values without a step are all kept: nothing tells a repetition from a second measurement.
    """
    values: dict[tuple[object, ...], LoggedValue] = {}
    for index, value in enumerate(_read_lines(path, LoggedValue)):
        identity = (index,) if value.step is None else (value.site, value.round, value.step, value.key)
        values[identity] = value
    return list(values.values())


def write_status(path: Path, status: Status) -> None:
    """Replace status.json as a whole: a reader sees the old text or the new one, never a part. Raises OSError.

    No fsync: it is written up to five times a second, and nothing depends on it after a crash of the machine.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(_dumps(status) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_status(path: Path) -> Status | None:
    """Read status.json; None while there is none yet. Raises ValueError, with the file's name, if it is broken."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return _parse(Status, text, str(path))


def _dumps(record: object) -> str:
    text = json.dumps(to_json(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace").decode()  # a path that is not UTF-8, as JSON escapes it


def _parse(kind: type[Record], text: str | bytes, where: str) -> Record:
    try:
        return from_json(kind, json.loads(text))
    except (ValueError, RecursionError) as exc:  # brackets without end
        raise ValueError(f"{where}: {exc}") from exc


def _read_lines(path: Path, kind: type[Record]) -> Iterator[Record]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    *lines, tail = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse(kind, line, f"{path}, line {number}")
    if _is_json(tail):  # whole but for its newline
        yield _parse(kind, tail, f"{path}, line {len(lines) + 1}")


def _mend_tail(path: Path, descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    *lines, tail = path.read_bytes().split(b"\n")
    if _is_json(tail):
        os.write(descriptor, b"\n")
    else:
        os.ftruncate(descriptor, sum(len(line) + 1 for line in lines))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _layout(kind: type) -> list[tuple[str, str, Any]]:
    """(attribute, JSON name, type) of each field of a record's class."""
    return [(each.name, _camel(each.name), each.type) for each in fields(kind)]


@cache
def _camel(attribute: str) -> str:
    head, *rest = attribute.rstrip("_").split("_")
    return head + "".join(word.capitalize() for word in rest)


def _encode(value: Any) -> Any:
    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    number = float(value)  # also takes numpy's scalars, which json would refuse
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _decode(annotation: Any, value: Any, where: str) -> Any:
    if is_dataclass(annotation):
        return from_json(annotation, value)  # type: ignore[arg-type]  # a dataclass, not an instance of one
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:  # X | None
        return None if value is None else _decode(arguments[0], value, where)
    try:
        if origin is tuple:
            return tuple(_decode(arguments[0], item, where) for item in value)
        if origin is Mapping:
            return {one_line(key): _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
        if origin is Literal or annotation is str:  # a state that this version does not know is still worth showing
            return one_line(str(value))
        return annotation(value)
    except (TypeError, AttributeError, OverflowError) as exc:  # infinity as a whole number, 400 digits as a float
        raise ValueError(f"{where}: {value!r} does not fit") from exc
