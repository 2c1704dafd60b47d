"""What was last seen of every object that concerns us: lists and watch events in, snapshots out.

Of each object only that is kept which decisions look at. Jobs, pods and children are read into small records when they are seen;
our own resources, which decisions see whole, are kept as JSON text, a third of what the dictionaries would take, and parsed when a
pass looks at them. Objects are filed by the pass that they belong to, so a snapshot touches no other site's.

An older version never replaces a newer one, so the answer to our own write and the watch event that echoes it may come in any
order. A watch may miss a deletion: kopf keeps no list to compare with. So every kind is listed again now and then, and what the
list lacks is gone (`keep`). Nothing here is ever taken as proof that something does not exist: see `reconcile`.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from . import names
from .observed import (
    BatchJob,
    Certificate,
    Child,
    Entry,
    Observed,
    ObservedSite,
    Pod,
    Raw,
    Site,
    SiteJob,
    label,
    owner_uid,
    read_entry,
    read_job,
    read_pod,
    read_site,
    read_site_job,
)
from .routes import Key, keys
from .settings import HUB, SITE

Place = tuple[str, str, str]  # kind, namespace, name
File = tuple[str, str, str]  # UID of the FederatedJob, role, site; for SiteJobs the role is _ASSIGNED
Record = BatchJob | Pod | Site | SiteJob | Entry

_ASSIGNED = "assigned"
_WHOLE = frozenset({names.FEDERATED_JOB.name, names.FEDERATED_SITE.name, names.SITE_JOB.name, names.SITE_POLICY.name})
_STATUS = frozenset({names.JOB.name, names.POD.name})


_READERS: dict[str, Callable[[Raw], Record]] = {
    names.FEDERATED_JOB.name: read_entry, names.FEDERATED_SITE.name: read_site, names.SITE_JOB.name: read_site_job,
    names.JOB.name: read_job, names.POD.name: read_pod,
}  # fmt: skip
CHILDREN = (
    names.SERVICE, names.CONFIG_MAP, names.VOLUME_CLAIM, names.DISRUPTION_BUDGET, names.NETWORK_POLICY,
)  # fmt: skip
WATCHED = (
    names.FEDERATED_SITE, names.SITE_POLICY, names.FEDERATED_JOB, names.SITE_JOB, names.JOB, names.POD,
)  # fmt: skip
POLICY_NAME = "default"
_MOST_TOMBS = 16  # of one Job

R = TypeVar("R", bound=Record)


@dataclass(slots=True)
class _Seen:
    """An object as it was last seen. text: all of it, of our own resources; record: what decisions look at, of some kinds.

    written: a digest of who has written what of it, but for its status; of children only.
    """

    version: int
    uid: str
    owner: str
    digest: str
    written: str
    file: File | None
    keys: tuple[Key, ...]
    text: bytes
    record: Record | None


@dataclass
class Store:
    """Everything seen. jobs_at_once: of one namespace, 0 without a bound. `drifted`: children that others have changed."""

    jobs_at_once: int = 0
    _objects: dict[Place, _Seen] = field(default_factory=dict)
    _of_kind: defaultdict[str, set[Place]] = field(default_factory=lambda: defaultdict(set))
    _files: defaultdict[File, set[Place]] = field(default_factory=lambda: defaultdict(set))
    _drifted: set[Place] = field(default_factory=set)
    _strangers: dict[Key, Child] = field(default_factory=dict)
    _tombs: dict[str, tuple[Pod, ...]] = field(default_factory=dict)  # UID of a Job: its pods that are gone
    certificates: dict[tuple[str, str], Certificate] = field(default_factory=dict)
    _unborn: set[Place] = field(default_factory=set)  # Jobs that should have pods, and have none
    _mounting: set[Place] = field(default_factory=set)  # pods whose volumes are not there yet
    _refused: dict[str, str] = field(default_factory=dict)  # UID of one of these: why, in the words of its events
    departed: set[str] = field(default_factory=set)  # UIDs seen gone, until whoever compares lists forgets them
    unassigned: dict[Key, dict[str, str]] = field(
        default_factory=dict
    )  # of jobs: sites whose SiteJob is refused, and why
    trouble: dict[Key, str] = field(default_factory=dict)  # why the API server refused the last pass, in its words
    forbidden: dict[str, str] = field(default_factory=dict)  # namespaces that do not let us in, and why: `reach`

    # ------------------------------------------------------------------------------------------------ in

    def see(self, kind: str, raw: Raw) -> tuple[Key, ...]:
        """An object as it is now; returns the passes that it concerns, none if this is no news."""
        place = place_of(kind, raw)
        version = int(raw["metadata"].get("resourceVersion") or 0)
        if version <= self._version(place):
            return ()
        old = self._objects.get(place)
        seen = self._put(place, raw, version)
        return (*self._concerned(place, seen), *self._next_in_turn(place, old, seen))

    def wrote(self, kind: str, raw: Raw) -> tuple[Key, ...]:
        """The API server's answer to our own write: nothing has drifted. The watch's echo of it will be no news any more."""
        self._drifted.discard(place_of(kind, raw))
        return self.see(kind, raw)

    def gone(self, kind: str, raw: Raw) -> tuple[Key, ...]:
        """An object was deleted; returns the passes that this concerns."""
        place = place_of(kind, raw)
        self.departed.add(raw["metadata"]["uid"])
        seen = self._objects.get(place)
        if seen is None:
            return keys(kind, raw)
        if seen.uid != raw["metadata"]["uid"]:
            return ()  # another one of this name is there by now
        if kind == names.POD.name and "status" in raw:
            seen.record = read_pod(raw).after(seen.record)  # as it was at the last
        self._drop(place)
        return (*self._concerned(place, seen), *self._next_in_turn(place, seen, None))

    def listed(self, kind: str, raws: Iterable[Raw]) -> tuple[Key, ...]:
        """A page of a list of one kind; returns the passes that something new or changed concerns."""
        found: list[Key] = []
        for raw in raws:
            place = place_of(kind, raw)
            known = self._objects.get(place)
            news = self.see(kind, raw)
            if news and known is not None and known.written != self._objects[place].written:
                self._drifted.add(place)
            found += news
        return tuple(found)

    def keep(self, kind: str, spaces: Iterable[str], listed: set[Place], version: int) -> tuple[Key, ...]:
        """What a complete list lacks is gone, unless it is newer than the list; returns the passes that this concerns.

        spaces: the namespaces that were listed, "" for all; what lies elsewhere stays.
        """
        found: list[Key] = []
        within = set(spaces)
        missing = [p for p in self._of_kind[kind] - listed if "" in within or p[1] in within]
        for place in [p for p in missing if self._objects[p].version <= version]:
            seen = self._objects[place]
            self._drop(place)
            found += (*self._concerned(place, seen), *self._next_in_turn(place, seen, None))
        return tuple(found)

    def late(self, kind: str, raws: Iterable[Raw]) -> list[Raw]:
        """Those of a list that are newer than what was seen of them, and have not been seen to go since."""
        here = [raw for raw in raws if raw["metadata"]["uid"] not in self.departed]
        return [raw for raw in here if int(raw["metadata"]["resourceVersion"]) > self._version(place_of(kind, raw))]

    def stranger(self, key: Key, kind: str, raw: Raw) -> None:
        """An object that the key needs the name of belongs to somebody else."""
        metadata = raw["metadata"]
        self._strangers[key] = Child(kind, metadata["namespace"], metadata["name"], metadata["uid"], "", owned=False)

    def forget_strangers(self) -> None:
        """Look again whether names are still taken."""
        self._strangers.clear()

    @property
    def has_unborn(self) -> bool:
        """Whether there is a Job without a pod, about which its events may say more."""
        return bool(self._unborn)

    @property
    def mounting(self) -> frozenset[str]:
        """UIDs of the pods whose volumes are not there yet."""
        return frozenset(self._objects[place].uid for place in self._mounting)

    def refusals(self, found: Mapping[str, str]) -> tuple[Key, ...]:
        """Why Jobs have no pod and pods no volumes, by their UIDs: all that is known. Returns the passes to which this is news."""
        told: list[Key] = []
        for seen in (self._objects[place] for place in self._unborn | self._mounting):
            if found.get(seen.uid, "") != self._refused.get(seen.uid, ""):
                told += seen.keys
        self._refused = dict(found)
        return tuple(told)

    # ----------------------------------------------------------------------------------------------- out

    def job(self, key: Key) -> Observed | None:
        """Everything about a FederatedJob, None if there is none."""
        place = (names.FEDERATED_JOB.name, key.namespace, key.name)
        if place not in self._objects:
            return None
        raw = self._parse(place)
        uid = raw["metadata"]["uid"]
        server = [p for p in sorted(self._files.get((uid, names.SERVER, ""), ())) if p[1] == key.namespace]
        assigned = sorted(self._files.get((uid, _ASSIGNED, ""), ()))
        wanted = self._wanted(place)
        sites = self._records(Site, (p for p in self._of_kind[names.FEDERATED_SITE.name] if p[2] in wanted))
        stranger = self._strangers.get(key)
        return Observed(
            job=raw,
            server_jobs=self._jobs(server),
            pods=self._pods(server),
            sites={site.name: site for site in sites},
            site_jobs=self._records(SiteJob, assigned),
            children=(*self._children([*server, *assigned], uid), *((stranger,) if stranger else ())),
            certificate=self.certificates.get((key.namespace, names.base(key.name, uid))),
            trouble=self.trouble.get(key, ""),
            unassigned=dict(self.unassigned.get(key, {})),
            ahead=self._ahead(place) if self.jobs_at_once else 0,
            forbidden=dict(self.forbidden),
        )

    def site_job(self, key: Key) -> ObservedSite | None:
        """Everything about a SiteJob, None if there is none."""
        place = (names.SITE_JOB.name, key.namespace, key.name)
        if place not in self._objects:
            return None
        raw = self._parse(place)
        file = (raw["spec"]["job"]["uid"], names.CLIENT, raw["spec"]["site"])
        mine = [p for p in sorted(self._files.get(file, ())) if p[1] == key.namespace]
        policy = (names.SITE_POLICY.name, key.namespace, POLICY_NAME)
        return ObservedSite(
            site_job=raw,
            policy=self._parse(policy) if policy in self._objects else None,
            assigned=self._is_assigned(raw),
            jobs=self._jobs(mine),
            pods=self._pods(mine),
            children=self._children(mine, raw["metadata"]["uid"]),
            certificate=self.certificates.get((key.namespace, key.name)),
            trouble=self.trouble.get(key, ""),
        )

    def all_keys(self) -> list[Key]:
        """A key for every FederatedJob and every SiteJob."""
        controllers = {names.FEDERATED_JOB.name: HUB, names.SITE_JOB.name: SITE}
        return [Key(controller, p[1], p[2]) for kind, controller in controllers.items() for p in self._of_kind[kind]]

    def raws(self, kind: str) -> Iterator[Raw]:
        """Every object of one of our own kinds."""
        return (self._parse(place) for place in list(self._of_kind[kind]))

    def assigned_by(self, job: Key) -> list[Raw]:
        """SiteJobs that name this FederatedJob as theirs."""
        return [self._parse(p) for p in list(self._of_kind[names.SITE_JOB.name]) if job in self._objects[p].keys]

    def sizes(self) -> dict[str, int]:
        """Number of objects of each kind."""
        return {kind: len(places) for kind, places in self._of_kind.items()}

    # ------------------------------------------------------------------------------------------- within

    def _is_assigned(self, site_job: Raw) -> bool:
        """Whether a FederatedJob has this site, whose jobs go to this namespace: then the hub has made it, or would."""
        origin, site, metadata = site_job["spec"]["job"], site_job["spec"]["site"], site_job["metadata"]
        job = (names.FEDERATED_JOB.name, origin["namespace"], origin["name"])
        seen = self._objects.get(job)
        if seen is None or seen.uid != origin["uid"] or site not in self._wanted(job):
            return False
        found = self._records(Site, (p for p in self._of_kind[names.FEDERATED_SITE.name] if p[2] == site))
        place = next((there.place(origin["namespace"]) for there in found), "")
        return (place, names.site_job(origin["name"], origin["uid"], site)) == (metadata["namespace"], metadata["name"])

    def _wanted(self, job: Place) -> frozenset[str]:
        """Names of a FederatedJob's sites."""
        entry = self._objects[job].record
        return entry.sites if isinstance(entry, Entry) else frozenset()

    def _entries(self, namespace: str) -> list[tuple[Entry, Place]]:
        """The FederatedJobs of a namespace, the oldest first."""
        places = [place for place in self._of_kind[names.FEDERATED_JOB.name] if place[1] == namespace]
        found = [(seen.record, place) for place in places if isinstance((seen := self._objects[place]).record, Entry)]
        return sorted(found, key=lambda one: one[0].since)

    def _ahead(self, job: Place) -> int:
        """How many jobs of the namespace hold a place, or wait for one and are older than this."""
        entries = [(entry, place) for entry, place in self._entries(job[1]) if entry.turn]
        before = next((i for i, (_, place) in enumerate(entries) if place == job), len(entries))
        waiting = sum(entry.turn == "waits" for entry, _ in entries[:before])
        return waiting + sum(entry.turn == "holds" and place != job for entry, place in entries)

    def _next_in_turn(self, job: Place, old: _Seen | None, new: _Seen | None) -> tuple[Key, ...]:
        """The passes of those whose turn it may be, since a job of their namespace stands elsewhere than before."""
        if not self.jobs_at_once or _turn_of(old) == _turn_of(new):
            return ()
        waiting = [place for entry, place in self._entries(job[1]) if entry.turn == "waits"]
        return tuple(Key(HUB, *place[1:]) for place in waiting[: self.jobs_at_once])

    def _records(self, kind: type[R], places: Iterable[Place]) -> tuple[R, ...]:
        found = (self._objects[place].record for place in places)
        return tuple(record for record in found if isinstance(record, kind))

    def _jobs(self, places: Iterable[Place]) -> tuple[BatchJob, ...]:
        return tuple(replace(job, refused=self._refused.get(job.uid, "")) for job in self._records(BatchJob, places))

    def _pods(self, places: Collection[Place]) -> tuple[Pod, ...]:
        """Those that are there, and what is remembered of those that are not."""
        there = self._records(Pod, places)
        found = ((pod, self._refused.get(pod.uid, "") if pod.mounting else "") for pod in there)
        known = {pod.uid for pod in there}
        gone = (pod for job in self._records(BatchJob, places) for pod in self._tombs.get(job.uid, ()))
        return (
            *(replace(pod, problem="MountFailed", words=why) if why else pod for pod, why in found),
            *(pod for pod in gone if pod.uid not in known),
        )

    def _children(self, places: Iterable[Place], uid: str) -> tuple[Child, ...]:
        return tuple(
            Child(*place, seen.uid, seen.digest, owned=seen.owner in (uid, ""), drifted=place in self._drifted)
            for place in places
            if place[0] not in _STATUS and (seen := self._objects[place])
        )

    def _concerned(self, place: Place, seen: _Seen) -> tuple[Key, ...]:
        kind, namespace, name = place
        if kind == names.FEDERATED_SITE.name:
            jobs = self._of_kind[names.FEDERATED_JOB.name]
            return tuple(Key(HUB, p[1], p[2]) for p in jobs if name in self._wanted(p))
        if kind == names.SITE_POLICY.name:
            return tuple(Key(SITE, p[1], p[2]) for p in self._of_kind[names.SITE_JOB.name] if p[1] == namespace)
        return seen.keys

    def _put(self, place: Place, raw: Raw, version: int) -> _Seen:
        kind, metadata, reader = place[0], raw["metadata"], _READERS.get(place[0])
        seen = _Seen(
            version=version,
            uid=metadata["uid"],
            owner=owner_uid(raw),
            digest=(metadata.get("annotations") or {}).get(names.HASH_ANNOTATION, ""),
            written=_written(raw) if kind not in _WHOLE | _STATUS else "",
            file=_file(kind, raw),
            keys=keys(kind, raw) if kind not in (names.FEDERATED_SITE.name, names.SITE_POLICY.name) else (),
            text=_text(kind, raw) if kind in _WHOLE else b"",
            record=reader(raw) if reader is not None else None,
        )
        old = self._objects.get(place)
        if old is not None and isinstance(seen.record, Pod):
            seen.record = seen.record.after(old.record)
        if old is not None and old.file is not None:
            self._take_out(place, old.file)
        self._objects[place] = seen
        self._of_kind[kind].add(place)
        self._unborn.discard(place)
        self._mounting.discard(place)
        match seen.record:
            case BatchJob(suspended=True):
                self._tombs.pop(seen.uid, None)  # pods that its queue has taken back
            case BatchJob(unborn=True, leaving=False):
                self._unborn.add(place)
            case Pod(mounting=True):
                self._mounting.add(place)
        if seen.file is not None:
            self._files[seen.file].add(place)
        return seen

    def _drop(self, place: Place) -> None:
        seen = self._objects.pop(place, None)
        self._of_kind[place[0]].discard(place)
        self._drifted.discard(place)
        self._unborn.discard(place)
        self._mounting.discard(place)
        if seen is not None and seen.file is not None:
            self._take_out(place, seen.file)
            self._tombs.pop(seen.uid, None)
            if isinstance(seen.record, Pod):
                self._bury(seen.record, seen.owner, seen.file)

    def _bury(self, pod: Pod, owner: str, file: File) -> None:
        """Remember a pod that is gone while its Job is there: a Job may say that it failed after its pod is no more."""
        job = next((job for job in self._records(BatchJob, self._files.get(file, ())) if job.uid == owner), None)
        if job is not None and not job.suspended:
            self._tombs[owner] = (*self._tombs.get(owner, ()), pod.gone())[-_MOST_TOMBS:]

    def _take_out(self, place: Place, file: File) -> None:
        self._files[file].discard(place)
        if not self._files[file]:
            del self._files[file]

    def _parse(self, place: Place) -> Raw:
        found: Raw = json.loads(zlib.decompress(self._objects[place].text))
        return found

    def _version(self, place: Place) -> int:
        seen = self._objects.get(place)
        return -1 if seen is None else seen.version


