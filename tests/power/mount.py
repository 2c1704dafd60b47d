"""The disk of `power.disk`, mounted: `python -m power.mount FOLDER`, for Linux, root and libfuse3.

Each line on its standard input is a command, answered by a line with the number of changes since the last one: `new` gives an
empty disk, `cut KEPT SEED` is the power coming back; with `at N` the power goes before the change with this number. A change is
whatever a file system may lose or order anew; forcing to the disk counts as one. Without power everything is an error.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from pathlib import PurePosixPath
from typing import Any, cast

import mfusepy

from power.disk import Disk, File, Folder, Kept


class Mounted(mfusepy.Operations):  # type: ignore[misc,unused-ignore]
    """What the kernel asks for. Handles are numbers of open files."""

    use_ns = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.disk = Disk()
        self.changes, self.at = 0, -1
        self.open_files: dict[int, File] = {}
        self.handles = 0

    # ---------------------------------------------------------------------------------------------- commands

    def command(self, words: list[str]) -> int:
        """Obey one, and say how many changes there were before."""
        with self._lock:
            before, self.changes, self.at = self.changes, 0, -1
            if words[0] == "new":
                self.disk = Disk()
            elif words[0] == "cut":
                self.disk = self.disk.cut(cast(Kept, words[1]), int(words[2]))
            else:
                self.at = int(words[1])
            return before

    def _powered(self) -> None:
        if 0 <= self.at <= self.changes:
            raise mfusepy.FuseOSError(errno.EIO)

    def _change(self) -> None:
        self._powered()
        self.changes += 1

    # ------------------------------------------------------------------------------------------------- names

    def _find(self, path: str) -> File | Folder:
        self._powered()
        node: File | Folder = self.disk.root
        for name in PurePosixPath(path).parts[1:]:
            if not isinstance(node, Folder) or name not in node.names:
                raise mfusepy.FuseOSError(errno.ENOENT)
            node = node.names[name]
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        at = PurePosixPath(path)
        folder = self._find(str(at.parent))
        assert isinstance(folder, Folder)
        return folder, at.name

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        with self._lock:
            node = self.open_files[fh] if fh in self.open_files else self._find(path)
            size, links = (len(node.data), node.links) if isinstance(node, File) else (0, 2)
            facts = {"st_mode": _mode(node), "st_ino": node.number, "st_nlink": links}
            return {**facts, "st_size": size, "st_blocks": -(-size // 512)}

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, Any], int]]:
        with self._lock:
            folder = self._find(path)
            assert isinstance(folder, Folder)
            found = [(".", folder), ("..", folder), *folder.names.items()]
            return [(name, {"st_mode": _mode(node), "st_ino": node.number}, 0) for name, node in found]

    def mkdir(self, path: str, mode: int) -> int:
        with self._lock:
            folder, name = self._place(path)
            self._change()
            folder.name(name, Folder(self.disk.number()))
            return 0

    def rmdir(self, path: str) -> int:
        with self._lock:
            folder, name = self._place(path)
            below = folder.names[name]
            if isinstance(below, Folder) and below.names:
                raise mfusepy.FuseOSError(errno.ENOTEMPTY)
            self._change()
            folder.name(name, None)
            return 0

    def unlink(self, path: str) -> int:
        with self._lock:
            node = self._find(path)
            folder, name = self._place(path)
            self._change()
            folder.name(name, None)
            if isinstance(node, File):
                node.links -= 1
            return 0

    def rename(self, old: str, new: str) -> int:
        with self._lock:
            node = self._find(old)
            (before, name), (after, fresh) = self._place(old), self._place(new)
            self._change()
            before.name(name, None)
            after.name(fresh, node)
            return 0

    def link(self, target: str, source: str) -> int:
        with self._lock:
            node = self._find(source)
            assert isinstance(node, File)
            folder, name = self._place(target)
            self._change()
            folder.name(name, node)
            node.links += 1
            return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        with self._lock:
            folder = self._find(path)
            assert isinstance(folder, Folder)
            self._change()
            folder.force()
            return 0

    # ------------------------------------------------------------------------------------------------- files

    def _opened(self, node: File | Folder) -> int:
        assert isinstance(node, File)
        self.handles += 1
        self.open_files[self.handles] = node
        return self.handles

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        with self._lock:
            folder, name = self._place(path)
            self._change()
            folder.name(name, node := File(self.disk.number()))
            return self._opened(node)

    def open(self, path: str, flags: int) -> int:
        with self._lock:
            node = self._find(path)
            if flags & os.O_TRUNC and isinstance(node, File) and node.data:
                self._change()
                node.truncate(0)
            return self._opened(node)

    def release(self, path: str, fh: int) -> int:
        with self._lock:
            self.open_files.pop(fh, None)
            return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with self._lock:
            self._powered()
            return bytes(self.open_files[fh].data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        with self._lock:
            self._change()
            self.open_files[fh].write(offset, data)
            return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        with self._lock:
            node = self.open_files[fh] if fh in self.open_files else self._find(path)
            assert isinstance(node, File)
            self._change()
            node.truncate(length)
            return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        with self._lock:
            self._change()
            self.open_files[fh].force()
            return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 20, "f_bfree": 1 << 20, "f_bavail": 1 << 20}

    def init(self, path: str) -> None:
        sys.stdout.write("mounted\n")
        sys.stdout.flush()


def _mode(node: File | Folder) -> int:
    return stat.S_IFREG | 0o600 if isinstance(node, File) else stat.S_IFDIR | 0o755


def _obey(mounted: Mounted) -> None:
    for line in sys.stdin:
        sys.stdout.write(f"{mounted.command(line.split())}\n")
        sys.stdout.flush()
    os._exit(0)  # whoever gave the commands is gone


if __name__ == "__main__":
    operations = Mounted()
    threading.Thread(target=_obey, args=(operations,), daemon=True).start()
    options = dict.fromkeys(("attr_timeout", "entry_timeout", "negative_timeout", "ac_attr_timeout"), 0)
    mfusepy.FUSE(operations, sys.argv[1], foreground=True, nothreads=True, use_ino=True, hard_remove=True, **options)
