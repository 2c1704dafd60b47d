"""A slow download that outlives its process: what has arrived is kept in a file, and the next process goes on from there.

A fast download is not worth a file: it would cost more than sending it again. So keeping begins once a download has lasted
a while; what came before is fetched again, and no field has to say which lines are slow.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from .chunks import CHUNK_BYTES
from .frames import Piece
from .spool import Spool
from .wire_pb2 import Part

log = logging.getLogger("fedjob")
KEEP_AFTER_SECONDS = 10.0


class Incoming:
    """The kept chunks of one object. folder: scratch of the site that its processes share.

    after_seconds: how long a download lasts before what arrives is kept. A folder that cannot be written costs this
    convenience, and nothing else.
    """

    def __init__(self, folder: Path, part: Part, after_seconds: float = KEEP_AFTER_SECONDS) -> None:
        self._spool = Spool(folder, f"incoming.{part.name}", part.digest, [(part.name, part.size)])
        self._due = time.monotonic() + after_seconds
        self._kept = False
        for path in folder.glob(f"incoming.{part.name}.*"):
            if part.digest in path.name:
                self._kept = True
            else:
                path.unlink()  # an older model
        if self._kept:
            self._open()
            log.info("going on with %s: %d of %d bytes were kept", part.name, self._spool.held, part.size)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """[start, stop) in order, as ranges that are kept (True) or not."""
        if not self._kept:
            yield start, stop, False
            return
        table, at = self._spool.tables[0], start
        while at < stop:
            kept, end = bool(table.at(at // CHUNK_BYTES)), at
            while end < stop and bool(table.at(end // CHUNK_BYTES)) == kept:
                end = min(end + CHUNK_BYTES, stop)
            yield at, end, kept
            at = end

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Kept chunks, read back; one that the disk has damaged is no longer kept, and not given."""
        for at in range(start, stop, CHUNK_BYTES):
            if piece := self._spool.read(0, at // CHUNK_BYTES):
                yield piece

    def keep(self, piece: Piece) -> None:
        """A chunk has arrived."""
        if not self._kept and time.monotonic() >= self._due:
            self._kept = True
            self._open()
        if self._kept:  # still: a folder that cannot be written has ended it
            self._write(piece)

    def _open(self) -> None:
        try:
            self._spool.open()
        except OSError as e:
            self._give_up(e)

    def _write(self, piece: Piece) -> None:
        try:
            self._spool.write(Piece(0, piece.offset, piece.digest, piece.data))
        except OSError as e:
            self._give_up(e)

    def _give_up(self, error: OSError) -> None:
        log.warning("what arrives is not kept: %s", error)
        self.discard()

    def discard(self) -> None:
        """The object is whole, or no longer wanted."""
        self._kept, self._due = False, float("inf")
        with contextlib.suppress(OSError):
            self._spool.discard()

    def close(self) -> None:
        """Leave it to the next process."""
        self._spool.close()
