"""One ask of a round: who was asked, who has answered or will not, and how the journal brings that back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import narrow
from . import wire_pb2 as wire
from .acceptance import (
    SLACK_BYTES,
    Header,
    Refusal,
    check_announced,
    check_header,
    check_parts,
    largest_parts,
    read_header,
)
from .aggregation import combine
from .api.limits import OFFER_HEADER_BYTES, SENTENCE
from .errors import CodecError, JobFailed, OutOfRange, StateError
from .journal import Journal
from .limits import Limits
from .model import ParamsType
from .peers import Answer, Task
from .quantities import round_text
from .quorum import Rule
from .records import SiteRound
from .spool import Spool
from .stored import Stored, open_stored, stored_form, write
from .text import one_line
from .trees import Tree, laid_out

log = logging.getLogger(__name__)
Ask = tuple[str, int]  # kind, n-th ask of the kind in the round


@dataclass
class Open:
    """One ask of the running round. uploads: names of the sendings that were accepted.

    parts: what was sent, as it is on the wire. masters: what that was made of (`narrow`); answers are laid out like these.
    since: running time of the round when it was asked first, in seconds; its deadline counts from there.
    """

    ask: Ask
    round: int
    sites: frozenset[str]
    rule: Rule
    parts: Mapping[str, Stored]
    masters: Mapping[str, Tree]
    answers: dict[str, Answer] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)
    out: dict[str, Refusal] = field(default_factory=dict)
    records: dict[str, SiteRound] = field(default_factory=dict)
    since: float = 0.0
    closed: bool = False

    def waits_for(self, site: str) -> bool:
        """Whether an answer of this site would still count."""
        return not self.closed and site in self.sites and site not in self.answers and site not in self.out

    @property
    def key(self) -> wire.Key:
        """Its name on the wire."""
        return wire.Key(kind=self.ask[0], round=self.round, ask=self.ask[1])

    def task(self, attempt: int) -> wire.Task:
        """What a site is asked."""
        parts = [wire.Part(name=n, size=p.size, digest=p.digest) for n, p in self.parts.items()]
        return wire.Task(key=self.key, attempt=attempt, parts=parts)

    @property
    def header_bytes(self) -> int:
        """How long the header of an answer's part may be: it is read into memory. An optimizer has a few entries a tensor."""
        if not self.parts:
            return OFFER_HEADER_BYTES.value
        return 4 * max(part.layout.data_start for part in self.parts.values()) + SLACK_BYTES

    def judge_announced(self, announce: wire.Announce, limits: Limits) -> Header | Refusal:
        """What an announcement says beside its tensors, or why they need not travel."""
        header = read_header(announce.header)
        if isinstance(header, Refusal):
            return header
        expected = limits.params_type if self.ask[0] == "Train" else ParamsType.FULL
        largest = largest_parts(self.ask[0], {name: part.layout for name, part in self.parts.items()})
        base = self.parts["params"].digest if "params" in self.parts else ""
        announced = [(p.name, p.size) for p in announce.parts]
        return (
            check_header(header, expected, base, limits.max_examples)
            or check_announced(self.ask[0], announce.upload, announced, largest, limits.max_bytes)
            or header
        )

    def sizes(self) -> tuple[int, int]:
        """Bytes of the tensors of the model that was sent, each in its own dtype, and as they went."""
        part = self.parts.get("params")
        return (narrow.own_size(part.layout), part.layout.data_size) if part else (0, 0)

    def check_answer(
        self, header: Header, parts: Mapping[str, Stored], looked_at: Mapping[str, Sequence[str]]
    ) -> Refusal | None:
        """Why an answer that is here is refused. looked_at: as `acceptance.check_parts`."""
        problem = check_parts(self.ask[0], self.parts, parts, looked_at, header.params_type)
        if problem is not None or header.params_type != ParamsType.DIFF or "params" not in parts:
            return problem
        summed = self._trees(header, parts)["params"]
        if bad := narrow.first_beyond(summed, self.masters["params"], self.parts["params"].layout):
            why = "is beyond the largest number of its dtype once the difference is added; training has diverged"
            return Refusal("NotFinite", f"params: {bad!r} {why}")
        return None

    def _trees(self, header: Header, parts: Mapping[str, Stored]) -> dict[str, Tree]:
        """An answer's parts as a workflow sees them: in the nesting, order, forms and dtypes of the masters."""
        trees: dict[str, Tree] = {
            n: laid_out(p, self.masters[n].layout) if n in self.masters else p for n, p in parts.items()
        }
        if header.params_type == ParamsType.DIFF and "params" in trees:
            # w_t + D_k in float64: a workflow sees weights, whatever travelled. Integers travel as they are.
            master = self.masters["params"]
            trees["params"] = combine(lambda d, w: w + d, trees["params"], master, layout=master.layout)
        return trees

    def take(self, site: str, upload: str, header: Header, parts: Mapping[str, Stored], record: SiteRound) -> Answer:
        """An answer that counts."""
        trees = self._trees(header, parts)
        answer = Answer(site, self.ask[0], self.round, header.num_examples, header.metrics, header.meta, trees)
        self.answers[site], self.uploads[site] = answer, upload
        self.records[site] = replace(record, bytes_whole=header.whole)
        return answer


