"""A site's end of its job: the life line, tasks in, answers out. Sockets and time; what scripts see is in `client`.

One thread holds the life line open, so that the server knows within seconds when this process is gone, and keeps the newest
task in an inbox of one. Tensors travel on the script's own thread, straight between the wire and their memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from . import chunks, frames, tls
from . import wire_pb2 as wire
from .api.limits import FLUSH_SECONDS
from .chunks import CHUNK_BYTES, Pause, Range, Table
from .codec import Outflow
from .dtypes import Bytes
from .errors import (
    CodecError,
    LocalProtocolError,
    NotAdmitted,
    ReceiveTimeout,
    RemoteProtocolError,
    ServerLost,
    TransportError,
    ended,
)
from .frames import Piece
from .identity import Credentials
from .incoming import Incoming
from .orders import checked
from .quantities import plural, round_text
from .tally import ClientTally
from .transport import Channel, Gone, PermissionDenied
from .values import legible
from .version import __version__

log = logging.getLogger("fedjob")
_RENEW_SECONDS = 10.0
_QUIET_SECONDS = 1.0
Take = Callable[[int, Bytes], object]  # what is done with the bytes at an offset


class JobOver(Exception):  # noqa: N818
    """A transfer was cut because the job has ended."""


@dataclass
class Outage:
    """Tries of one transfer."""

    since: float = field(default_factory=time.monotonic)
    backoff: float = 0.05


@dataclass(frozen=True)
class Ended:
    """The job is over. state: Complete or Failed."""

    state: str
    reason: str
    message: str


class Uplink:
    """The connection of one training process to its server. Raises errors as the script shall see them."""

    def __init__(
        self, address: str, server_name: str, credentials: Credentials, attempt: int, server_lost_seconds: float
    ) -> None:
        self._channel = Channel(address, server_name, credentials)
        self._where = (address, credentials, server_name)
        self._attempt = attempt
        self._patience = server_lost_seconds
        self.tally = ClientTally()
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._task: wire.Task | None = None
        self._over: set[tuple[str, int, int]] = set()
        self._answered: dict[tuple[str, int, int], int] = {}  # number of the newest life line when the verdict came
        self._lines = 0
        self._complaint = ""
        self._ended: Ended | None = None
        self._broken: Exception | None = None
        self._alive_at = time.monotonic()
        self._line: queue.SimpleQueue[wire.Upward | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._hold_line, name="fedjob-lifeline", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------ tasks

    def next_task(self, timeout: float | None = None) -> wire.Task | None:
        """The task that is to be done now; None when the job has ended well.

        timeout: seconds. Raises ReceiveTimeout, and what `errors.ended` makes of another end.
        """
        self._check_process()
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                if self._ended is not None:
                    if self._ended.state != "Complete":
                        raise ended(self._ended.reason, self._ended.message)
                    return None
                if self._task is not None:
                    return self._task
                if self._broken is not None:
                    raise self._broken
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise ReceiveTimeout(f"no task within {timeout} s; the job goes on, call again")
                self._changed.wait(left)

    def is_over(self, key: wire.Key) -> bool:
        """Whether the server has said that it no longer wants the answer to this task."""
        with self._changed:
            return _name(key) in self._over

    def done(self, key: wire.Key) -> None:
        """Take the task out of the inbox, unless a newer one is there."""
        with self._changed:
            if self._task is not None and self._task.key == key:
                self._task = None

    def fetch(self, part: wire.Part, take: Take, kept: Incoming | None = None) -> None:
        """The chunks of a part, whole and undamaged, each once; after a cut those that are still lacking.

        take: called with the offset and the bytes of each, in order unless one came damaged. kept: what an earlier process
        has left of it. Raises ServerLost, JobOver, CodecError, or Gone if the round has closed; what `take` raises.
        """
        table, outage = Table(part.size), Outage()
        while not table.complete:
            try:
                for piece in self._arriving(part, table, kept):
                    index = chunks.accept(table, piece.offset, piece.data, piece.digest)
                    if index is None:
                        self.tally.chunks_down_again += 1
                        raise TransportError(f"chunk at {piece.offset} came damaged")
                    take(piece.offset, piece.data)
                    table.put(index, piece.digest)
                    outage = Outage()
                if not table.complete:
                    raise TransportError(f"the server ended {part.name} after {table.held} of {part.size} bytes")
            except TransportError as e:
                self._sit_out(outage, e)
        if table.object_digest() != part.digest:
            found = table.object_digest()
            raise CodecError(f"{part.name} arrived with digest {found[:12]}, expected {part.digest[:12]}")

    def _arriving(self, part: wire.Part, table: Table, kept: Incoming | None) -> Iterator[Piece]:
        """What the table lacks, in order: kept chunks from the disk, the others from the server."""
        for wanted in chunks.lacking([table]):
            for start, stop, here in (
                kept.spans(wanted.start, wanted.stop) if kept else [(wanted.start, wanted.stop, False)]
            ):
                if here and kept:
                    yield from kept.pieces(start, stop)
                    continue
                for piece in self._channel.fetch(part.digest, Range(0, start, stop)):
                    self.tally.bytes_down += len(piece.data)
                    yield piece
                    if kept:
                        kept.keep(piece)

    def submit(self, announce: wire.Announce, parts: Sequence[Outflow]) -> wire.Verdict:
        """Send an answer, however often the connection is cut; each time only what the server lacks.

        Raises ServerLost, or PermissionDenied if the server will not talk to this site.
        """
        self._check_process()
        announce.attempt, announce.upload, outage = self._attempt, uuid.uuid4().hex, Outage()
        tables = [Table(part.layout.size) for part in parts]
        while True:
            turn = _Turn([t.size for t in tables])
            try:
                for reply in self._channel.submit(_frames(announce, parts, tables, turn, self.tally)):
                    if reply.HasField("verdict"):
                        with self._changed:
                            self._answered[_name(announce.key)] = self._lines
                        return reply.verdict
                    if turn.take(reply):
                        outage = Outage()
                raise TransportError("the server ended the answer without a verdict")
            except TransportError as e:
                if turn.failure is not None:
                    raise turn.failure from None
                if self.is_over(announce.key):
                    return wire.Verdict(
                        reason="PastRound", message=f"{round_text(announce.key.round)} closed meanwhile"
                    )
                try:
                    self._sit_out(outage, e)
                except JobOver:
                    return wire.Verdict(reason="JobEnded", message="the job ended while the answer travelled")
            finally:
                turn.end()

    # -------------------------------------------------------------------------------------- life line

    def tell(self, event: wire.Upward) -> None:
        """Say something on the life line, soon; on the next one if that is down."""
        self._check_process()
        with self._changed:
            self._line.put(event)

    def renew(self, credentials: Credentials) -> None:
        """Go on with other credentials: the life line moves over at once, a transfer when it is done or cut.

        Raises TransportError if the server does not answer on a connection with them; then nothing has changed.
        """
        try:
            self._channel.renew(credentials, _RENEW_SECONDS)
        except TransportError as e:
            raise TransportError(self._diagnose(credentials) or str(e)) from e
        self._where = (self._where[0], credentials, self._where[2])
        with self._changed:
            if self.heard():  # else the next line is one with them anyway
                self._line, old = queue.SimpleQueue(), self._line
                old.put(wire.Upward(renewed=wire.Renewed()))
                old.put(None)
                self._alive_at = time.monotonic()

    def close(self, farewell: wire.Farewell | None = None) -> None:
        """Say why this process goes, wait a moment until that is sent, and let go of the connection."""
        if self._pid != os.getpid():
            return
        with self._changed:
            if farewell is not None:  # a process that goes at once still says why
                self._changed.wait_for(lambda: self.heard() or self._ended or self._broken, 5.0)
            already, self._closing = self._closing, True
        if already:
            return
        if farewell is not None and self._ended is None:
            self._line.put(wire.Upward(farewell=farewell))
        self._line.put(None)
        flush = FLUSH_SECONDS.value if self._ended is not None else 5.0
        self._thread.join(timeout=flush if farewell is not None and self._broken is None else 0.2)
        self._channel.close()
        if lost := sum(event.HasField("value") for event in _rest(self._line)):
            log.warning("%s did not reach the server: it had ended, or was away", plural(lost, "logged value"))

    def _hold_line(self) -> None:
        backoff = 0.1
        while not self._closing and self._ended is None:
            self._lines += 1
            line = self._line
            try:
                if not self.tally.connections:
                    self._look_up_server()
                for event in self._channel.attend(_upward(self._attempt, line)):
                    backoff = 0.1
                    self._take(checked(event), self._lines)
            except RemoteProtocolError as e:
                return self._break(e)
            except PermissionDenied as e:
                return self._break(NotAdmitted(f"the server refuses this site: {e}"))
            except TransportError as e:
                if time.monotonic() - self._alive_at > self._patience:
                    return self._break(ServerLost(self._lost_message(e)))
                if not self._closing:
                    self._complain(e)
            finally:
                line.put(None)
                self._alive_at = min(self._alive_at, time.monotonic())
            if line is not self._line:
                continue  # renewed
            with self._changed:
                self._line = queue.SimpleQueue()
                for unsent in _rest(line):
                    if unsent.HasField("value"):
                        self._line.put(unsent)
            # Wakes at once when the process closes; the jitter keeps a thousand sites from coming back together.
            with self._changed:
                self._changed.wait_for(lambda: self._closing, backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, 2.0)
        return None

    def _look_up_server(self) -> None:
        """Before the first connection. Raises TransportError: a connection that found no name would be slow to look again."""
        if why := tls.look_up(self._where[0], self._warn):
            raise TransportError(why)

    def _complain(self, error: TransportError) -> None:
        """What the connection said, and what a closer look finds: once it has lasted a second, and when it has changed."""
        if time.monotonic() - self._alive_at < _QUIET_SECONDS:
            return
        found = self._diagnose()
        if not found:  # the server answers, and the connection does not know yet
            self._channel.reconnect(self._where[1])
        self._warn(found or str(error))

    def _warn(self, why: str) -> None:
        kind = re.sub(r"\d+", "", why)  # times and ports are not news
        if kind != self._complaint:
            self._complaint = kind
            log.warning("no connection to %s: %s; trying again", self._where[0], why)

    def heard(self) -> bool:
        """Whether the life line is up."""
        return self._alive_at == float("inf")

    def _take(self, event: wire.Downward, line: int) -> None:
        with self._changed:
            self.tally.connections += not self.heard()
            self._alive_at = float("inf")  # until the line breaks
            self._complaint = ""
            if event.HasField("task"):
                # On a line that was opened before the verdict, a task may have crossed the answer on its way.
                if self._answered.get(_name(event.task.key), 0) < line:
                    self._over.discard(_name(event.task.key))  # asked again: by a server that was started again
                    self._task = event.task
            elif event.HasField("cancel"):
                key = event.cancel.key
                self._over.add(_name(key))
                if self._task is not None and self._task.key == key:
                    self._task = None
            elif event.HasField("end"):
                self._ended = Ended(event.end.state, event.end.reason, event.end.message)
            self._changed.notify_all()

    def _break(self, error: Exception) -> None:
        with self._changed:
            self._broken = error
            self._changed.notify_all()

    def _sit_out(self, outage: Outage, error: TransportError) -> None:
        """Wait a little before the next try.

        Raises JobOver, ServerLost, what ended the life line, or the error if trying again cannot help.
        """
        if isinstance(error, PermissionDenied | Gone):
            raise error
        with self._changed:
            if self._ended is not None:
                raise JobOver from error
            if self._broken is not None:
                raise self._broken from error
            now = time.monotonic()
            if now - max(outage.since, min(self._alive_at, now)) > self._patience:
                raise ServerLost(self._lost_message(error)) from error
            log.info("transfer interrupted (%s); going on", error)
            self._changed.wait_for(lambda: self._ended or self._broken, outage.backoff * random.uniform(0.5, 1.0))
        outage.backoff = min(outage.backoff * 2, 2.0)

    def _lost_message(self, error: Exception) -> str:
        why = self._diagnose() or str(error)
        return f"no server at {self._where[0]} for {self._patience:.0f} s (failurePolicy.serverLostSeconds): {why}"

    def _diagnose(self, renewed: Credentials | None = None) -> str:
        """What is wrong with a connection, by the credentials in use or by renewed ones; "" if nothing is."""
        address, credentials, server_name = self._where
        try:
            return tls.diagnose(address, renewed or credentials, server_name)
        except OSError as e:  # a full or read-only folder for its files, a network that is unreachable
            return f"no closer look was possible: {e}"

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise LocalProtocolError(
                "this process was forked after fedjob.init(); only the process that called init() may talk to the server"
            )


def _name(key: wire.Key) -> tuple[str, int, int]:
    return key.kind, key.round, key.ask


def _upward(attempt: int, line: queue.SimpleQueue[wire.Upward | None]) -> Iterator[wire.Upward]:
    """What is said on one life line, until None."""
    yield wire.Upward(hello=wire.Hello(attempt=attempt, version=__version__))
    while (event := line.get()) is not None:
        yield event


def _rest(line: queue.SimpleQueue[wire.Upward | None]) -> list[wire.Upward]:
    """What has not been said on a life line."""
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            if (event := line.get_nowait()) is not None:
                found.append(event)
    line.put(None)  # gRPC's thread may still wait for it
    return found


class _Turn:
    """What the server has said on one stream, for the thread that sends on it."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sending = chunks.Sending(sizes)
        self._changed = threading.Condition()
        self._over = False
        self.failure: Exception | None = None  # of reading what is to be sent

    def take(self, reply: wire.Reply) -> bool:
        """A Want or an Ack; whether the answer has come further."""
        with self._changed:
            if reply.HasField("want"):
                self._sending.want(Range(r.part, r.start, r.stop) for r in reply.want.ranges)
            else:
                self._sending.acknowledge(reply.ack.chunks)
            self._changed.notify()
            return reply.HasField("ack")

    def next(self) -> Range | Pause | None:
        """The chunk to send or SEAL, as soon as there is one; None when the stream is over."""
        with self._changed:
            while not self._over:
                step = self._sending.next()
                if step is not Pause.WAIT:
                    return step
                self._changed.wait()  # until a reply comes or the stream breaks: keepalive sees to that within seconds
            return None

    def end(self) -> None:
        """The stream is over."""
        with self._changed:
            self._over = True
            self._changed.notify()


