"""A workflow's state on disk, between rounds: trees of tensors as safetensors files, the rest in one JSON manifest.

The manifest is renamed into place last, so there is always exactly one valid state; files that it does not name are removed
afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from .errors import StateError
from .stored import Stored, open_stored, stored_form, write, write_whole

VERSION = 1
_MANIFEST = "checkpoint.json"


def save(folder: Path, state: Any, running_seconds: float, first: Callable[[], None] = lambda: None) -> None:
    """Write `state`, a frozen dataclass of trees and JSON values; computed trees are evaluated here, in one pass.

    running_seconds: how long the job has run, over all its processes. first: called when the trees are written, before the
    state becomes the valid one. Raises OSError when the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {}
    trees: dict[str, dict[str, str]] = {}
    for f in fields(state):
        value = getattr(state, f.name)
        if hasattr(value, "layout"):
            stored = _store(folder, f"{f.name}-{state.round:06d}.safetensors", value)
            trees[f.name] = {"file": stored.path.name, "digest": stored.digest}
        else:
            plain[f.name] = value
    first()
    manifest = {"version": VERSION, "runningSeconds": round(running_seconds, 3), "plain": plain, "trees": trees}
    write_whole(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
    keep = {t["file"] for t in trees.values()} | {_MANIFEST}
    for path in folder.iterdir():
        if path.is_file() and path.name not in keep:
            path.unlink()


def _store(folder: Path, name: str, tree: Any) -> Stored:
    """The tree in a file of this folder: itself if it is there already (a state that only moved its counter on)."""
    at = stored_form(tree)
    if at is not None and at.path.parent == folder:
        return at
    return write(folder / name, tree)


def load(folder: Path, kind: type[Any]) -> tuple[Any, float] | None:
    """The saved state as a `kind`, and its running seconds; None if there is none.

    Raises StateError, naming the file, if anything is missing, truncated, altered or of another version.
    """
    path = folder / _MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["version"] != VERSION:
            raise StateError(f"{path}: version {manifest['version']}, this program reads {VERSION}")
        trees = {name: open_stored(folder / t["file"], t["digest"]) for name, t in manifest["trees"].items()}
        return kind(**manifest["plain"], **trees), float(manifest["runningSeconds"])
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise StateError(f"{path}: not a checkpoint of {kind.__module__}: {e!r}") from e
