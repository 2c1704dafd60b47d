"""What one pass wants done: data, carried out by `reconcile`.  PURE"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Create:
    """Make an object once; its spec cannot be changed afterwards.

    alone: labels of pods none of which may be alive when it is made, as the API server says at that moment.
    """

    manifest: Manifest
    alone: Mapping[str, str] | None = None

    def the_first(self) -> Create:
        """The first run of all: the status that counts it was written over one that counts none, so nobody can be alive."""
        return Create(self.manifest)


@dataclass(frozen=True)
class Delete:
    """Delete an object, if it is still the one with this UID."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Issue:
    """Put a fresh certificate into the Secret `manifest`, which lacks only its data.

    site: whose; None: the server's. dns_names: the server's names.
    """

    manifest: Manifest
    job_uid: str
    site: str | None
    dns_names: tuple[str, ...]
    lifetime: timedelta


@dataclass(frozen=True)
class Event:
    """Something that has happened, for `kubectl describe`. warning: somebody should look."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Plan:
    """status: the whole status that the operator owns, None: as it is. again: seconds until the next pass, at the latest.

    The order is that of the fields: a status that counts a new run is on record before the run begins, so a crash in
    between repeats the step and never counts it twice; what is to go goes last. `events`, `issue` and `apply` are one step.
    """

    status: Manifest | None = None
    events: tuple[Event, ...] = ()
    issue: tuple[Issue, ...] = ()
    apply: tuple[Manifest, ...] = ()
    create: tuple[Create, ...] = ()
    delete: tuple[Delete, ...] = ()
    again: float | None = None


NOTHING = Plan()


def with_status(raw: Mapping[str, Any], status: Manifest) -> Manifest:
    """A status for an object, to be applied only if it is still the very version that `raw` is."""
    metadata = {part: raw["metadata"][part] for part in ("name", "namespace", "uid", "resourceVersion")}
    return {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata, "status": status}


def digest(manifest: Manifest) -> str:
    """A digest of what we want an object to be; it travels in an annotation of the object."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
