"""The server's three calls: who may make them, and how the reception's answers become messages."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

from . import wire_pb2 as wire
from .api.limits import ANSWER_PARTS, FLUSH_SECONDS, LOGGED_KEYS, LOGGED_VALUES, NAME, OPEN_FETCHES
from .asks import Upload
from .chunks import ACK_EVERY, CHUNK_BYTES
from .errors import IdentityError, TransportError
from .frames import Piece
from .identity import admit
from .quantities import plural
from .reception import Reception
from .records import LoggedValue, append
from .roster import Push
from .stored import Stored
from .tally import ServerTally
from .text import one_line
from .transport import NotThere, Refused
from .version import __version__

log = logging.getLogger(__name__)
_READ_AHEAD = 4  # chunks that a worker reads at once
KINDS = ("Offer", "Train", "Evaluate")


class JobService:
    """Implements `transport.Service` for one job. values: the file that logged scalars are appended to. tally: of this server."""

    def __init__(
        self, reception: Reception, uid: str, trust_domain: str, values: Path, tally: ServerTally | None = None
    ) -> None:
        self._reception = reception
        self._uid = uid
        self._trust_domain = trust_domain
        self._values = values
        self._tally = tally or ServerTally()
        self._noted: Counter[tuple[str, int]] = Counter()  # values of a site in a round
        self._dropped: Counter[str] = Counter()  # values of a site, on its present life line
        self._keys: defaultdict[str, set[str]] = defaultdict(set)  # that a site has logged
        self._fetching: Counter[str] = Counter()

    async def attend(self, peer: str | None, events: AsyncIterator[wire.Upward]) -> AsyncIterator[wire.Downward]:
        """See wire.proto."""
        site = self._admit(peer)
        hello = await anext(aiter(events), None)
        if hello is None or not hello.HasField("hello"):
            raise Refused("the first message of a life line is hello")
        outbox: asyncio.Queue[wire.Downward | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def push(event: wire.Downward) -> None:
            loop.call_soon_threadsafe(outbox.put_nowait, event)

        push(wire.Downward(welcome=wire.Welcome(version=__version__)))
        self._reception.attend(site, hello.hello.attempt, push)
        reader = asyncio.create_task(self._read(site, push, events))
        reader.add_done_callback(lambda _: outbox.put_nowait(None))  # the site has hung up
        try:
            while (event := await outbox.get()) is not None:
                yield event
                if event.HasField("end"):  # what the site says until it hangs up still counts: it may be on its way
                    await asyncio.wait({reader}, timeout=FLUSH_SECONDS.value)
                    return
            if not reader.cancelled() and isinstance(problem := reader.exception(), OSError):
                raise TransportError(f"the farewell of {site} could not be noted: {problem}")
        finally:
            reader.cancel()
            self._reception.lost(site, push)
            if dropped := self._dropped.pop(site, 0):
                log.warning("%s: %s dropped; docs/limits.md says how many are kept", site, plural(dropped, "logged value"),
                            extra={"site": site})  # fmt: skip

    async def _read(self, site: str, push: Push, events: AsyncIterator[wire.Upward]) -> None:
        async for event in events:
            if event.HasField("value"):
                self._note(site, event.value)
            elif event.HasField("farewell"):
                f = event.farewell
                self._reception.farewell(site, push, one_line(f.reason, 60), f.message, f.final)
            elif event.HasField("renewed"):
                self._reception.moves(site, push)

    def _note(self, site: str, v: wire.Value) -> None:
        """Keep a scalar that a script logged; so many of a site in a round, or a loop in a script would fill the disk."""
        key, keys = one_line(v.key, NAME.value), self._keys[site]
        self._noted[site, self._reception.round] += 1
        known = key in keys or len(keys) < LOGGED_KEYS.value
        if self._noted[site, self._reception.round] > LOGGED_VALUES.value or not known:
            self._dropped[site] += 1
            if self._dropped[site] == 1:
                which = (
                    f"a value of another key than its first {len(keys)}"
                    if not known
                    else "further values of this round"
                )
                log.warning("%s: %s are dropped: docs/limits.md", site, which, extra={"site": site})
            return
        keys.add(key)
        step = v.step if v.step >= 0 else None
        self._tally.logged.take(site, {key: v.value})
        try:
            append(self._values, LoggedValue(site, v.round, step, key, v.value))
        except OSError as e:
            self._dropped[site] += 1
            log.warning("a value that %s logged is lost: %s", site, e, extra={"site": site})

    async def fetch(self, peer: str | None, wanted: wire.Wanted) -> AsyncIterator[Piece]:
        """See wire.proto."""
        site = self._admit(peer)
        stored = self._reception.object(site, wanted.digest)
        if stored is None:
            raise NotThere(f"no open task of {site} has an object {wanted.digest[:12]}")
        if wanted.start % CHUNK_BYTES or wanted.start > wanted.stop or wanted.stop > stored.size:
            raise Refused(f"bytes {wanted.start} to {wanted.stop} of an object of {stored.size}")
        if self._fetching[site] == OPEN_FETCHES.value:
            raise TransportError(f"{site} has {OPEN_FETCHES.value} downloads open already")
        self._fetching[site] += 1
        try:
            for at in range(wanted.start, wanted.stop, _READ_AHEAD * CHUNK_BYTES):
                # On a worker: a disk that is slow, or whose pages must be found first, holds up this site alone.
                stop = min(at + _READ_AHEAD * CHUNK_BYTES, wanted.stop)
                for piece in await asyncio.to_thread(_read, stored, at, stop):
                    yield piece
                    self._reception.sent(site, piece.offset + len(piece.data), stored.size, len(piece.data))
                    self._tally.bytes_down[site] += len(piece.data)
        finally:
            self._fetching[site] -= 1

    async def submit(self, peer: str | None, frames: AsyncIterator[wire.Frame | Piece]) -> AsyncIterator[wire.Reply]:
        """See wire.proto."""
        site = self._admit(peer)
        stream = aiter(frames)
        first = await anext(stream, None)
        if not isinstance(first, wire.Frame) or not first.HasField("announce"):
            raise Refused("the first frame of an answer is its announcement")
        if first.announce.key.kind not in KINDS or len(first.announce.parts) > ANSWER_PARTS.value:
            raise Refused(
                f"an announcement is of one of {', '.join(KINDS)}, and of {ANSWER_PARTS.value} parts at the most"
            )
        begun = await asyncio.to_thread(self._reception.begin, site, first.announce)
        if isinstance(begun, wire.Verdict):
            self._tally.judged(site, begun.accepted, begun.reason)
            yield wire.Reply(verdict=begun)
            return
        try:
            async for reply in self._take(begun, stream):
                yield reply
        except OSError as e:  # the site comes again, and goes on from what is held
            self._reception.not_written(site, e)
            raise
        finally:
            self._reception.release(begun)

    async def _take(self, upload: Upload, stream: AsyncIterator[wire.Frame | Piece]) -> AsyncIterator[wire.Reply]:
        """Receive an answer and have it judged."""
        await asyncio.to_thread(upload.spool.open)
        self._reception.admit(upload)
        self._reception.received(upload, 0)
        yield _want(upload)
        async with aclosing(self._receive(upload, stream)) as received:
            async for seen in received:
                if isinstance(seen, int):
                    yield wire.Reply(ack=wire.Ack(chunks=seen))
                elif upload.spool.lacks():
                    yield _want(upload)
                else:
                    verdict = await asyncio.to_thread(self._reception.accept, upload, seen)
                    self._tally.judged(upload.site, verdict.accepted, verdict.reason)
                    yield wire.Reply(verdict=verdict)
                    return

    async def _receive(
        self, upload: Upload, stream: AsyncIterator[wire.Frame | Piece]
    ) -> AsyncGenerator[int | list[str]]:
        """Keep the chunks of an answer: yields how many are kept, now and then, and the digests of each seal.

        A worker writes some chunks while the event loop takes the next ones from gRPC.
        """
        batch: list[Piece] = []
        kept, writing = 0, asyncio.create_task(asyncio.sleep(0))
        try:
            async for frame in stream:
                if isinstance(frame, Piece):
                    batch.append(frame)
                elif not frame.HasField("seal"):
                    raise TransportError("an answer is chunks and then a seal")
                if len(batch) == ACK_EVERY or not isinstance(frame, Piece):
                    await writing
                    if kept:
                        yield kept
                    writing = asyncio.create_task(asyncio.to_thread(self._keep, upload, batch))
                    kept, batch = kept + len(batch), []
                if not isinstance(frame, Piece):
                    await writing
                    yield list(frame.seal.digests)
            raise TransportError("the answer ended without its seal")
        finally:
            await asyncio.gather(writing, return_exceptions=True)

    def _keep(self, upload: Upload, pieces: Sequence[Piece]) -> None:
        again, size = upload.spool.again, sum(len(piece.data) for piece in pieces)
        for piece in pieces:
            upload.spool.write(piece)
        self._reception.received(upload, size)
        self._tally.bytes_up[upload.site] += size
        self._tally.chunks_again[upload.site] += upload.spool.again - again

    def _admit(self, peer: str | None) -> str:
        try:
            site = admit(peer, self._uid, self._reception.clients, trust_domain=self._trust_domain).site
        except IdentityError as e:
            log.warning("refused a call: %s", e, extra={"site": peer})
            raise Refused(str(e)) from None
        assert site is not None
        return site


def _read(stored: Stored, start: int, stop: int) -> list[Piece]:
    """The chunks in [start, stop) of an object, with the digests that they had when it was written."""
    return [
        Piece(0, at, stored.digest_at(at // CHUNK_BYTES), stored.bytes_at(at, min(CHUNK_BYTES, stop - at)))
        for at in range(start, stop, CHUNK_BYTES)
    ]


def _want(upload: Upload) -> wire.Reply:
    ranges = [wire.Range(part=r.part, start=r.start, stop=r.stop) for r in upload.spool.lacks()]
    return wire.Reply(want=wire.Want(ranges=ranges))
