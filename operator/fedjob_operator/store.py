"""What was last seen of every object that concerns us: lists and watch events in, snapshots out.

Objects are kept as JSON text, a third of what the dictionaries would take, and parsed when a pass looks at them. Of children that
no decision looks into only the metadata is kept. An older version never replaces a newer one, so the answer to our own write
and the watch event that echoes it may come in any order.

A watch may miss a deletion: kopf keeps no list to compare with. So every kind is listed again now and then, and what the list
lacks is gone (`replace`). Nothing here is ever taken as proof that something does not exist: see `reconcile`.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import names
from .observed import (
    Certificate,
    Child,
    Observed,
    ObservedSite,
    Raw,
    label,
    owner_uid,
    read_job,
    read_pod,
    read_site,
    read_site_job,
)
from .routes import Key, keys
from .settings import HUB, SITE

Place = tuple[str, str, str]  # kind, namespace, name

_WHOLE = frozenset({names.FEDERATED_JOB.name, names.FEDERATED_SITE.name, names.SITE_JOB.name, names.SITE_POLICY.name})
_STATUS = frozenset({names.JOB.name, names.POD.name})
CHILDREN = (
    names.SERVICE, names.CONFIG_MAP, names.VOLUME_CLAIM, names.DISRUPTION_BUDGET, names.NETWORK_POLICY,
)  # fmt: skip
WATCHED = (
    names.FEDERATED_SITE, names.SITE_POLICY, names.FEDERATED_JOB, names.SITE_JOB, names.JOB, names.POD,
)  # fmt: skip
POLICY_NAME = "default"


@dataclass
class Store:
    """Everything seen. `drifted`: children that changed though we did not write them."""

    _objects: dict[Place, bytes] = field(default_factory=dict)
    _of_kind: defaultdict[str, set[Place]] = field(default_factory=lambda: defaultdict(set))
    _versions: dict[Place, int] = field(default_factory=dict)
    _by_job: defaultdict[str, set[Place]] = field(default_factory=lambda: defaultdict(set))
    _uid_of: dict[Place, str] = field(default_factory=dict)
    _drifted: set[Place] = field(default_factory=set)
    _strangers: dict[Key, Child] = field(default_factory=dict)
    certificates: dict[tuple[str, str], Certificate] = field(default_factory=dict)
    trouble: dict[Key, str] = field(default_factory=dict)  # why the API server refused the last pass, in its words

    # ------------------------------------------------------------------------------------------------ in

    def see(self, kind: str, raw: Raw) -> tuple[Key, ...]:
        """An object as it is now; returns the passes that it concerns, none if this is no news."""
        place = _place(kind, raw)
        version = int(raw["metadata"].get("resourceVersion") or 0)
        if version <= self._versions.get(place, -1):
            return ()
        self._put(place, raw, version)
        return self._concerned(kind, raw)

    def wrote(self, kind: str, raw: Raw) -> tuple[Key, ...]:
        """The API server's answer to our own write: nothing has drifted. The watch's echo of it will be no news any more."""
        self._drifted.discard(_place(kind, raw))
        return self.see(kind, raw)

    def gone(self, kind: str, raw: Raw) -> tuple[Key, ...]:
        """An object was deleted; returns the passes that this concerns."""
        place = _place(kind, raw)
        if self._uid(place) not in ("", raw["metadata"]["uid"]):
            return ()  # another one of this name is there by now
        self._drop(place)
        return self._concerned(kind, raw)

    def replace(self, kind: str, raws: Iterable[Raw], version: int) -> tuple[Key, ...]:
        """A complete list of one kind; returns the passes that something new, changed or missing concerns.

        version: of the list. What is newer than that may be missing in the list and is not gone.
        """
        found: list[Key] = []
        listed = set()
        for raw in raws:
            place = _place(kind, raw)
            listed.add(place)
            known = self._versions.get(place)
            news = self.see(kind, raw)
            if news and known is not None and kind not in _WHOLE | _STATUS:
                self._drifted.add(place)
            found += news
        for place in [p for p in self._of_kind[kind] - listed if self._versions[p] <= version]:
            raw = self._parse(place)
            self._drop(place)
            found += self._concerned(kind, raw)
        return tuple(found)

    def behind(self, kind: str, raws: Iterable[Raw]) -> int:
        """How many objects of a list are newer than what was seen of them."""
        return sum(int(raw["metadata"]["resourceVersion"]) > self._versions.get(_place(kind, raw), -1) for raw in raws)

    def stranger(self, key: Key, kind: str, raw: Raw) -> None:
        """An object that the key needs the name of belongs to somebody else."""
        metadata = raw["metadata"]
        self._strangers[key] = Child(kind, metadata["namespace"], metadata["name"], metadata["uid"], "", owned=False)

    def forget_strangers(self) -> None:
        """Look again whether names are still taken."""
        self._strangers.clear()

    # ----------------------------------------------------------------------------------------------- out

    def job(self, key: Key) -> Observed | None:
        """Everything about a FederatedJob, None if there is none."""
        place = (names.FEDERATED_JOB.name, key.namespace, key.name)
        if place not in self._objects:
            return None
        raw = self._parse(place)
        uid = raw["metadata"]["uid"]
        mine = [self._parse(p) for p in sorted(self._by_job[uid])]
        server = [
            r
            for r in mine
            if label(r, names.ROLE_LABEL) == names.SERVER and r["metadata"]["namespace"] == key.namespace
        ]
        wanted = {site["name"] for site in (raw.get("spec") or {}).get("sites") or ()}
        sites = [read_site(self._parse(p)) for p in self._of_kind[names.FEDERATED_SITE.name] if p[2] in wanted]
        stranger = self._strangers.get(key)
        return Observed(
            job=raw,
            server_jobs=tuple(read_job(r) for r in server if r["kind"] == names.JOB.name),
            pods=tuple(read_pod(r) for r in server if r["kind"] == names.POD.name),
            sites={site.name: site for site in sites},
            site_jobs=tuple(read_site_job(r) for r in mine if r["kind"] == names.SITE_JOB.name),
            children=(*self._children([*server, *(r for r in mine if r["kind"] == names.SITE_JOB.name)], uid),
                      *((stranger,) if stranger else ())),
            certificate=self.certificates.get((key.namespace, names.base(key.name, uid))),
            trouble=self.trouble.get(key, ""),
        )  # fmt: skip

    def site_job(self, key: Key) -> ObservedSite | None:
        """Everything about a SiteJob, None if there is none."""
        place = (names.SITE_JOB.name, key.namespace, key.name)
        if place not in self._objects:
            return None
        raw = self._parse(place)
        job, site = raw["spec"]["job"], raw["spec"]["site"]
        places = sorted(p for p in self._by_job[job["uid"]] if p[1] == key.namespace and p[0] != names.SITE_JOB.name)
        mine = [
            r for r in map(self._parse, places)
            if label(r, names.ROLE_LABEL) == names.CLIENT and label(r, names.SITE_LABEL) == site
        ]  # fmt: skip
        policy = (names.SITE_POLICY.name, key.namespace, POLICY_NAME)
        return ObservedSite(
            site_job=raw,
            policy=self._parse(policy) if policy in self._objects else None,
            jobs=tuple(read_job(r) for r in mine if r["kind"] == names.JOB.name),
            pods=tuple(read_pod(r) for r in mine if r["kind"] == names.POD.name),
            children=self._children(mine, raw["metadata"]["uid"]),
            certificate=self.certificates.get((key.namespace, key.name)),
            trouble=self.trouble.get(key, ""),
        )

    def all_keys(self) -> list[Key]:
        """A key for every FederatedJob and every SiteJob."""
        controllers = {names.FEDERATED_JOB.name: HUB, names.SITE_JOB.name: SITE}
        return [Key(controller, p[1], p[2]) for kind, controller in controllers.items() for p in self._of_kind[kind]]

    def raws(self, kind: str) -> Iterator[Raw]:
        """Every object of a kind."""
        return (self._parse(place) for place in list(self._of_kind[kind]))

    def sizes(self) -> dict[str, int]:
        """Number of objects of each kind."""
        return {kind: len(places) for kind, places in self._of_kind.items()}

    # ------------------------------------------------------------------------------------------- within

    def _children(self, raws: Iterable[Raw], uid: str) -> tuple[Child, ...]:
        return tuple(
            Child(
                kind=raw["kind"],
                namespace=raw["metadata"]["namespace"],
                name=raw["metadata"]["name"],
                uid=raw["metadata"]["uid"],
                digest=(raw["metadata"].get("annotations") or {}).get(names.HASH_ANNOTATION, ""),
                owned=owner_uid(raw) in (uid, ""),
                drifted=_place(raw["kind"], raw) in self._drifted,
            )
            for raw in raws
            if raw["kind"] not in _STATUS
        )

    def _concerned(self, kind: str, raw: Raw) -> tuple[Key, ...]:
        if kind == names.FEDERATED_SITE.name:
            name = raw["metadata"]["name"]
            jobs = (
                r for r in self.raws(names.FEDERATED_JOB.name) if any(s["name"] == name for s in r["spec"]["sites"])
            )
            return tuple(key for job in jobs for key in keys(names.FEDERATED_JOB.name, job))
        if kind == names.SITE_POLICY.name:
            namespace = raw["metadata"]["namespace"]
            return tuple(Key(SITE, p[1], p[2]) for p in self._of_kind[names.SITE_JOB.name] if p[1] == namespace)
        return keys(kind, raw)

    def _put(self, place: Place, raw: Raw, version: int) -> None:
        self._objects[place] = zlib.compress(json.dumps(_pruned(place[0], raw), separators=(",", ":")).encode(), 1)
        self._versions[place] = version
        self._of_kind[place[0]].add(place)
        uid = label(raw, names.UID_LABEL)
        if uid:
            self._by_job[uid].add(place)
            self._uid_of[place] = uid

    def _drop(self, place: Place) -> None:
        self._objects.pop(place, None)
        self._versions.pop(place, None)
        self._of_kind[place[0]].discard(place)
        self._drifted.discard(place)
        uid = self._uid_of.pop(place, "")
        if uid and place in self._by_job.get(uid, ()):
            self._by_job[uid].discard(place)
            if not self._by_job[uid]:
                del self._by_job[uid]

    def _parse(self, place: Place) -> Raw:
        found: Raw = json.loads(zlib.decompress(self._objects[place]))
        return found

    def _uid(self, place: Place) -> str:
        return str(self._parse(place)["metadata"]["uid"]) if place in self._objects else ""


def _place(kind: str, raw: Raw) -> Place:
    return kind, raw["metadata"].get("namespace", ""), raw["metadata"]["name"]


def _pruned(kind: str, raw: Raw) -> dict[str, Any]:
    """What decisions look at: not who wrote which field, not what we wrote ourselves."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    kept: dict[str, Any] = {"apiVersion": raw.get("apiVersion"), "kind": kind, "metadata": metadata}
    spec = raw.get("spec") or {}
    if kind in _WHOLE:
        kept["spec"], kept["status"] = spec, raw.get("status") or {}
    elif kind in _STATUS:
        kept["spec"] = {key: spec[key] for key in ("suspend", "nodeName") if key in spec}
        kept["status"] = raw.get("status") or {}
    return kept
