"""The sites' side of a `Session`: they come and go, fetch what they are asked, and send answers.

Called from the server's event loop, and from its threads where much is read. Each call holds the ledger's lock for short.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import disk
from . import wire_pb2 as wire
from .acceptance import Refusal, notice
from .asks import Ask, Open, Upload
from .departures import JOB_OVER
from .errors import TransportError
from .ledger import Ledger
from .quantities import round_text
from .roster import Push, forgive_outage
from .spool import Spool, facts
from .stored import Stored

log = logging.getLogger(__name__)


class Reception:
    """What sites do reaches the rounds through this. ledger: of their job."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @property
    def clients(self) -> tuple[str, ...]:
        """All sites of the job."""
        return self._ledger.clients

    @property
    def round(self) -> int:
        """The running round."""
        return self._ledger.round

    def attend(self, name: str, attempt: int, push: Push) -> None:
        """A process of a site opens its life line; it hears at once what there is to do."""
        with self._ledger.changed:
            site = self._ledger.sites[name]
            if attempt != self._ledger.attempt:
                why = f"this process belongs to attempt {attempt}, the job is at attempt {self._ledger.attempt}"
                push(wire.Downward(end=wire.End(state="Failed", reason="StaleAttempt", message=why)))
                log.warning("refused %s: StaleAttempt: %s", name, why, extra={"site": name})
                return
            if site.push is not None:
                why = "a newer process of this site has connected"
                site.push(wire.Downward(end=wire.End(state="Failed", reason="Superseded", message=why)))
            log.log(logging.DEBUG if site.moving else logging.INFO, "site %s attends", name, extra={"site": name})
            forgive_outage(self._ledger.sites.values(), time.monotonic(), self._ledger.limits.site_lost_seconds)
            site.attend(push)
            self._ledger.departures.remove(name)
            if self._ledger.end is not None:
                self._ledger.tell_end(site)
            for opened in self._ledger.asks.values():
                if opened.waits_for(name):
                    self._ledger.offer(site, opened)
            site.moving = False
            self._ledger.changed.notify_all()

    def moves(self, name: str, push: Push) -> None:
        """A process of a site says on its life line that it opens another one, and goes on there."""
        with self._ledger.changed:
            self._ledger.sites[name].moving = self._ledger.sites[name].push is push

    def lost(self, name: str, push: Push) -> None:
        """The life line that was opened with `push` is broken."""
        with self._ledger.changed:
            site = self._ledger.sites[name]
            if site.push is push:
                site.lose(time.monotonic())
                if self._ledger.end is None and not site.moving:
                    log.warning("site %s lost", name, extra={"site": name})
                self._ledger.changed.notify_all()
                if site.told:
                    self._ledger.departures.add(name, JOB_OVER)

    def farewell(self, name: str, push: Push, reason: str, message: str, final: bool) -> None:
        """A site's script says why it goes; or whoever supervises it, that it is `final`: nobody will start it again."""
        with self._ledger.changed:
            site = self._ledger.sites[name]
            if site.push is not push:
                return  # a newer process of this site has taken its place
            if final and self._ledger.end is not None:  # it has done its part, and need not hear of the end
                self._ledger.departures.add(name, JOB_OVER)
                site.push = None
                self._ledger.changed.notify_all()
                return
            site.said = site.message = f"{reason}: {message}"
            log.warning("site %s: %s%s", name, site.message, " (for good)" if final else "", extra={"site": name})
            if final:
                self._ledger.departures.add(name, site.message)
                site.left, site.push, site.state = site.message, None, "Left"
            self._ledger.changed.notify_all()

    def object(self, name: str, digest: str) -> Stored | None:
        """The object with this digest, if an open ask of this site names it.

        Raises TransportError while no round is open: a server that was started again has not come to it yet.
        """
        ledger = self._ledger
        with ledger.changed:
            if ledger.end is None and (ledger.journal is None or len(ledger.asks) < ledger.count.total()):
                raise TransportError("no round is open yet, or the next question is being written")
            for opened in ledger.asks.values():
                if opened.waits_for(name):
                    for part in opened.parts.values():
                        if part.digest == digest:
                            return part
        return None

    def sent(self, name: str, done: int, total: int, size: int) -> None:
        """`size` more bytes of a task went to a site, which now has `done` of `total`."""
        with self._ledger.changed:
            self._ledger.bytes_out += size
            site = self._ledger.sites[name]
            site.bytes_down += size
            if site.state in ("Waiting", "Downloading", "Training"):
                site.fetch(time.monotonic(), done, total)

    def begin(self, name: str, announce: wire.Announce) -> Upload | wire.Verdict:
        """An answer is announced: the upload to receive it with, or a verdict before any byte travels."""
        with self._ledger.changed:
            ask = (announce.key.kind, announce.key.ask)
            verdict = self._verdict_before_bytes(name, announce, ask)
            if verdict is not None:
                return verdict
            self._not_judged(name)
            opened = self._ledger.asks[ask]
            header = opened.judge_announced(announce, self._ledger.limits)
            if isinstance(header, Refusal):
                return self._out(opened, name, "Refused", header)
            assert self._ledger.journal is not None
            if name in self._ledger.spools:
                self._ledger.spools.pop(name).close()
            stem, parts = f"{ask[0]}.{ask[1]}.{name}", [(p.name, p.size) for p in announce.parts]
            place = (self._ledger.journal.folder, stem, announce.upload)
            spool = self._ledger.spools[name] = Spool(*place, parts, self._ledger.spares, opened.header_bytes)
            return Upload(name, opened, announce.upload, header, spool)

    def _verdict_before_bytes(self, name: str, announce: wire.Announce, ask: Ask) -> wire.Verdict | None:
        if announce.attempt != self._ledger.attempt:
            return _refused("StaleAttempt", f"attempt {announce.attempt}, the job is at attempt {self._ledger.attempt}")
        opened = self._ledger.asks.get(ask) if announce.key.round == self._ledger.round else None
        if opened and name in opened.answers:
            if opened.uploads.get(name) == announce.upload:
                return wire.Verdict(accepted=True)  # the first verdict was lost on its way
            return _refused(
                "AlreadyAnswered", f"{round_text(self._ledger.round)} has this site's {ask[0]} answer already"
            )
        if opened is None and self._comes_again(announce.key, ask):
            raise TransportError(f"{round_text(announce.key.round)} is not open again yet")
        if opened is None or not opened.waits_for(name):
            if (*ask, name, announce.upload) in self._ledger.accepted:
                return wire.Verdict(accepted=True)  # the first verdict was lost, and the round has closed since
            why = f"{ask[0]} of {round_text(announce.key.round)} is over for this site; the job is at {round_text(self._ledger.round)}"
            log.warning("refused %s: PastRound: %s", name, why, extra={"site": name})
            return _refused("PastRound", why)
        if announce.declined:
            return self._out(opened, name, "Declined", Refusal("Declined", announce.declined))
        return None

    def _comes_again(self, key: wire.Key, ask: Ask) -> bool:
        """Whether a server that was started again has yet to come to this ask, which an earlier process made."""
        ledger = self._ledger
        if ledger.end is not None or key.round != ledger.round:
            return ledger.end is None and key.round > ledger.round
        offers_are_over = any(kind != "Offer" for kind, _ in ledger.asks)  # the initial model comes before all else
        return ask not in ledger.asks and ledger.round > ledger.finished and not (ask[0] == "Offer" and offers_are_over)

    def admit(self, upload: Upload) -> None:
        """Let an upload begin. Raises OSError (ENOSPC) while the disk has no room for it; see `disk`."""
        ledger = self._ledger
        with ledger.changed:
            if upload.spool.unwritten():  # else the disk has given it room already
                state = sum(tree.layout.size for tree in upload.opened.masters.values())
                promised = {name: spool.unwritten() for name, spool in ledger.spools.items()}
                # An offered model becomes the first state.
                disk.claim(ledger.folder, ledger.spares, promised, state or sum(upload.spool.sizes))
            ledger.conditions.has_room(upload.site)

    def release(self, upload: Upload) -> None:
        """Its stream has ended: its files stay, for the site to go on from; what it had reserved is free, and its descriptors."""
        with self._ledger.changed:
            upload.spool.close()
            if self._ledger.spools.get(upload.site) is upload.spool:
                del self._ledger.spools[upload.site]

    def not_written(self, name: str, error: OSError) -> None:
        """What a site has sent could not be written: people see it until the site is let in, or the round is over."""
        if disk.is_full(error):
            self._ledger.conditions.no_room(name, error, self._ledger.folder)
        else:
            log.error("what %s sends cannot be written: %s", name, error, extra={"site": name})

    def received(self, upload: Upload, size: int) -> None:
        """`size` more bytes of an answer have come; those that were damaged count as well."""
        with self._ledger.changed:
            if not self._awaits(upload.opened, upload.site):
                raise TransportError("the round is over")  # the site asks again, and hears it before more bytes travel
            self._ledger.bytes_in += size
            site = self._ledger.sites[upload.site]
            site.bytes_up += size
            site.upload(time.monotonic(), upload.spool.held, sum(upload.spool.sizes))

    def accept(self, upload: Upload, digests: Sequence[str]) -> wire.Verdict:
        """Judge a complete answer. Reads all of it, so it is called off the event loop.

        Raises TransportError if it must be sent again, OSError when the disk refuses.
        """
        opened, site = upload.opened, upload.site
        with self._ledger.changed:
            self._not_judged(site)
            self._ledger.judged.add(site)
        try:
            judged = upload.judge(digests)
            with self._ledger.changed:
                self.release(upload)
                if not self._awaits(opened, site):
                    return _refused("PastRound", f"{round_text(opened.round)} closed while the answer travelled")
                if isinstance(judged, Refusal):
                    upload.spool.discard()
                    return self._out(opened, site, "Refused", judged)
                self._accepted(opened, upload, judged)
            return wire.Verdict(accepted=True, message=notice(upload.header))
        finally:
            with self._ledger.changed:
                self._ledger.judged.discard(site)

    def _awaits(self, opened: Open, site: str) -> bool:
        """Whether this very ask is open, and not one of the same name in another round."""
        return self._ledger.asks.get(opened.ask) is opened and opened.waits_for(site)

    def _not_judged(self, site: str) -> None:
        if site in self._ledger.judged:
            raise TransportError("the last answer of this site is still being checked; come again")

    def _accepted(self, opened: Open, upload: Upload, parts: Mapping[str, Stored]) -> None:
        assert self._ledger.journal is not None
        self._ledger.journal.append(
            "accepted",
            ask=list(opened.ask),
            site=upload.site,
            upload=upload.upload,
            header=upload.header.__dict__,
            parts={name: facts(part) for name, part in parts.items()},
        )
        if told := notice(upload.header):
            log.warning("%s: %s", upload.site, told, extra={"site": upload.site})
        site = self._ledger.sites[upload.site]
        if opened.ask[0] == "Train":  # the weight of its update; other answers weigh nothing
            site.examples = upload.header.num_examples
        site.metrics = upload.header.metrics
        opened.take(upload.site, upload.upload, upload.header, parts, site.round_record(time.monotonic()))
        site.bytes_down = site.bytes_up = 0
        site.settle("Answered")
        self._ledger.settle(opened)
        self._ledger.changed.notify_all()

    def _out(self, opened: Open, name: str, state: Any, refusal: Refusal) -> wire.Verdict:
        """A site will not answer this ask: journalled, told, and the round decides anew."""
        why = f"{refusal.reason}: {refusal.message}"
        log.warning("%s: %s %s: %s", round_text(self._ledger.round), state.lower(), name, why, extra={"site": name})
        self._ledger.note_out(opened, name, refusal)
        self._ledger.sites[name].settle(state, why)
        self._ledger.changed.notify_all()
        return wire.Verdict(accepted=state == "Declined", reason=refusal.reason, message=refusal.message)


def _refused(reason: str, message: str) -> wire.Verdict:
    return wire.Verdict(accepted=False, reason=reason, message=message)
