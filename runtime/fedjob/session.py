"""`Peers` over the wire: asks, answers, deadlines and the journal of the round that is running.

Theory of operation
-------------------
Two kinds of threads meet here. The workflow's own thread runs `ask_all`: it waits until the round closes. The server's event
loop brings what sites do: `attend`, `lost`, `begin`, `accept`, `decline`. Everything shared is behind one lock, and every
change wakes the workflow. What must survive is in the journal before anyone is told of it.

An ask is named by (kind, round, n-th ask of that kind in the round) and never by the process that asks or answers. So after a
restart the same question finds its old answers, and only the missing sites are asked again.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from . import disk
from . import wire_pb2 as wire
from .acceptance import Refusal
from .asks import Ask, Open, Upload, replay, sent_parts
from .conditions import Conditions
from .departures import Departures
from .errors import JobFailed, PeerFailed, TransportError
from .journal import Journal
from .limits import Limits
from .peers import Answer, Close, Task
from .quorum import Asked, Closed, NotMet, Rule, decide
from .records import Missing, RoundKind, SiteRound
from .roster import Push, Site, absences, forgive_outage
from .spool import Spool, facts
from .stored import Stored, retire

log = logging.getLogger(__name__)
T = TypeVar("T")
_SERVER = "the server"
_SPACE_SECONDS = 1.0  # between two tries on a full disk
_TICK_SECONDS = 10.0  # running time that a kill may cost a deadline


class Interrupted(Exception):  # noqa: N818
    """The server was told to stop; the state on disk is where the job goes on."""


class Session:
    """The server's end of a job. Implements `Peers`.

    clients: all sites. required: those without whose answer a round does not count. folder: where rounds live.
    attempt: of the job; what an older one sends is refused.
    """

    def __init__(
        self,
        clients: Sequence[str],
        required: frozenset[str],
        limits: Limits,
        folder: Path,
        *,
        attempt: int = 1,
    ) -> None:
        self.clients = tuple(sorted(clients))
        self.attempt = attempt
        self.bytes_in = self.bytes_out = 0
        self.round = 0
        self.conditions = Conditions()
        self._finished = -1
        self._required = required
        self._limits = limits
        self._folder = folder
        self.spares = folder / "spare"  # files of rounds that are over, to be written over by the next
        self._started = time.monotonic()
        self._before = 0.0
        self._changed = threading.Condition()
        self._departures = Departures(folder, attempt)
        self._sites = {name: Site(name, gone_since=self._started) for name in self.clients}
        for name, why in self._departures.left.items():
            self._sites[name].left, self._sites[name].state = why, "Left"
        self._journal: Journal | None = None
        self._asks: dict[Ask, Open] = {}
        self._count: Counter[str] = Counter()
        self._spools: dict[str, Spool] = {}
        self._judged: set[str] = set()  # sites whose answer is being checked, off the lock
        self._end: wire.End | None = None
        self._stop = False

    # ---------------------------------------------------------------------------------- the workflow's side

    def ask(self, to: str, task: Task) -> Answer:
        """See `Peers.ask`."""
        try:
            return next(self._ask_all([to], task, Rule(1, self._limits.round_seconds)))
        except JobFailed as e:
            if e.reason != "QuorumNotMet":
                raise
            refusal = self._asks[task.kind, self._count[task.kind] - 1].out.get(to)
            reason, message = (refusal.reason, refusal.message) if refusal else ("PeerLost", e.message)
            raise PeerFailed(to, reason, message) from None

    def ask_all(self, to: Sequence[str], task: Task, *, quorum: int = 1, close: Close = "Deadline") -> Iterator[Answer]:
        """See `Peers.ask_all`."""
        rule = Rule(quorum, self._limits.round_seconds, close, self._required, self._limits.wait_seconds)
        return self._ask_all(to, task, rule)

    def _ask_all(self, to: Sequence[str], task: Task, rule: Rule) -> Iterator[Answer]:
        opened = self._open(task, frozenset(to), rule)
        given: set[str] = set()
        try:
            while (fresh := self._await_answers(opened, given)) is not None:
                for site in fresh:
                    given.add(site)
                    yield opened.answers[site]
        finally:
            with self._changed:
                if not self._stop:  # else the round goes on, in the next process of this server
                    self._cancel(opened)

    def await_sites(self, count: int) -> None:
        """Return when `count` sites have attended, or have answered before a restart.

        Raises JobFailed (StartDeadlineExceeded) past the start deadline.
        """
        while True:
            with self._changed:
                here = {s.name for s in self._sites.values() if s.ever_attended}
                if len(here) >= count:
                    return
                left = self._started + self._limits.start_seconds - time.monotonic()
                if left <= 0:
                    absent = ", ".join(sorted(set(self.clients) - here))
                    raise JobFailed(
                        "StartDeadlineExceeded",
                        f"{len(here)} of {count} sites came within {self._limits.start_seconds:.0f} s "
                        f"(spec.startDeadlineSeconds); absent: {absent}",
                    )
                self._wait(left)

    def running_seconds(self) -> float:
        """How long the job has run, over all its server processes."""
        return self._before + time.monotonic() - self._started

    def add_running_seconds(self, seconds: float) -> None:
        """Count what earlier processes of this job ran."""
        self._before += seconds

    def end(self, state: str, reason: str = "", message: str = "") -> None:
        """Tell every site that the job is over; those that attend later hear it too."""
        with self._changed:
            self._end = wire.End(state=state, reason=reason, message=message)
            for site in self._sites.values():
                self._tell_end(site)

    def await_nobody(self, seconds: float) -> None:
        """Return when every site has heard of the end and hung up, or after so long.

        A site whose connection broke a moment ago is waited for: it comes back, and must not take the end for a lost server.
        """
        with self._changed:
            long_gone = time.monotonic() - seconds
            self._changed.wait_for(lambda: all(s.has_hung_up(long_gone) for s in self._sites.values()), seconds)

    def interrupt(self) -> None:
        """Make the workflow's thread raise Interrupted at its next wait."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()

    def finish_round(self) -> None:
        """Forget the round's answers: the state after it is on disk. Called between rounds only."""
        with self._changed:
            if self._journal:
                self._journal.close()
                retire(self._journal.folder.iterdir(), self.spares)
                self._journal.folder.rmdir()
            for spool in self._spools.values():
                spool.close()
            self._spools = {}
            self.conditions.has_room(*self.clients)
            self._finished = self.round
            self._journal, self._asks, self._count = None, {}, Counter()

    def end_rounds(self) -> None:
        """There will be no further round: what they would have written over goes."""
        shutil.rmtree(self.spares, ignore_errors=True)

    def until_space(self, work: Callable[[], T]) -> T:
        """What `work` returns; tried again while the disk is full. Raises JobFailed at the job's deadline, Interrupted."""
        while True:
            try:
                done = work()
            except OSError as e:
                if not disk.is_full(e):
                    raise
                self.conditions.no_room(_SERVER, e, self._folder)
            else:
                self.conditions.has_room(_SERVER)
                return done
            with self._changed:
                self._wait(_SPACE_SECONDS)

    def _open(self, task: Task, sites: frozenset[str], rule: Rule) -> Open:
        ask = self.until_space(partial(self._number, task))
        # Writing what is sent and reading back what had come may take long: sites come and go meanwhile.
        assert self._journal is not None
        parts = self.until_space(partial(sent_parts, task, ask, self._journal.folder, self._limits, self.spares))
        opened = Open(ask, task.round, sites, rule, parts, task.parts)
        replay(opened, self._journal)
        with self._changed:
            for name in opened.answers:
                self._sites[name].settle("Answered")
            self._asks[ask] = opened
            for name in sorted(sites):
                if opened.waits_for(name):
                    self._offer(self._sites[name], opened)
            return opened

    def _number(self, task: Task) -> Ask:
        """The name of an ask; its clock begins here, that of a round's first ask with the round."""
        with self._changed:
            if self._journal is None or task.round != self.round:
                self._journal = Journal(self._folder / f"round-{task.round:06d}")
                self.round = task.round
            ask = (task.kind, self._count[task.kind])
            if self._asks and not any(r["event"] == "asked" and r["ask"] == list(ask) for r in self._journal.records):
                self._journal.append("asked", ask=list(ask))
            self._count[task.kind] += 1
            return ask

    def _await_answers(self, opened: Open, given: set[str]) -> list[str] | None:
        """Sites whose answers are new, or None when the round is closed. Raises JobFailed, Interrupted."""
        while True:
            with self._changed:
                self.until_space(partial(self._settle, opened))
                fresh = sorted(set(opened.answers) - given)
                if fresh or opened.closed:
                    return fresh or None
                elapsed = self._elapsed(opened)
                step = decide(opened.rule, self._asked(opened), elapsed)
                if isinstance(step, NotMet):
                    raise JobFailed("QuorumNotMet", f"round {self.round}: {step.message}")
                until = [step.until_seconds - elapsed] if not isinstance(step, Closed) else [0.0]
                until += [s.gone_since + self._limits.site_lost_seconds - time.monotonic() for s in self._lost(opened)]
                self._wait(min(u for u in until if u > 0) if any(u > 0 for u in until) else 0.0)

    def _lost(self, opened: Open) -> list[Site]:
        return [s for n, s in self._sites.items() if opened.waits_for(n) and s.push is None]

    def _asked(self, opened: Open) -> Asked:
        out = {name: f"{r.reason}: {r.message}" for name, r in opened.out.items()}
        left, lost = absences(self._lost(opened), time.monotonic(), self._limits.site_lost_seconds)
        return Asked(opened.sites, frozenset(opened.answers), {**out, **left}, lost)

    def _elapsed(self, opened: Open) -> float:
        assert self._journal is not None
        return self._journal.elapsed_seconds() - opened.since

    def _settle(self, opened: Open) -> None:
        """Close the round if it is time: the set of answers is journalled first, then the others are cancelled."""
        assert self._journal is not None
        if opened.closed:
            return
        asked = self._asked(opened)
        if isinstance(decide(opened.rule, asked, self._elapsed(opened)), Closed):
            for name in sorted(set(asked.absent) - set(opened.out)):  # lost: the record tells why, a restart or not
                reason, _, message = asked.absent[name].partition(": ")
                self._note_out(opened, name, Refusal(reason, message))
            self._journal.append("closed", ask=list(opened.ask), sites=sorted(opened.answers))
            self._cancel(opened)

    def _cancel(self, opened: Open) -> None:
        if opened.closed:
            return
        for name in sorted(opened.sites):
            if opened.waits_for(name):
                why = f"round {self.round} closed without this site's answer"
                event = wire.Cancel(key=opened.key, reason="PastRound", message=why)
                self._sites[name].tell(wire.Downward(cancel=event))
        opened.closed = True

    def _wait(self, seconds: float) -> None:
        """Wait for a change, at most so long; notice a stop and the job's own deadline."""
        if self._stop:
            raise Interrupted
        left = self._limits.active_seconds - self.running_seconds()
        if left <= 0:
            raise JobFailed(
                "DeadlineExceeded",
                f"the job has run for {self._limits.active_seconds:.0f} s (spec.activeDeadlineSeconds)",
            )
        if not self._changed.wait(max(min(seconds, left, _TICK_SECONDS), 0.001)) and self._journal:
            with contextlib.suppress(OSError):  # a full disk may cost a deadline some time, if the server dies too
                self._journal.append("tick")

    # -------------------------------------------------------------------------------------- the sites' side

    def attend(self, name: str, attempt: int, push: Push) -> None:
        """A process of a site opens its life line; it hears at once what there is to do."""
        with self._changed:
            site = self._sites[name]
            if attempt != self.attempt:
                why = f"this process belongs to attempt {attempt}, the job is at attempt {self.attempt}"
                push(wire.Downward(end=wire.End(state="Failed", reason="StaleAttempt", message=why)))
                log.warning("refused %s: StaleAttempt: %s", name, why, extra={"site": name})
                return
            if site.push is not None:
                why = "a newer process of this site has connected"
                site.push(wire.Downward(end=wire.End(state="Failed", reason="Superseded", message=why)))
            log.log(logging.DEBUG if site.moving else logging.INFO, "site %s attends", name, extra={"site": name})
            forgive_outage(self._sites.values(), time.monotonic(), self._limits.site_lost_seconds)
            site.attend(push)
            self._departures.remove(name)
            if self._end is not None:
                self._tell_end(site)
            for opened in self._asks.values():
                if opened.waits_for(name):
                    self._offer(site, opened)
            site.moving = False
            self._changed.notify_all()

    def moves(self, name: str, push: Push) -> None:
        """A process of a site says on its life line that it opens another one, and goes on there."""
        with self._changed:
            self._sites[name].moving = self._sites[name].push is push

    def lost(self, name: str, push: Push) -> None:
        """The life line that was opened with `push` is broken."""
        with self._changed:
            site = self._sites[name]
            if site.push is push:
                site.lose(time.monotonic())
                if self._end is None and not site.moving:
                    log.warning("site %s lost", name, extra={"site": name})
                self._changed.notify_all()
                if site.told:
                    self._departures.add(name, "the job is over")

    def farewell(self, name: str, push: Push, reason: str, message: str, final: bool) -> None:
        """A site's script says why it goes; or whoever supervises it, that it is `final`: nobody will start it again."""
        with self._changed:
            site = self._sites[name]
            if site.push is not push:
                return  # a newer process of this site has taken its place
            site.message = f"{reason}: {message}"
            log.warning("site %s: %s%s", name, site.message, " (for good)" if final else "", extra={"site": name})
            if final:
                self._departures.add(name, site.message)
                site.left, site.push, site.state = site.message, None, "Left"
            self._changed.notify_all()

    def object(self, name: str, digest: str) -> Stored | None:
        """The object with this digest, if an open ask of this site names it.

        Raises TransportError while no round is open: a server that was started again has not come to it yet.
        """
        with self._changed:
            if self._end is None and (self._journal is None or len(self._asks) < self._count.total()):
                raise TransportError("no round is open yet, or the next question is being written")
            for opened in self._asks.values():
                if opened.waits_for(name):
                    for part in opened.parts.values():
                        if part.digest == digest:
                            return part
        return None

    def sent(self, name: str, done: int, total: int, size: int) -> None:
        """`size` more bytes of a task went to a site, which now has `done` of `total`."""
        with self._changed:
            self.bytes_out += size
            site = self._sites[name]
            site.bytes_down += size
            if site.state in ("Waiting", "Downloading", "Training"):
                site.fetch(time.monotonic(), done, total)

    def begin(self, name: str, announce: wire.Announce) -> Upload | wire.Verdict:
        """An answer is announced: the upload to receive it with, or a verdict before any byte travels."""
        with self._changed:
            ask = (announce.key.kind, announce.key.ask)
            verdict = self._verdict_before_bytes(name, announce, ask)
            if verdict is not None:
                return verdict
            self._not_judged(name)
            opened = self._asks[ask]
            header = opened.judge_announced(announce, self._limits)
            if isinstance(header, Refusal):
                return self._out(opened, name, "Refused", header)
            assert self._journal is not None
            if name in self._spools:
                self._spools.pop(name).close()
            stem, parts = f"{ask[0]}.{ask[1]}.{name}", [(p.name, p.size) for p in announce.parts]
            place = (self._journal.folder, stem, announce.upload)
            spool = self._spools[name] = Spool(*place, parts, self.spares, opened.header_bytes)
            return Upload(name, opened, announce.upload, header, spool)

    def _verdict_before_bytes(self, name: str, announce: wire.Announce, ask: Ask) -> wire.Verdict | None:
        if announce.attempt != self.attempt:
            return _refused("StaleAttempt", f"attempt {announce.attempt}, the job is at attempt {self.attempt}")
        opened = self._asks.get(ask) if announce.key.round == self.round else None
        if opened and name in opened.answers:
            if opened.uploads.get(name) == announce.upload:
                return wire.Verdict(accepted=True)  # the first verdict was lost on its way
            return _refused("AlreadyAnswered", f"round {self.round} has this site's {ask[0]} answer already")
        if opened is None and self._comes_again(announce.key, ask):
            raise TransportError(f"round {announce.key.round} is not open again yet")
        if opened is None or not opened.waits_for(name):
            why = f"{ask[0]} of round {announce.key.round} is over for this site; the job is at round {self.round}"
            log.warning("refused %s: PastRound: %s", name, why, extra={"site": name})
            return _refused("PastRound", why)
        if announce.declined:
            return self._out(opened, name, "Declined", Refusal("Declined", announce.declined))
        return None

    def _comes_again(self, key: wire.Key, ask: Ask) -> bool:
        """Whether a server that was started again has yet to come to this ask, which an earlier process made."""
        if self._end is not None or key.round != self.round:
            return self._end is None and key.round > self.round
        offers_are_over = any(kind != "Offer" for kind, _ in self._asks)  # the initial model comes before all else
        return ask not in self._asks and self.round > self._finished and not (ask[0] == "Offer" and offers_are_over)

    def admit(self, upload: Upload) -> None:
        """Let an upload begin. Raises OSError (ENOSPC) while the disk has no room for it; see `disk`."""
        with self._changed:
            if upload.spool.unwritten():  # else the disk has given it room already
                reserve = sum(tree.layout.size for tree in upload.opened.masters.values())
                disk.claim(self._folder, self.spares, (s.unwritten() for s in self._spools.values()), reserve)
            self.conditions.has_room(upload.site)

    def refused_by_disk(self, name: str, error: OSError) -> None:
        """What a site has sent could not be written: people see it until the site is let in, or the round is over."""
        self.conditions.no_room(name, error, self._folder)

    def received(self, upload: Upload, size: int) -> None:
        """`size` more bytes of an answer have come; those that were damaged count as well."""
        with self._changed:
            if not self._awaits(upload.opened, upload.site):
                raise TransportError("the round is over")  # the site asks again, and hears it before more bytes travel
            self.bytes_in += size
            site = self._sites[upload.site]
            site.bytes_up += size
            site.upload(time.monotonic(), upload.spool.held, sum(upload.spool.sizes))

    def accept(self, upload: Upload, digests: Sequence[str]) -> wire.Verdict:
        """Judge a complete answer. Reads all of it, so it is called off the event loop.

        Raises TransportError if it must be sent again, OSError when the disk refuses.
        """
        opened, site = upload.opened, upload.site
        with self._changed:
            self._not_judged(site)
            self._judged.add(site)
        try:
            judged = upload.judge(digests)
            with self._changed:
                if self._spools.get(site) is upload.spool:
                    del self._spools[site]
                upload.spool.close()
                if not self._awaits(opened, site):
                    return _refused("PastRound", f"round {opened.round} closed while the answer travelled")
                if isinstance(judged, Refusal):
                    upload.spool.discard()
                    return self._out(opened, site, "Refused", judged)
                self._accepted(opened, upload, judged)
            return wire.Verdict(accepted=True)
        finally:
            with self._changed:
                self._judged.discard(site)

    def _awaits(self, opened: Open, site: str) -> bool:
        """Whether this very ask is open, and not one of the same name in another round."""
        return self._asks.get(opened.ask) is opened and opened.waits_for(site)

    def _not_judged(self, site: str) -> None:
        if site in self._judged:
            raise TransportError("the last answer of this site is still being checked; come again")

    def _accepted(self, opened: Open, upload: Upload, parts: Mapping[str, Stored]) -> None:
        assert self._journal is not None
        self._journal.append(
            "accepted",
            ask=list(opened.ask),
            site=upload.site,
            upload=upload.upload,
            header=upload.header.__dict__,
            parts={name: facts(part) for name, part in parts.items()},
        )
        site = self._sites[upload.site]
        site.examples, site.metrics = upload.header.num_examples, upload.header.metrics
        opened.take(upload.site, upload.upload, upload.header, parts, site.round_record(time.monotonic()))
        site.bytes_down = site.bytes_up = 0
        site.settle("Answered")
        self._settle(opened)
        self._changed.notify_all()

    def _out(self, opened: Open, name: str, state: Any, refusal: Refusal) -> wire.Verdict:
        """A site will not answer this ask: journalled, told, and the round decides anew."""
        why = f"{refusal.reason}: {refusal.message}"
        log.warning("round %d: %s %s: %s", self.round, state.lower(), name, why, extra={"site": name})
        self._note_out(opened, name, refusal)
        self._sites[name].settle(state, why)
        self._changed.notify_all()
        return wire.Verdict(accepted=state == "Declined", reason=refusal.reason, message=refusal.message)

    def _note_out(self, opened: Open, name: str, refusal: Refusal) -> None:
        assert self._journal is not None
        self._journal.append("out", ask=list(opened.ask), site=name, reason=refusal.reason, message=refusal.message)
        opened.out[name] = refusal

    def _offer(self, site: Site, opened: Open) -> None:
        site.ask(time.monotonic())
        if not opened.parts and site.push:
            site.state = "Training"
        site.tell(wire.Downward(task=opened.task(self.attempt)))

    def _tell_end(self, site: Site) -> None:
        site.told = site.push is not None
        site.tell(wire.Downward(end=self._end))

    # ------------------------------------------------------------------------------------------ for people

    def sites(self) -> list[Site]:
        """A snapshot of the roster."""
        with self._changed:
            return [replace(s) for s in self._sites.values()]

    def last_kind(self) -> RoundKind:
        """Kind of the round's last ask."""
        with self._changed:
            return "Evaluate" if list(self._asks)[-1][0] == "Evaluate" else "Train"

    def outcome(self, kind: str) -> tuple[dict[str, Answer], dict[str, SiteRound], list[Missing]]:
        """Of the last ask of a kind in this round: its answers, what each cost, and who is missing and why."""
        with self._changed:
            opened = self._asks[kind, self._count[kind] - 1]
            out = self._asked(opened).absent
            missing = []
            for name in sorted(opened.sites - set(opened.answers)):
                reason, _, message = out.get(name, "DeadlineExceeded: no answer when the round closed").partition(": ")
                missing.append(Missing(name, reason, message))
            return dict(opened.answers), dict(opened.records), missing

    def sizes(self, kind: str) -> tuple[int, int]:
        """See `asks.Open.sizes`, of the last ask of a kind in this round."""
        with self._changed:
            return self._asks[kind, self._count[kind] - 1].sizes()

    def round_seconds(self) -> float:
        """Running time of the round so far."""
        with self._changed:
            return self._journal.elapsed_seconds() if self._journal else 0.0


def _refused(reason: str, message: str) -> wire.Verdict:
    return wire.Verdict(accepted=False, reason=reason, message=message)
