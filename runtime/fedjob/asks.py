"""One ask of a round: who was asked, who has answered or will not, and how the journal brings that back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import wire_pb2 as wire
from .acceptance import Header, Refusal, check_announced, check_header, check_parts, read_header
from .aggregation import combine
from .errors import CodecError, StateError
from .journal import Journal
from .model import ParamsType
from .peers import Answer
from .quorum import Rule
from .records import SiteRound
from .spool import Spool
from .stored import Stored, open_stored
from .trees import Tree, laid_out

log = logging.getLogger(__name__)
Ask = tuple[str, int]  # kind, n-th ask of the kind in the round


@dataclass
class Open:
    """One ask of the running round. parts: what was sent. uploads: names of the sendings that were accepted.

    since: running time of the round when it was asked first, in seconds; its deadline counts from there.
    """

    ask: Ask
    round: int
    sites: frozenset[str]
    rule: Rule
    parts: Mapping[str, Stored]
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

    def judge_announced(self, announce: wire.Announce, params_type: str) -> Header | Refusal:
        """What an announcement says beside its tensors, or why they need not travel."""
        header = read_header(announce.header)
        if isinstance(header, Refusal):
            return header
        expected = params_type if self.ask[0] == "Train" else ParamsType.FULL
        sent = {name: part.size for name, part in self.parts.items()}
        base = self.parts["params"].digest if "params" in self.parts else ""
        announced = [(p.name, p.size) for p in announce.parts]
        return (
            check_header(header, expected, base)
            or check_announced(self.ask[0], announce.upload, announced, sent)
            or header
        )

    def take(self, site: str, upload: str, header: Header, parts: Mapping[str, Stored], record: SiteRound) -> Answer:
        """An answer that counts."""
        # The nesting, order and forms that were sent out, whatever this site made of them.
        trees: dict[str, Tree] = {
            n: laid_out(p, self.parts[n].layout) if n in self.parts else p for n, p in parts.items()
        }
        if header.params_type == ParamsType.DIFF and "params" in trees:
            # w_t + D_k in float64: a workflow sees weights, whatever travelled. Integers travel as they are.
            sent = self.parts["params"]
            trees["params"] = combine(lambda d, w: w + d, trees["params"], sent, layout=sent.layout)
        answer = Answer(site, self.ask[0], self.round, header.num_examples, header.metrics, header.meta, trees)
        self.answers[site], self.uploads[site], self.records[site] = answer, upload, record
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
        return check_parts(self.opened.ask[0], self.opened.parts, parts, self.spool.looked_at()) or parts


def replay(opened: Open, journal: Journal) -> None:
    """Bring back what the journal knows of this ask. An answer whose file is damaged is asked again."""
    for r in journal.records:
        if r.get("ask") != list(opened.ask):
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
        log.warning("answer of %s lost, it is asked again: %s", r["site"], e)
        return
    record = SiteRound(examples=header.num_examples, metrics=header.metrics)
    opened.take(r["site"], r["upload"], header, parts, record)