def place_of(kind: str, raw: Raw) -> Place:
    """Where an object is, as the store files it."""
    return kind, raw["metadata"].get("namespace", ""), raw["metadata"]["name"]


def _turn_of(job: _Seen | None) -> str:
    return job.record.turn if job is not None and isinstance(job.record, Entry) else ""


def _file(kind: str, raw: Raw) -> File | None:
    """Where an object belongs; None if to no job of ours."""
    uid = label(raw, names.UID_LABEL)
    if not uid:
        return None
    if kind == names.SITE_JOB.name:
        return uid, _ASSIGNED, ""
    return uid, label(raw, names.ROLE_LABEL), label(raw, names.SITE_LABEL)


def _written(raw: Raw) -> str:
    """The API server's record of who has written which fields, and when: a change of it that is not of the status is a drift."""
    entries = raw["metadata"].get("managedFields") or ()
    return names.digest(
        json.dumps([entry for entry in entries if entry.get("subresource") != "status"], sort_keys=True)
    )


def _text(kind: str, raw: Raw) -> bytes:
    """The whole object, but not who wrote which field."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    kept = {
        "apiVersion": raw.get("apiVersion"), "kind": kind, "metadata": metadata,
        "spec": raw.get("spec") or {}, "status": raw.get("status") or {},
    }  # fmt: skip
    return zlib.compress(json.dumps(kept, separators=(",", ":")).encode(), 1)
