"""The two ends of a transfer that no disk and no memory could hold: a source that makes its bytes, a sink that digests them.

Everything between is fedjob's own: the server's service and transport, a site's uplink. `synthetic.py serve|send|receive
FOLDER SIZE PORT` is one end; it prints a line of JSON when it is done, the server also when it listens.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from fedjob import chunks, identity, transport
from fedjob import wire_pb2 as wire
from fedjob.chunks import CHUNK_BYTES, Range, Table
from fedjob.codec import Outflow
from fedjob.frames import Piece
from fedjob.reception import Reception
from fedjob.service import JobService
from fedjob.uplink import Uplink

UID, SITE, SERVER = "benchmark", "site-1", "server"
TABLE_FILE = "table"
_NOISE_BYTES = 8 << 20
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Extent:
    """Bytes of an object."""

    size: int


@dataclass
class Source:
    """An object whose chunks are noise with their place written into it. Read as an `Outflow` and as a `Stored`.

    again: how many chunks were read that had been read before, one number for each stretch of them: what a cut costs.
    """

    size: int
    table: bytes = b""
    furthest: int = -1
    again: list[int] = field(default_factory=list)

    @property
    def layout(self) -> Extent:
        """See `Outflow.layout`."""
        return Extent(self.size)

    def read(self, start: int, stop: int) -> bytes:
        """A chunk."""
        index = start // CHUNK_BYTES
        if index > self.furthest:
            if index > self.furthest + 1 or not self.again or self.again[-1]:
                self.again.append(0)
            self.furthest = index
        else:
            self.again[-1] += 1
        return self.chunk(index)[: stop - start]

    def bytes_at(self, offset: int, size: int) -> bytes:
        """See `Stored.bytes_at`."""
        return self.read(offset, offset + size)

    def digest_at(self, index: int) -> bytes:
        """See `Stored.digest_at`."""
        return self.table[index * chunks.DIGEST_BYTES : (index + 1) * chunks.DIGEST_BYTES]

    def chunk(self, index: int) -> bytes:
        """The bytes of a chunk; the last one of an object is cut from it."""
        at = index * 4097 % _NOISE_BYTES
        return b"".join((index.to_bytes(8, "little"), self._noise[at : at + CHUNK_BYTES - 8]))

    def digests(self) -> Table:
        """The digest of every chunk."""
        whole = Table(self.size)
        for i in range(whole.count):
            whole.put(i, chunks.digest(self.chunk(i)[: self.size - i * CHUNK_BYTES]))
        return whole

    @cached_property
    def _noise(self) -> memoryview:
        return memoryview(np.random.default_rng(1).bytes(_NOISE_BYTES + CHUNK_BYTES))


@dataclass
class Sink:
    """Takes the place of a `Spool`: keeps the digest of each chunk, and nothing else."""

    sizes: Sequence[int]
    again: int = 0

    def __post_init__(self) -> None:
        self.tables = [Table(size) for size in self.sizes]

    def open(self) -> None:
        """See `Spool.open`: what is held is here."""

    def lacks(self) -> list[Range]:
        """See `Spool.lacks`."""
        return chunks.lacking(self.tables)

    def write(self, piece: Piece) -> None:
        """See `Spool.write`."""
        table = self.tables[piece.part]
        index = chunks.accept(table, piece.offset, piece.data, piece.digest)
        if index is None:
            self.again += 1
        else:
            table.put(index, piece.digest)


@dataclass(frozen=True)
class Arrival:
    """Takes the place of an `Upload`."""

    site: str
    spool: Sink


class Hub:
    """Takes the place of a `Reception`: one object to give, one to take, from one site, however often it connects."""

    def __init__(self, source: Source) -> None:
        self.clients = (SITE,)
        self.source = source
        self.arrival: Arrival | None = None
        self.sealed = ""
        self.done = asyncio.Event()

    def attend(self, *_: Any) -> None:
        """A life line is there."""

    def lost(self, *_: Any) -> None:
        """And gone."""

    def sent(self, *_: Any) -> None:
        """Bytes went out."""

    def received(self, *_: Any) -> None:
        """Bytes came in."""

    def admit(self, *_: Any) -> None:
        """There is always room."""

    def refused_by_disk(self, *_: Any) -> None:
        """There is no disk."""

    def farewell(self, *_: Any) -> None:
        """The site has done what it came for."""
        self.done.set()

    def object(self, *_: Any) -> Source:
        """What the site fetches."""
        return self.source

    def begin(self, site: str, announce: wire.Announce) -> Arrival:
        """See `Reception.begin`: after a cut, the same sink."""
        self.arrival = self.arrival or Arrival(site, Sink([p.size for p in announce.parts]))
        return self.arrival

    def accept(self, arrival: Arrival, digests: Sequence[str]) -> wire.Verdict:
        """See `Reception.accept`."""
        self.sealed = arrival.spool.tables[0].object_digest()
        return wire.Verdict(accepted=[self.sealed] == list(digests))


async def serve(folder: Path, size: int, port: int) -> None:
    """The server's end, until the site says farewell. It gives and takes one object each."""
    hub = Hub(Source(size, (folder / TABLE_FILE).read_bytes()))
    service = JobService(cast(Reception, hub), UID, identity.TRUST_DOMAIN, folder / "values")
    server, listens = await transport.serve(service, f"127.0.0.1:{port}", identity.read(folder / SERVER))
    _tell(port=listens)
    await hub.done.wait()
    _tell(digest=hub.sealed, again=hub.source.again, peak=_peak_bytes())
    await server.stop(grace=1.0)


