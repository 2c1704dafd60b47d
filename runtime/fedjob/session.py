"""`Peers` over the wire: asks, answers, deadlines and the journal of the round that is running.

Theory of operation
-------------------
Two kinds of threads meet on one `ledger`. The workflow's own thread is here: it runs `ask_all`, and waits until the round
closes. The server's event loop is at the other side, `reception`, and brings what sites do. Everything shared is behind the
ledger's lock, and every change wakes the workflow. What must survive is in the journal before anyone is told of it.

An ask is named by (kind, round, n-th ask of that kind in the round) and never by the process that asks or answers. So after a
restart the same question finds its old answers, and only the missing sites are asked again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import disk
from . import wire_pb2 as wire
from .asks import Ask, Open, replay, sent_parts
from .errors import JobFailed, PeerFailed
from .journal import Journal, forget
from .ledger import Ledger
from .limits import Limits
from .peers import Answer, Close, Task
from .quantities import round_text
from .quorum import Closed, NotMet, Rule
from .reception import Reception
from .records import Missing, RoundKind, SiteRound
from .roster import Site

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
        self._ledger = Ledger(clients, limits, folder, attempt)
        self.reception = Reception(self._ledger)
        self.clients = self._ledger.clients
        self.conditions = self._ledger.conditions
        self.spares = self._ledger.spares
        self._required = required
        self._limits = limits
        self._before = 0.0
        self._stop = False

    @property
    def round(self) -> int:
        """The running round."""
        return self._ledger.round

    @property
    def bytes_in(self) -> int:
        """Bytes of answers that have come to this process."""
        return self._ledger.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes of tasks that went out from this process."""
        return self._ledger.bytes_out

    def ask(self, to: str, task: Task) -> Answer:
        """See `Peers.ask`."""
        try:
            return next(self._ask_all([to], task, Rule(1, self._limits.round_seconds)))
        except JobFailed as e:
            if e.reason != "QuorumNotMet":
                raise
            with self._ledger.changed:
                opened, left = self._ledger.last(task.kind), self._ledger.sites[to].left
                refusal, silent = opened.out.get(to), self._ledger.asked(opened).silent[to]
            reason, message = (refusal.reason, refusal.message) if refusal else ("PeerLost", left or silent)
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
            with self._ledger.changed:
                if not self._stop:  # else the round goes on, in the next process of this server
                    self._ledger.cancel(opened)

    def await_sites(self, count: int) -> None:
        """Return when `count` sites have attended, or have answered before a restart.

        Raises JobFailed (StartDeadlineExceeded) past the start deadline.
        """
        while True:
            with self._ledger.changed:
                here = {s.name for s in self._ledger.sites.values() if s.ever_attended}
                if len(here) >= count:
                    return
                left = self._ledger.started + self._limits.start_seconds - time.monotonic()
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
        return self._before + time.monotonic() - self._ledger.started

    def add_running_seconds(self, seconds: float) -> None:
        """Count what earlier processes of this job ran."""
        self._before += seconds

    def end(self, state: str, reason: str = "", message: str = "") -> None:
        """Tell every site that the job is over; those that attend later hear it too."""
        with self._ledger.changed:
            self._ledger.end = wire.End(state=state, reason=reason, message=message)
            for site in self._ledger.sites.values():
                self._ledger.tell_end(site)

    def await_nobody(self, seconds: float) -> None:
        """Return when every site has heard of the end and hung up, or after so long, or at once when the server is to stop.

        A site whose connection broke a moment ago is waited for: it comes back, and must not take the end for a lost server.
        """
        with self._ledger.changed:
            long_gone = time.monotonic() - seconds
            self._ledger.changed.wait_for(
                lambda: self._stop or all(s.has_hung_up(long_gone) for s in self._ledger.sites.values()), seconds
            )

    def interrupt(self) -> None:
        """Make the workflow's thread raise Interrupted at its next wait."""
        with self._ledger.changed:
            self._stop = True
            self._ledger.changed.notify_all()

    def finish_round(self) -> None:
        """Forget the round's answers: the state after it is on disk. Called between rounds only."""
        with self._ledger.changed:
            self._ledger.finish_round()

    def go_on_from(self, number: int) -> None:
        """The state on disk is that before this round; called before it begins. What is left of other rounds goes."""
        with self._ledger.changed:
            self._ledger.go_on_from(number)

    def end_rounds(self) -> None:
        """There will be no further round: what they would have written over goes, and what the last one had accepted."""
        shutil.rmtree(self.spares, ignore_errors=True)
        forget(self._ledger.folder)

    def until_space(self, work: Callable[[], T]) -> T:
        """What `work` returns; tried again while the disk is full. Raises JobFailed at the job's deadline, Interrupted."""
        while True:
            try:
                done = work()
            except OSError as e:
                if not disk.is_full(e):
                    raise
                self.conditions.no_room(_SERVER, e, self._ledger.folder)
            else:
                self.conditions.has_room(_SERVER)
                return done
            with self._ledger.changed:
                self._wait(_SPACE_SECONDS)

    def _open(self, task: Task, sites: frozenset[str], rule: Rule) -> Open:
        ask, journal = self.until_space(partial(self._number, task))
        # Writing what is sent and reading back what had come may take long: sites come and go meanwhile.
        parts = self.until_space(partial(sent_parts, task, ask, journal.folder, self._limits, self.spares))
        opened = Open(ask, task.round, sites, rule, parts, task.parts)
        replay(opened, journal)
        with self._ledger.changed:
            self._ledger.open(opened)
            return opened

    def _number(self, task: Task) -> tuple[Ask, Journal]:
        with self._ledger.changed:
            return self._ledger.number(task)

    def _await_answers(self, opened: Open, given: set[str]) -> list[str] | None:
        """Sites whose answers are new, or None when the round is closed. Raises JobFailed, Interrupted."""
        while True:
            with self._ledger.changed:
                step = self.until_space(partial(self._ledger.settle, opened))
                fresh = sorted(set(opened.answers) - given)
                if fresh or isinstance(step, Closed):
                    return fresh or None
                if isinstance(step, NotMet):
                    raise JobFailed("QuorumNotMet", f"{round_text(self._ledger.round)}: {step.message}")
                lost_at = (s.gone_since + self._limits.site_lost_seconds for s in self._ledger.absent(opened))
                until = [step.until_seconds - self._ledger.elapsed(opened), *(at - time.monotonic() for at in lost_at)]
                self._wait(min((seconds for seconds in until if seconds > 0), default=0.0))

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
        if not self._ledger.changed.wait(max(min(seconds, left, _TICK_SECONDS), 0.001)) and self._ledger.journal:
            with contextlib.suppress(OSError):  # a full disk may cost a deadline some time, if the server dies too
                self._ledger.journal.append("tick")

    # ------------------------------------------------------------------------------------------ for people

    def sites(self) -> list[Site]:
        """A snapshot of the roster."""
        with self._ledger.changed:
            return [replace(s) for s in self._ledger.sites.values()]

    def last_kind(self) -> RoundKind:
        """Kind of the round's last ask."""
        with self._ledger.changed:
            return "Evaluate" if list(self._ledger.asks)[-1][0] == "Evaluate" else "Train"

    def outcome(self, kind: str) -> tuple[dict[str, Answer], dict[str, SiteRound], list[Missing]]:
        """Of the last ask of a kind in this round: its answers, what each cost, and who is missing and why."""
        with self._ledger.changed:
            opened = self._ledger.last(kind)
            asked = self._ledger.asked(opened)
            missing = []
            for name in sorted(opened.sites - set(opened.answers)):
                why = asked.absent.get(name, f"DeadlineExceeded: {asked.silent[name]}")
                reason, _, message = why.partition(": ")
                missing.append(Missing(name, reason, message))
            return dict(opened.answers), dict(opened.records), missing

    def sizes(self, kind: str) -> tuple[int, int]:
        """See `asks.Open.sizes`, of the last ask of a kind in this round."""
        with self._ledger.changed:
            return self._ledger.last(kind).sizes()

    def round_seconds(self) -> float:
        """Running time of the round so far."""
        with self._ledger.changed:
            return self._ledger.journal.elapsed_seconds() if self._ledger.journal else 0.0
