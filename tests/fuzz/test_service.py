"""A site that says anything to the server: it is refused by name, writes nowhere else, and holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import wire_pb2 as wire
from fedjob.acceptance import Header
from fedjob.chunks import Table, digest
from fedjob.codec import flatten
from fedjob.errors import TransportError
from fedjob.frames import Piece, read_frame
from fedjob.identity import TRUST_DOMAIN, Identity, spiffe
from fedjob.limits import Limits
from fedjob.peers import Answer, Train
from fedjob.service import JobService
from fedjob.session import Interrupted, Session
from fedjob.stored import write_values
from fedjob.transport import NotThere, Refused
from fuzz.messages import altered, made_up

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
UID, PATIENCE_SECONDS, MOST_CHARACTERS = "c0ffee", 30.0, 3000
MODEL = {"w": np.ones(100, np.float32)}
FILE = bytes(flatten(MODEL).read(0, 1 << 20))
PIECE = Piece(0, 0, digest(FILE), FILE)
SEAL = wire.Frame(seal=wire.Seal(digests=[Table(len(FILE), digest(FILE)).object_digest()]))
KEY = wire.Key(kind="Train", round=1, ask=0)
ANNOUNCE = wire.Frame(
    announce=wire.Announce(
        key=KEY, attempt=1, upload="0" * 32, parts=[wire.Part(name="params", size=len(FILE))], header=Header().to_json()
    )
)
CHUNK = wire.Frame(chunk=wire.Chunk(part=0, offset=0, digest=PIECE.digest, data=FILE))
ALLOWED = (
    "run/state/round-000001/", "run/state/spare/", "run/state/departures.json", "run/state/model", "run/metrics.jsonl",
)  # fmt: skip
HELLO = wire.Upward(hello=wire.Hello(attempt=1, version="1"))
FRAMES = st.one_of(
    st.sampled_from([ANNOUNCE, CHUNK, SEAL]), *map(altered, [ANNOUNCE, CHUNK, SEAL]), made_up(wire.Frame.DESCRIPTOR)
)
OPENINGS = st.one_of(st.just([ANNOUNCE]), altered(ANNOUNCE).map(lambda m: [m]), st.just([]))
ANSWERS = st.builds(lambda first, rest: [*first, *rest], OPENINGS, st.lists(FRAMES, max_size=5))
LINES = st.builds(
    lambda first, rest: [*first, *rest],
    st.sampled_from([[HELLO], []]),
    st.lists(made_up(wire.Upward.DESCRIPTOR), max_size=6),
)


def peer(site: str) -> str:
    return spiffe(Identity(TRUST_DOMAIN, UID, site))


class Job:
    """A round that two sites are asked in and that site a's answer closes. `top` holds all that a run may write."""

    def __init__(self, top: Path) -> None:
        self.top, state = top, top / "run" / "state"
        state.mkdir(parents=True)
        self.model = write_values(state / "model", MODEL)
        limits = Limits(*[PATIENCE_SECONDS] * 5, max_bytes=256 << 30)
        self.session = Session("ab", frozenset("a"), limits, state)
        self.service = JobService(self.session.reception, UID, TRUST_DOMAIN, top / "run" / "metrics.jsonl")
        self.answers: list[Answer] = []
        asked = threading.Event()
        self.session.reception.attend("a", 1, lambda event: asked.set() if event.HasField("task") else None)
        self._thread = threading.Thread(target=self._round)
        self._thread.start()
        assert asked.wait(PATIENCE_SECONDS)

    def _round(self) -> None:
        with contextlib.suppress(Interrupted):
            self.answers += self.session.ask_all(["a", "b"], Train(round=1, params=self.model), close="Quorum")

    def closed(self) -> list[str]:
        """Those whose answer counts, once the round is closed."""
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        return [answer.sender for answer in self.answers]

    def stop(self) -> None:
        """Give the round up, if it is still open."""
        self.session.interrupt()
        self._thread.join(PATIENCE_SECONDS)

    def strays(self) -> list[str]:
        """Files where none belongs."""
        found = [str(p.relative_to(self.top)) for p in self.top.rglob("*") if p.is_file()]
        return [f for f in found if not f.startswith(ALLOWED)]


@contextlib.contextmanager
def job() -> Iterator[Job]:
    with tempfile.TemporaryDirectory() as top:
        this = Job(Path(top))
        try:
            yield this
        finally:
            this.stop()


async def said(messages: Sequence[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def replies(call: AsyncIterator[Any]) -> list[Any]:
    """What a call brings before it ends or is refused in one of the ways that `transport` has a status for."""
    heard = []
    try:
        async for reply in call:
            heard.append(reply)
    except (Refused, NotThere, TransportError) as e:
        assert len(str(e)) <= MOST_CHARACTERS  # noqa: PT017 - that it was raised is as good as that it was not
    except OSError as e:
        if e.errno != errno.ENOSPC:  # announced, and larger than the disk
            raise
    return heard


async def submitted(service: JobService, site: str, frames: Sequence[wire.Frame]) -> list[wire.Reply]:
    return await replies(service.submit(peer(site), said([read_frame(f.SerializeToString()) for f in frames])))


async def good_answer(job: Job) -> None:
    heard = await submitted(job.service, "a", [ANNOUNCE, CHUNK, SEAL])
    assert heard
    assert heard[-1].verdict.accepted


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(ANSWERS, min_size=1, max_size=3))
def test_any_answer_is_judged_or_refused_and_another_sites_counts(answers: list[list[wire.Frame]]) -> None:
    async def all_of(job: Job) -> None:
        for frames in answers:
            for reply in await submitted(job.service, "b", frames):
                assert len(reply.verdict.message) <= MOST_CHARACTERS
        await good_answer(job)

    with job() as this:
        asyncio.run(all_of(this))
        assert "a" in this.closed()
        assert this.strays() == []


@settings(deadline=None, max_examples=EXAMPLES)
@given(LINES)
def test_any_life_line_is_one_line_of_a_log_and_another_sites_answer_counts(line: list[wire.Upward]) -> None:
    async def all_of(job: Job) -> None:
        await replies(job.service.attend(peer("b"), said(line)))
        await good_answer(job)

    with job() as this:
        asyncio.run(all_of(this))
        left = this.session._ledger.sites["b"].message
        assert left.isprintable()
        assert len(left) <= MOST_CHARACTERS
        assert "a" in this.closed()
        assert this.strays() == []


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.data())
def test_any_bytes_of_a_model_may_be_wanted_and_only_its_own_are_given(data: st.DataObject) -> None:
    with job() as this:
        wanted = data.draw(altered(wire.Wanted(digest=this.model.digest, start=0, stop=this.model.size)))
        pieces: list[Piece] = asyncio.run(replies(this.service.fetch(peer("b"), wanted)))
        got = b"".join(bytes(piece.data) for piece in pieces)
        assert got in (b"", this.model.path.read_bytes()[wanted.start : wanted.stop])
        assert this.strays() == []