def send(folder: Path, size: int, port: int) -> None:
    """The site's end of an upload."""
    source, uplink = Source(size), _uplink(folder, port)
    announce = wire.Announce(key=wire.Key(kind="Train"), parts=[wire.Part(name="params", size=size)], header="{}")
    verdict = uplink.submit(announce, [cast(Outflow, source)])
    uplink.close(wire.Farewell(reason="Done"))
    _tell(accepted=verdict.accepted, again=source.again, peak=_peak_bytes())


def receive(folder: Path, size: int, port: int) -> None:
    """The site's end of a download."""
    uplink = _uplink(folder, port)
    expected = chunks.object_digest(size, (folder / TABLE_FILE).read_bytes())
    seen = Table(size)

    def take(offset: int, data: Any) -> None:
        seen.put(seen.place(offset, len(data)), chunks.digest(data))

    uplink.fetch(wire.Part(name="params", size=size, digest=expected), take)
    uplink.close(wire.Farewell(reason="Done"))
    _tell(digest=seen.object_digest(), peak=_peak_bytes())


def prepare(folder: Path, size: int) -> str:
    """Certificates of both ends, and the digests that the source must have; returns the object's."""
    now, lifetime = datetime.now(UTC), timedelta(days=1)
    authority = identity.create_authority(UID, now=now, lifetime=lifetime)
    server = identity.issue(authority, authority.server(), now=now, lifetime=lifetime, dns_names=["localhost"])
    identity.write(server, folder / SERVER)
    identity.write(identity.issue(authority, authority.site(SITE), now=now, lifetime=lifetime), folder / SITE)
    table = Source(size).digests()
    (folder / TABLE_FILE).write_bytes(table.to_bytes())
    return table.object_digest()


def _uplink(folder: Path, port: int) -> Uplink:
    return Uplink(f"127.0.0.1:{port}", "localhost", identity.read(folder / SITE), 1, _PATIENCE_SECONDS)


def _peak_bytes() -> int:
    """Of this program; getrusage would count what the process was before its exec."""
    with Path("/proc/self/status").open(encoding="utf-8") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM:"))


def _tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    transport.tune_malloc()
    side, where, total, at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if side == "serve":
        asyncio.run(serve(where, total, at))
    else:
        {"send": send, "receive": receive}[side](where, total, at)
