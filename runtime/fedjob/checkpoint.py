"""A workflow's state on disk, between rounds: trees of tensors as safetensors files, the rest in one JSON manifest.

Theory of operation
-------------------
A state must survive two kinds of death. A process that is killed leaves behind whatever it has written: so a manifest that
is renamed into place makes the state valid at once, and the next round begins. A machine that loses its power leaves behind
what the disk has: forcing a large model there takes longer than a round, so it happens beside the next rounds, and a second
manifest names the last state for which it is done. Until there is one, each state is forced at once. `load` takes the first,
or the second if the first is damaged: then some rounds run again, to the same bytes. Files that neither names are removed.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from blake3 import blake3

from .errors import StateError
from .files import make_folder, sync_file, sync_folder
from .stored import Stored, open_stored, retire, stored_form, write, write_whole

VERSION = 2
_NEWEST, _DURABLE = "checkpoint.json", "durable.json"

log = logging.getLogger(__name__)


def save(
    folder: Path,
    state: Any,
    running_seconds: float,
    first: Callable[[], None] = lambda: None,
    spares: Path | None = None,
    also: Iterable[Path] = (),
) -> None:
    """Write `state`, a frozen dataclass of trees and JSON values; computed trees are evaluated here, in one pass.

    running_seconds: how long the job has run, over all its processes. first: called when the trees are written, before the
    state becomes the valid one. spares: see `stored.retire`. also: files that are forced to the disk where the state is.
    Raises OSError when the disk refuses.
    """
    make_folder(folder)
    plain: dict[str, Any] = {}
    trees: dict[str, dict[str, str]] = {}
    for f in fields(state):
        value = getattr(state, f.name)
        if hasattr(value, "layout"):
            stored = _store(folder, f"{f.name}-{state.round:06d}.safetensors", value, spares)
            trees[f.name] = {"file": stored.path.name, "digest": stored.digest}
        else:
            plain[f.name] = value
    first()
    known = (folder / _DURABLE).exists()
    if not known:  # a power cut would leave nothing to go back to
        _force(folder, [tree["file"] for tree in trees.values()], also)
    manifest = {"version": VERSION, "runningSeconds": round(running_seconds, 3), "plain": plain, "trees": trees}
    text = json.dumps({**manifest, "check": _check(manifest)}, indent=1).encode()
    write_whole(folder / _NEWEST, text, durable=not known)


def _check(manifest: Mapping[str, Any]) -> str:
    """Digest of a manifest without its check: a flipped bit in a round's number would be a valid state of another round."""
    return blake3(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _store(folder: Path, name: str, tree: Any, spares: Path | None) -> Stored:
    """The tree in a file of this folder: itself if it is there already (a state that only moved its counter on)."""
    at = stored_form(tree)
    if at is not None and at.path.parent == folder:
        return at
    return write(folder / name, tree, spares)


def make_durable(folder: Path, also: Iterable[Path] = (), spares: Path | None = None) -> None:
    """Force the newest state to the disk, and `also` these files; then let go of what it replaces. Raises OSError.

    spares: where to keep what is let go. May take as long as the disk needs for a model; a state that is saved meanwhile is left for the next call.
    """
    text = (folder / _NEWEST).read_bytes()
    _force(folder, _files(text), also)
    write_whole(folder / _DURABLE, text)
    newest = (folder / _NEWEST).read_bytes()
    keep = {*_files(text), *_files(newest)}
    # One of a later round belongs to the state that is being saved at this moment.
    at = json.loads(newest)["plain"]["round"]
    found = [p for p in folder.glob("*.safetensors") if p.name not in keep]
    old = [p for p in found if int(p.stem.rpartition("-")[2]) <= at]
    if spares is not None:
        retire(old, spares)
    for path in old:
        path.unlink(missing_ok=True)


def _force(folder: Path, names: Iterable[str], also: Iterable[Path]) -> None:
    """Files and their names are on the disk before what names them is."""
    paths = [*(folder / name for name in names), *also]
    for path in paths:
        sync_file(path)
    for place in {folder, *(path.parent for path in paths)}:
        sync_folder(place)


def _files(manifest: bytes) -> list[str]:
    return [tree["file"] for tree in json.loads(manifest)["trees"].values()]


def tidy(folder: Path) -> None:
    """Remove the half-written files of a process that was killed. Called before anything is saved."""
    for path in folder.glob(".*"):
        path.unlink()


class Keeper:
    """Makes the newest state durable, again and again, on a thread of its own, while rounds go on.

    also, spares: as `make_durable`.
    """

    def __init__(self, folder: Path, also: Iterable[Path] = (), spares: Path | None = None) -> None:
        self._folder, self._also, self._spares = folder, tuple(also), spares
        self._due = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def saved(self) -> None:
        """A newer state is there."""
        self._due.set()

    def close(self, seconds: float) -> None:
        """Return when the newest state is on the disk, or after so long."""
        self._over = True
        self._due.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        over = False
        while not over:
            self._due.wait()
            self._due.clear()
            over = self._over
            try:
                make_durable(self._folder, [path for path in self._also if path.exists()], self._spares)
            except OSError as e:  # the last durable state stays; the next round tries again
                log.warning("the state is not forced to the disk yet: %s", e)


def load(folder: Path, kind: type[Any], known: Callable[[Any], bool] = lambda _: True) -> tuple[Any, float] | None:
    """The newest state that is whole as a `kind`, and its running seconds; None if there is none.

    known: whether all that belongs to a state is there; a power cut may leave one without, and then the last is taken that
    was forced to the disk.
    Raises StateError, naming the file, if anything is missing, truncated, altered or of another version, and OSError when
    the disk refuses.
    """
    newest, durable = folder / _NEWEST, folder / _DURABLE
    if not newest.exists() and not durable.exists():
        return None
    try:
        found = _load(newest, kind)
        if known(found[0]) or not durable.exists():
            return found
        why = "it is not known to the history"
    except StateError as e:
        if not durable.exists():
            raise
        why = str(e)
    log.warning("the newest state is damaged, going back to the last one that was forced to the disk: %s", why)
    found = _load(durable, kind)
    write_whole(newest, durable.read_bytes(), durable=False)  # now it is the newest
    return found


def _load(path: Path, kind: type[Any]) -> tuple[Any, float]:
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["version"] != VERSION:
            raise StateError(f"{path}: version {manifest['version']}, this program reads {VERSION}")
        if manifest.pop("check", None) != _check(manifest):
            raise StateError(f"{path}: altered: its check does not fit what it says")
        trees = {name: open_stored(path.parent / t["file"], t["digest"]) for name, t in manifest["trees"].items()}
        return kind(**manifest["plain"], **trees), float(manifest["runningSeconds"])
    except OSError as e:
        raise StateError(f"{path}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise StateError(f"{path}: not a checkpoint of {kind.__module__}: {e!r}") from e
