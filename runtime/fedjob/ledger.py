"""What both sides of a job's server work on: who is there, what the running round asks, and what has come.

Two kinds of threads meet here: the workflow's own (`session`) waits until the round closes, the server's (`reception`) bring what
sites do. Whoever reads or changes anything holds `changed`, and whoever changes something that a round may wait for notifies it.
What must survive is in the journal before anyone is told of it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import journal
from . import wire_pb2 as wire
from .acceptance import Refusal
from .asks import Ask, Open
from .conditions import Conditions
from .departures import JOB_OVER, Departures
from .journal import Journal
from .limits import Limits
from .peers import Task
from .quantities import round_text
from .quorum import Asked, Closed, NotMet, Wait, decide
from .roster import Site, absences, silence
from .spool import Spool
from .stored import retire


class Ledger:
    """State of a job's rounds on its server. clients, limits, folder, attempt: as in `Session`.

    Every method is called with `changed` held.
    """

    def __init__(self, clients: Sequence[str], limits: Limits, folder: Path, attempt: int) -> None:
        self.changed = threading.Condition()
        self.clients = tuple(sorted(clients))
        self.limits = limits
        self.folder = folder
        self.spares = folder / "spare"  # files of rounds that are over, to be written over by the next
        self.attempt = attempt
        self.started = time.monotonic()
        self.conditions = Conditions()
        self.departures = Departures(folder, attempt)
        self.sites = {name: Site(name, gone_since=self.started) for name in self.clients}
        for name, why in self.departures.left.items():
            self.sites[name].left, self.sites[name].state = why, "Left"
            self.sites[name].message = why if why != JOB_OVER else ""
        self.round = 0
        self.finished = -1  # the last round whose state is on disk
        self.accepted = journal.accepted(folder)  # by it
        self.journal: Journal | None = None  # of the running round, as are the asks and their count by kind
        self.asks: dict[Ask, Open] = {}
        self.count: Counter[str] = Counter()
        self.spools: dict[str, Spool] = {}  # answers that are on their way, by site
        self.judged: set[str] = set()  # sites whose answer is being checked, off the lock
        self.end: wire.End | None = None  # what sites are told of the job's end
        self.bytes_in = self.bytes_out = 0

    def number(self, task: Task) -> tuple[Ask, Journal]:
        """The name of an ask, and the round's journal; its clock begins here, that of a round's first ask with the round.

        Raises OSError on a full disk, and can be called again then.
        """
        if self.journal is None or task.round != self.round:
            self.journal = Journal(self.folder / f"round-{task.round:06d}")
            self.round = task.round
        ask = (task.kind, self.count[task.kind])
        if self.asks and not any(r["event"] == "asked" and r["ask"] == list(ask) for r in self.journal.records):
            self.journal.append("asked", ask=list(ask))
        self.count[task.kind] += 1
        return ask, self.journal

    def open(self, opened: Open) -> None:
        """From now on answers to an ask count; those that it has from before a restart do already."""
        for name in opened.answers:
            self.sites[name].settle("Answered")
        self.asks[opened.ask] = opened
        for name in sorted(opened.sites):
            if self.sites[name].push is not None:
                self.sites[name].said = ""  # of an earlier ask
            if opened.waits_for(name):
                self.offer(self.sites[name], opened)

    def last(self, kind: str) -> Open:
        """The last ask of a kind in this round."""
        return self.asks[kind, self.count[kind] - 1]

    def finish_round(self) -> None:
        """Forget the round's answers: the state after it is on disk."""
        if self.journal:
            self.journal.close()
            journal.put_by(self.journal.folder)
            self.accepted = journal.accepted_in(self.journal.records)
            retire(self.journal.folder.iterdir(), self.spares)
            self.journal.folder.rmdir()
        for spool in self.spools.values():
            spool.close()
        self.conditions.has_room(*self.clients)
        self.finished = self.round
        self.journal, self.asks, self.count, self.spools = None, {}, Counter(), {}

    def go_on_from(self, number: int) -> None:
        """The state on disk is that before this round: what an earlier process has left of others goes, but for what it accepted."""
        for folder in sorted(self.folder.glob("round-*")):
            found = int(folder.name.partition("-")[2])
            if found < number:  # its answers are in the state
                journal.put_by(folder)
                self.accepted = journal.accepted(self.folder)
            if found != number:  # of a later one: a power cut took the state that it began from
                shutil.rmtree(folder)

    def absent(self, opened: Open) -> list[Site]:
        """Sites that an ask waits for and that have no process."""
        return [s for n, s in self.sites.items() if opened.waits_for(n) and s.push is None]

    def asked(self, opened: Open) -> Asked:
        """How an ask stands, for `quorum.decide`."""
        out = {name: f"{r.reason}: {r.message}" for name, r in opened.out.items()}
        left, lost = absences(self.absent(opened), time.monotonic(), self.limits.site_lost_seconds)
        silent = {name: silence(self.sites[name]) for name in opened.sites}
        return Asked(opened.sites, frozenset(opened.answers), {**out, **left}, lost, silent)

    def elapsed(self, opened: Open) -> float:
        """Running time since an ask was made first, in seconds, over all server processes."""
        assert self.journal is not None
        return self.journal.elapsed_seconds() - opened.since

    def settle(self, opened: Open) -> Wait | Closed | NotMet:
        """What is decided of an ask. To close it, the set of answers is journalled first, then the others are cancelled."""
        assert self.journal is not None
        if opened.closed:
            return Closed()
        asked = self.asked(opened)
        step = decide(opened.rule, asked, self.elapsed(opened))
        if isinstance(step, Closed):
            for name in sorted(set(asked.absent) - set(opened.out)):  # lost: the record tells why, a restart or not
                reason, _, message = asked.absent[name].partition(": ")
                self.note_out(opened, name, Refusal(reason, message))
            self.journal.append("closed", ask=list(opened.ask), sites=sorted(opened.answers))
            self.cancel(opened)
        return step

    def cancel(self, opened: Open) -> None:
        """Close an ask, and tell the sites that have not answered that they need not."""
        if opened.closed:
            return
        for name in sorted(opened.sites):
            if opened.waits_for(name):
                why = f"{round_text(self.round)} closed without this site's answer"
                event = wire.Cancel(key=opened.key, reason="PastRound", message=why)
                self.sites[name].tell(wire.Downward(cancel=event))
        opened.closed = True

    def note_out(self, opened: Open, name: str, refusal: Refusal) -> None:
        """Journal that a site will not answer an ask."""
        assert self.journal is not None
        self.journal.append("out", ask=list(opened.ask), site=name, reason=refusal.reason, message=refusal.message)
        opened.out[name] = refusal

    def offer(self, site: Site, opened: Open) -> None:
        """Put an ask to a site; to one without a process, when it comes."""
        site.ask(time.monotonic())
        if not opened.parts and site.push:
            site.state = "Training"
        site.tell(wire.Downward(task=opened.task(self.attempt)))

    def tell_end(self, site: Site) -> None:
        """Tell a site that the job is over, if it has a process."""
        site.told = site.push is not None
        site.tell(wire.Downward(end=self.end))
