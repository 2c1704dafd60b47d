"""The server's three calls: who may make them, and how the session's answers become messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from . import chunks
from . import wire_pb2 as wire
from .asks import Upload
from .errors import IdentityError, TransportError
from .identity import admit
from .records import LoggedValue, append
from .roster import Push
from .session import Session
from .stored import Stored
from .transport import CHUNK_BYTES, NotThere, Refused
from .version import __version__

log = logging.getLogger(__name__)


class JobService:
    """Implements `transport.Service` for one job. values: the file that logged scalars are appended to."""

    def __init__(self, session: Session, uid: str, trust_domain: str, values: Path) -> None:
        self._session = session
        self._uid = uid
        self._trust_domain = trust_domain
        self._values = values

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
        self._session.attend(site, hello.hello.attempt, push)
        reader = asyncio.create_task(self._read(site, push, events))
        reader.add_done_callback(lambda _: outbox.put_nowait(None))  # the site has hung up
        try:
            while (event := await outbox.get()) is not None:
                yield event
                if event.HasField("end"):
                    return
        finally:
            reader.cancel()
            self._session.lost(site, push)

    async def _read(self, site: str, push: Push, events: AsyncIterator[wire.Upward]) -> None:
        async for event in events:
            if event.HasField("value"):
                v = event.value
                try:
                    append(self._values, LoggedValue(site, v.round, v.step if v.step >= 0 else None, v.key, v.value))
                except OSError as e:
                    log.warning("a value that %s logged is lost: %s", site, e)
            elif event.HasField("farewell"):
                f = event.farewell
                self._session.farewell(site, push, f.reason, f.message, f.final)

    async def fetch(self, peer: str | None, wanted: wire.Wanted) -> AsyncIterator[wire.Chunk]:
        """See wire.proto."""
        site = self._admit(peer)
        stored = self._session.object(site, wanted.digest)
        if stored is None:
            raise NotThere(f"no open task of {site} has an object {wanted.digest[:12]}")
        async for chunk in self._pieces(site, stored, wanted.offset):
            yield chunk

    async def _pieces(self, site: str, stored: Stored, offset: int) -> AsyncIterator[wire.Chunk]:
        for at in range(offset, stored.size, CHUNK_BYTES):
            data = stored.bytes_at(at, CHUNK_BYTES)
            yield wire.Chunk(offset=at, digest=chunks.digest(data), data=data)
            self._session.sent(site, at + len(data), stored.size, len(data))

    async def submit(self, peer: str | None, frames: AsyncIterator[wire.Frame]) -> AsyncIterator[wire.Reply]:
        """See wire.proto."""
        site = self._admit(peer)
        stream = aiter(frames)
        first = await anext(stream, None)
        if first is None or not first.HasField("announce"):
            raise Refused("the first frame of an answer is its announcement")
        begun = await asyncio.to_thread(self._session.begin, site, first.announce)
        if isinstance(begun, wire.Verdict):
            yield wire.Reply(verdict=begun)
            return
        position = begun.spool.position
        yield wire.Reply(resume=wire.Resume(part=position.part, offset=position.offset))
        digests = await self._receive(begun, stream)
        yield wire.Reply(verdict=await asyncio.to_thread(self._session.accept, begun, digests))

    async def _receive(self, upload: Upload, stream: AsyncIterator[wire.Frame]) -> list[str]:
        async for frame in stream:
            if frame.HasField("seal"):
                return list(frame.seal.digests)
            if not frame.HasField("chunk"):
                raise TransportError("an answer is chunks and then a seal")
            c = frame.chunk
            upload.spool.write(c.part, c.offset, c.data, c.digest)
            self._session.received(upload, len(c.data))
        raise TransportError("the answer ended without its seal")

    def _admit(self, peer: str | None) -> str:
        try:
            site = admit(peer, self._uid, self._session.clients, trust_domain=self._trust_domain).site
        except IdentityError as e:
            log.warning("refused a call: %s", e)
            raise Refused(str(e)) from None
        assert site is not None
        return site