@dataclass(frozen=True)
class Upload:
    """An answer that is being received, for this ask and no later one of the same name."""

    site: str
    opened: Open
    upload: str
    header: Header
    spool: Spool

    def judge(self, digests: Sequence[str]) -> dict[str, Stored] | Refusal:
        """The parts, whole and fit to count, or why they are not. Reads what could not be looked at as it came.

        Raises TransportError if they must be sent again.
        """
        try:
            parts = self.spool.seal(digests)
        except CodecError as e:
            return Refusal("Malformed", str(e))
        looked_at = self.spool.looked_at()
        if refusal := self.opened.check_answer(self.header, parts, looked_at):
            return refusal
        if self.opened.ask[0] == "Offer" and (odd := looked_at.get("params")):
            where = one_line(", ".join(odd), SENTENCE.value)
            log.warning(
                "the initial model holds NaN or infinity, which must come back as it is, in %s", where,
                extra={"site": self.site},
            )  # fmt: skip
        return parts


def sent_parts(task: Task, ask: Ask, folder: Path, limits: Limits, spares: Path | None = None) -> dict[str, Stored]:
    """What is sent of a task: each part in a file, of this folder unless its checkpoint has it so already.

    spares: see `stored.retire`. Raises JobFailed (OutOfRange, TooLarge), OSError when the disk refuses.
    """
    parts = {}
    for name, tree in task.parts.items():
        form = narrow.wire_form(tree, limits.wire_dtype) if name == "params" else tree
        path = folder / f"task.{ask[0]}.{ask[1]}.{name}.safetensors"
        try:
            parts[name] = stored_form(form) or write(path, form, spares)
        except OutOfRange as e:
            raise JobFailed("OutOfRange", f"{round_text(task.round)}: the global model: {e}") from e
    if (size := sum(part.size for part in parts.values())) > limits.max_bytes:
        allowed = f"allowed: {limits.max_bytes} (spec.model.exchange.maxBytes)"
        raise JobFailed("TooLarge", f"the global model has {size} bytes, {allowed}")
    return parts


def replay(opened: Open, journal: Journal) -> None:
    """Bring back what the journal knows of this ask. An answer whose file is damaged is asked again.

    What it knows of a site that the job no longer names is left out.
    """
    for r in journal.records:
        if r.get("ask") != list(opened.ask) or r.get("site", "") not in {"", *opened.sites}:
            continue
        if r["event"] == "asked":
            opened.since = r["at"]
        elif r["event"] == "accepted":
            _replay_answer(opened, journal, r)
        elif r["event"] == "out":
            opened.out[r["site"]] = Refusal(r["reason"], r["message"])
        elif r["event"] == "closed" and set(r["sites"]) <= set(opened.answers):
            opened.answers = {s: opened.answers[s] for s in r["sites"]}
            opened.closed = True


def _replay_answer(opened: Open, journal: Journal, r: Mapping[str, Any]) -> None:
    header = Header(**r["header"])
    try:
        parts = {name: open_stored(journal.folder / p["file"], p["digest"]) for name, p in r["parts"].items()}
    except StateError as e:
        log.warning("answer of %s lost, it is asked again: %s", r["site"], e, extra={"site": r["site"]})
        return
    record = SiteRound(examples=header.num_examples, metrics=header.metrics)
    opened.take(r["site"], r["upload"], header, parts, record)