def _frames(
    announce: wire.Announce, parts: Sequence[Outflow], tables: Sequence[Table], turn: _Turn, tally: ClientTally
) -> Iterator[bytes]:
    """The announcement; then what the server wants, chunk by chunk from the tensors' own memory; then the seal."""
    yield wire.Frame(announce=announce).SerializeToString()
    while (step := turn.next()) is not None:
        if isinstance(step, Range):
            try:
                data = parts[step.part].read(step.start, step.stop)
            except Exception as e:  # noqa: BLE001 - any tensor's own error; this is gRPC's thread, `submit` raises it
                turn.failure = e
                return
            digest, table, index = chunks.digest(data), tables[step.part], step.start // CHUNK_BYTES
            tally.chunks_up_again += table.at(index) != b""
            tally.bytes_up += step.stop - step.start
            table.put(index, digest)
            yield frames.chunk_frame(Piece(step.part, step.start, digest, data))
        else:
            yield wire.Frame(seal=wire.Seal(digests=[t.object_digest() for t in tables])).SerializeToString()


def say_final(channel: Channel, attempt: int, reason: str, message: str) -> None:
    """Say in a site's name that nobody will start it again; returns when the server has noted it, or the job is over.

    Raises TransportError when that is not certain.
    """
    farewell = wire.Farewell(reason=reason, message=legible(message), final=True)
    said = (wire.Upward(hello=wire.Hello(attempt=attempt, version=__version__)), wire.Upward(farewell=farewell))
    for _ in channel.attend(iter(said)):
        pass  # the server hangs up when it has read everything
