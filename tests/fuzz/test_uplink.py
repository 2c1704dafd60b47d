"""A server that says anything to a site, over a real connection: the site's call returns or fails by name, and writes nowhere else."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob import exchange, identity
from fedjob import wire_pb2 as wire
from fedjob.chunks import Table, digest
from fedjob.codec import flatten
from fedjob.config import SiteConfig
from fedjob.errors import FedJobError
from fedjob.frames import Piece
from fedjob.model import FLModel
from fedjob.uplink import Uplink
from fuzz.messages import altered, made_up
from runtime.conftest import listening

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
UID, PATIENCE_SECONDS, LOST_SECONDS, MOST_CHARACTERS = "c0ffee", 30.0, 0.3, 3000
CALLS = 3  # of one site: as often as it may be lied to
TASK_SECONDS = 0.2  # after which the liar is taken to have no task
MODEL = {"w": np.ones(100, np.float32)}
FILE = bytes(flatten(MODEL).read(0, 1 << 20))
PIECE = Piece(0, 0, digest(FILE), FILE)
OBJECT = Table(len(FILE), PIECE.digest).object_digest()
KEY = wire.Key(kind="Train", round=1, ask=0)
PART = wire.Part(name="params", size=len(FILE), digest=OBJECT)
TASK = wire.Downward(task=wire.Task(key=KEY, attempt=1, parts=[PART]))
END = wire.Downward(end=wire.End(state="Complete"))
NAMING = st.lists(st.one_of(st.just(PART), altered(PART)), min_size=1, max_size=3).map(
    lambda parts: wire.Downward(task=wire.Task(key=KEY, attempt=1, parts=parts))
)
LINES = st.lists(st.one_of(st.just(TASK), altered(TASK), NAMING, made_up(wire.Downward.DESCRIPTOR)), max_size=4)
CHUNK = wire.Chunk(offset=0, digest=PIECE.digest, data=FILE)
CHUNKS = st.lists(st.one_of(st.just(CHUNK), altered(CHUNK), made_up(wire.Chunk.DESCRIPTOR)), max_size=3)
WANT = wire.Reply(want=wire.Want(ranges=[wire.Range(part=0, start=0, stop=len(FILE))]))
REPLIES = st.lists(
    st.one_of(
        st.just(WANT), altered(WANT), altered(wire.Reply(ack=wire.Ack(chunks=1))), made_up(wire.Reply.DESCRIPTOR)
    ),
    max_size=4,
)
ACCEPTED = wire.Reply(verdict=wire.Verdict(accepted=True))


class Liar:
    """A server that says what the test wants it to say; that the job is over, once a site has called often enough."""

    def __init__(self) -> None:
        self.say((), (), ())

    def say(self, line: Sequence[wire.Downward], pieces: Sequence[wire.Chunk], replies: Sequence[wire.Reply]) -> None:
        """From now on this, to whoever calls."""
        self._line, self._pieces, self._replies = line, pieces, replies
        self._patience, self._over = CALLS, asyncio.Event()

    async def attend(self, _peer: str | None, _events: AsyncIterator[wire.Upward]) -> AsyncIterator[wire.Downward]:
        """The line that was given."""
        over = self._over
        for event in self._line:
            yield event
        await over.wait()
        yield END

    async def fetch(self, _peer: str | None, _wanted: wire.Wanted) -> AsyncIterator[Piece]:
        """The pieces that were given, whatever is wanted."""
        self._called()
        for c in self._pieces:
            yield Piece(c.part, c.offset, c.digest, c.data)

    async def submit(self, _peer: str | None, _frames: AsyncIterator[Any]) -> AsyncIterator[wire.Reply]:
        """The replies that were given, whatever comes."""
        self._called()
        for reply in self._replies:
            yield reply

    def _called(self) -> None:
        self._patience -= 1
        if self._patience == 0:
            self._over.set()


@pytest.fixture(scope="module")
def liar() -> Iterator[tuple[Liar, Callable[[], Uplink]]]:
    """The liar, and how to connect to it."""
    now, life = datetime.now(UTC), timedelta(hours=1)
    authority = identity.create_authority(UID, now=now, lifetime=life)
    site = identity.issue(authority, authority.site("a"), now=now, lifetime=life)
    service = Liar()
    with listening(service, authority) as address:
        yield service, lambda: Uplink(address, "localhost", site, 1, LOST_SECONDS)


def configuration(folder: Path, params: str) -> SiteConfig:
    return SiteConfig(job="j", uid=UID, attempt=1, trust_domain=identity.TRUST_DOMAIN, site="a", sites=("a",), workflow={},
                      params_type=params, server="", server_name="localhost", tls=folder, work=folder / "work" / "a",
                      server_lost_seconds=LOST_SECONDS)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # a reconnecting thread does, beside the test
@settings(deadline=None, max_examples=EXAMPLES)
@given(LINES, CHUNKS, REPLIES, st.sampled_from(["FULL", "DIFF"]))
def test_whatever_a_server_says_a_call_returns_or_fails_by_name(
    liar: tuple[Liar, Callable[[], Uplink]],
    line: list[wire.Downward],
    pieces: list[wire.Chunk],
    replies: list[wire.Reply],
    params: str,
) -> None:
    service, connect = liar
    service.say(line, pieces, replies)
    with tempfile.TemporaryDirectory() as top:
        config, uplink = configuration(Path(top), params), connect()
        try:
            while (task := uplink.next_task(TASK_SECONDS)) is not None:
                if trees := exchange.download(uplink, task, {}, config):
                    back = FLModel(**trees, metrics={"m": 1.0})
                    verdict = uplink.submit(*exchange.announcement(task, back, {}, config))
                    assert len(verdict.message) <= MOST_CHARACTERS
                uplink.done(task.key)
        except FedJobError as e:
            assert len(str(e)) <= MOST_CHARACTERS  # noqa: PT017 - that it was raised is as good as that it was not
        finally:
            uplink.close()
        assert [p for p in Path(top).rglob("*") if p.is_file() and not p.is_relative_to(config.work)] == []
