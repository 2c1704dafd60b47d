"""The working folder of a site in a local run: what lies beside the job file, as a copy of the site's own.

What a script reads by a relative path is there, and what it writes is its site's alone. Small files are copied; what is larger is a
link to the original, which all sites share.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .api.limits import WORKING_BYTES, WORKING_FILES

_CACHE = "__pycache__"


@dataclass(frozen=True)
class Beside:
    """What lies beside a job file, by names relative to its folder. links: too large to copy, hidden, or links themselves."""

    source: Path
    folders: tuple[Path, ...] = ()
    copies: tuple[Path, ...] = ()
    links: tuple[Path, ...] = ()

    @property
    def shared(self) -> list[str]:
        """The links that a script may stumble over: not those that were links or hidden before, and no pipe or device."""
        shown = [p for p in self.links if not p.name.startswith(".") and not (self.source / p).is_symlink()]
        return [str(p) for p in shown if (self.source / p).is_file() or (self.source / p).is_dir()]


def beside(source: Path, *apart: Path) -> Beside:
    """What the sites of a run get from the folder `source`: the smallest first, as long as there is room. Raises OSError.

    apart: the run's folder and that of its keys. Whatever holds one, such as runs/ or a TMPDIR, is left out.
    """
    left_out = {each for folder in apart for each in (folder.resolve(), *folder.resolve().parents)}
    entries = [p for p in source.iterdir() if p.name != _CACHE and p.resolve() not in left_out]
    measured = sorted((*_measure(p), p.name, p) for p in entries if not _is_link(p))
    folders: list[Path] = []
    copies: list[Path] = []
    links = [p.relative_to(source) for p in entries if _is_link(p)]
    files, size = WORKING_FILES.value, WORKING_BYTES.value
    for its_size, its_files, _, path in measured:
        if its_files > files or its_size > size:
            links.append(path.relative_to(source))
            continue
        files, size = files - its_files, size - its_size
        for each in (path, *_below(path)):
            kind = links if _is_link(each) else folders if each.is_dir() else copies
            kind.append(each.relative_to(source))
    return Beside(source, tuple(folders), tuple(sorted(copies)), tuple(sorted(links)))


def fill(folder: Path, what: Beside) -> None:
    """Make the working folder, or bring it up to date: what the script has written since stays. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in what.folders:
        (folder / name).mkdir(exist_ok=True)
    for name in what.copies:
        source, target = what.source / name, folder / name
        if target.is_symlink():
            target.unlink()
        if not target.exists() or source.stat().st_mtime_ns > target.stat().st_mtime_ns:
            shutil.copy2(source, target)
    for name in what.links:
        target = folder / name
        if not (target.is_symlink() or target.exists()):
            target.symlink_to(what.source / name)


def fill_with_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Make the working folder of a job that carries its files. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def _is_link(path: Path) -> bool:
    """Whether it is to be a link whatever its size: a link, what is no file, or what `ls` does not show."""
    mode = path.lstat().st_mode
    return path.name.startswith(".") or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or not os.access(path, os.R_OK)


def _measure(path: Path) -> tuple[int, int]:
    """Bytes and number of the files in it; of a folder that is too large, as far as that is clear."""
    files = size = 0
    for each in _below(path) if path.is_dir() else [path]:
        files += 1
        size += 0 if _is_link(each) or each.is_dir() else each.stat().st_size
        if files > WORKING_FILES.value or size > WORKING_BYTES.value:
            break
    return size, files


def _below(path: Path) -> Iterator[Path]:
    """Everything in a folder, folders before what they hold; links are not followed."""
    if _is_link(path) or not path.is_dir():
        return
    for each in path.iterdir():
        if each.name != _CACHE:
            yield each
            yield from _below(each)
