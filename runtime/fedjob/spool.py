"""An answer on its way in: its parts as files that grow with each chunk. The files are also the resume point."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from .chunks import Position
from .codec import header_length, parse
from .errors import CodecError, TransportError
from .stored import Stored


class Spool:
    """Files `<stem>.<upload>.<part>` in a folder, picked up where an earlier process of this server left them.

    Files of the same stem with another upload's name are removed: a script that trains again sends other bytes.
    """

    def __init__(self, folder: Path, stem: str, upload: str, parts: Sequence[tuple[str, int]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._names = [name for name, _ in parts]
        self._paths = [folder / f"{stem}.{upload}.{name}" for name, _ in parts]
        for path in folder.glob(f"{stem}.*"):
            if path not in self._paths:
                path.unlink()
        # Written by the event loop, sealed by a worker, closed by whoever takes over: a number must not be reused between.
        self._lock = threading.RLock()
        self._fds: list[int] = []
        self._hashers = [blake3() for _ in parts]
        try:
            for path in self._paths:
                self._fds.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self.position = self._held([size for _, size in parts])
        except BaseException:
            self.close()
            raise

    def _held(self, sizes: list[int]) -> Position:
        """Read back what the files hold, up to the first part that is not full."""
        for i, size in enumerate(sizes):
            held = min(os.fstat(self._fds[i]).st_size, size)
            os.ftruncate(self._fds[i], held)
            at = 0
            while at < held:
                data = os.pread(self._fds[i], min(8 << 20, held - at), at)
                self._hashers[i].update(data)
                at += len(data)
            if held < size:
                for fd in self._fds[i + 1 :]:
                    os.ftruncate(fd, 0)  # what lies behind a gap is sent again
                return Position(sizes, i, held)
        return Position(sizes, len(sizes), 0)

    def write(self, part: int, offset: int, data: bytes, expected: int) -> None:
        """Keep one chunk. Raises TransportError if it is not the next or is damaged; OSError when the disk refuses."""
        with self._lock:
            self._check_ours()
            self.position.take(part, offset, data, expected)
            written = os.pwrite(self._fds[part], data, offset)
            while written < len(data):
                written += os.pwrite(self._fds[part], data[written:], offset + written)
            self._hashers[part].update(data)

    def seal(self, digests: Sequence[str]) -> dict[str, Stored]:
        """The parts, complete and with the sender's digests.

        Raises TransportError if bytes are missing or altered (then nothing is held any more), CodecError if a part is
        not a tensor file.
        """
        with self._lock:
            self._check_ours()
            if not self.position.complete:
                raise TransportError(f"sealed after {self.position.held} of {sum(self.position.sizes)} bytes")
            if [h.hexdigest() for h in self._hashers] != list(digests):
                self.discard()
                raise TransportError("the parts do not have the digests that their sender computed; send them again")
            return {name: self._stored(i) for i, name in enumerate(self._names)}

    def _stored(self, i: int) -> Stored:
        size = self.position.sizes[i]
        prefix = os.pread(self._fds[i], 8, 0)
        if len(prefix) < 8 or header_length(prefix) > size:
            raise CodecError(f"part {self._names[i]!r} is not a tensor file: {size} bytes")
        layout = parse(os.pread(self._fds[i], header_length(prefix), 0))
        if layout.size != size:
            raise CodecError(f"part {self._names[i]!r}: {size} bytes, its header says {layout.size}")
        return Stored(self._paths[i], layout, self._hashers[i].hexdigest())

    def _check_ours(self) -> None:
        if self._names and not self._fds:
            raise TransportError("this upload was taken over by a newer connection of the same site")

    def close(self) -> None:
        """Let go of the files; they stay."""
        with self._lock:
            fds, self._fds = self._fds, []
            for fd in fds:
                os.close(fd)

    def discard(self) -> None:
        """Remove the files."""
        self.close()
        for path in self._paths:
            path.unlink(missing_ok=True)


def facts(stored: Stored) -> dict[str, Any]:
    """What the journal keeps of a part: enough to find it again and to notice if it has changed."""
    return {"file": stored.path.name, "digest": stored.digest}
