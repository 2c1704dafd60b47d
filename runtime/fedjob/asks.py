"""One ask of a round: who was asked, who has answered or will not, and how the journal brings that back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .acceptance import Header, Refusal
from .aggregation import combine
from .errors import StateError
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
