"""A world in memory for the laws of the decisions: objects with versions and owners, and hands that play users and kubelets.

It keeps the rules of an API server that the decisions rest on (create once, delete by UID, status apart from spec) and nothing
else. The same behaviour against a real API server is in tests/cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedjob_operator import names, pki
from fedjob_operator.desired import job as hub
from fedjob_operator.desired import site_job as site
from fedjob_operator.desired.approval import assignment_digest
from fedjob_operator.observed import read_pod
from fedjob_operator.plan import Plan
from fedjob_operator.routes import Key
from fedjob_operator.settings import HUB, SITE, Settings
from fedjob_operator.store import Store
from fedjob_operator.trust import Trust

SETTINGS = Settings(
    namespace="fedjob-system", runtime_image="fedjob-runtime:test", identity="test", hub_url="https://hub.test:8443"
)
START = datetime(2030, 1, 1, tzinfo=UTC)
AUTHORITY = pki.create("fedjob.local", START - timedelta(days=1), timedelta(days=3650))
NAMESPACE = "team-a"
OWNER = "batch.kubernetes.io/controller-uid"


@dataclass
class World:
    """The objects of a cluster, and the time."""

    now: datetime = START
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    settings: Settings = SETTINGS
    authority: pki.Authority = AUTHORITY
    version: int = 0
    writes: list[str] = field(default_factory=list)

    # ---------------------------------------------------------------------------------- what people do

    def add_site(self, name: str, *, approved: bool = True, namespace: str = "") -> None:
        """A FederatedSite whose jobs run in its namespace, "" for that of the job."""
        spec: dict[str, Any] = {"type": "Local", "approved": approved, "allowedNamespaces": [NAMESPACE]}
        if namespace:
            spec["local"] = {"namespace": namespace}
        self.put(names.FEDERATED_SITE, "fedjob-system", name, spec=spec)

    def allow_all(self, namespace: str = NAMESPACE) -> None:
        """A SitePolicy that lets anything run."""
        rule = {
            "name": "all",
            "images": [{"repository": "fedjob-runtime"}],
            "inlineCode": "Allow",
            "approval": "Automatic",
            "env": [],
        }
        self.put(names.SITE_POLICY, namespace, "default", spec={"rules": [rule]})

    def submit(self, name: str = "digits", **changes: Any) -> Key:
        """A FederatedJob; changes: of its spec."""
        spec = {
            "workflow": {"type": "FedAvg", "rounds": 3},
            "trainer": {"files": {"train.py": "print()"}},
            "sites": [{"name": "a"}, {"name": "b"}],
            **changes,
        }
        self.put(names.FEDERATED_JOB, NAMESPACE, name, spec=spec)
        return Key(HUB, NAMESPACE, name)

    def edit(self, key: Key, **changes: Any) -> None:
        """Change the spec of a job."""
        raw = self.objects[(names.FEDERATED_JOB.name, key.namespace, key.name)]
        self.put(names.FEDERATED_JOB, key.namespace, key.name, spec={**raw["spec"], **changes})

    def approve_all(self) -> None:
        """A site's administrator says yes to each assignment as it is."""
        for raw in [raw for (kind, _, _), raw in self.objects.items() if kind == names.SITE_JOB.name]:
            approval = {"decision": "Approved", "digest": assignment_digest(raw["spec"])}
            place = raw["metadata"]["namespace"], raw["metadata"]["name"]
            self.put(names.SITE_JOB, *place, spec={**raw["spec"], "approval": approval})

    def upgrade_the_hub(self, image: str) -> None:
        """Another authority is introduced, and another image is the runtime's."""
        self.authority = pki.introduce(self.authority, self.now, timedelta(days=3650))
        self.settings = replace(self.settings, runtime_image=image)

    # ----------------------------------------------------------------------------- what the cluster does

    def put(self, kind: names.Kind, namespace: str, name: str, **parts: Any) -> dict[str, Any]:
        """Make or change an object."""
        place = (kind.name, namespace, name)
        old = self.objects.get(place)
        self.version += 1
        metadata = {
            **(parts.pop("metadata", None) or (old or {}).get("metadata") or {}),
            "name": name,
            "namespace": namespace,
            "uid": old["metadata"]["uid"] if old else f"uid-{self.version}",
            "resourceVersion": str(self.version),
            "generation": (old["metadata"]["generation"] if old else 0) + ("spec" in parts),
        }
        raw = {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            **(old or {}),
            **copy.deepcopy(parts),
            "metadata": metadata,
        }
        self.objects[place] = raw
        self.store.see(kind.name, raw)
        return raw

    def remove(self, place: tuple[str, str, str]) -> None:
        """Delete an object and what it owns; pods of a Job go with it only when `kill` is called for them."""
        raw = self.objects.pop(place, None)
        if raw is None:
            return
        self.store.gone(place[0], raw)
        uid = raw["metadata"]["uid"]
        for owned, other in list(self.objects.items()):
            owners = other["metadata"].get("ownerReferences") or ()
            if owned[0] != names.POD.name and any(owner["uid"] == uid for owner in owners):
                self.remove(owned)

    def pods(self, role: str) -> list[dict[str, Any]]:
        """Pods of a role, alive or not."""
        return [
            raw for (kind, _, _), raw in self.objects.items()
            if kind == names.POD.name and raw["metadata"]["labels"][names.ROLE_LABEL] == role
        ]  # fmt: skip

    def jobs(self, role: str) -> list[dict[str, Any]]:
        """Jobs of a role."""
        return [
            raw for (kind, _, _), raw in self.objects.items()
            if kind == names.JOB.name and raw["metadata"]["labels"][names.ROLE_LABEL] == role
        ]  # fmt: skip

    def start_pods(self) -> None:
        """The Job controller and the kubelet: every unfinished Job without a pod gets one, and it runs."""
        owned = {pod["metadata"]["labels"][OWNER] for pod in (*self.pods(names.SERVER), *self.pods(names.CLIENT))}
        for raw in [*self.jobs(names.SERVER), *self.jobs(names.CLIENT)]:
            if not self.finished(raw) and raw["metadata"]["uid"] not in owned:
                self.add_pod(raw, running())

    def add_pod(self, job: dict[str, Any], status: dict[str, Any]) -> None:
        """A pod of a Job."""
        metadata = job["metadata"]
        labels = {**metadata["labels"], OWNER: metadata["uid"]}
        self.put(
            names.POD,
            metadata["namespace"],
            f"{metadata['name']}-{self.version}",
            metadata={
                "labels": labels,
                "ownerReferences": [{"kind": "Job", "uid": metadata["uid"], "controller": True}],
            },
            status=status,
        )

    def script(self, site: str) -> dict[str, Any]:
        """The live pod of a site."""
        pods = (pod for pod in self.pods(names.CLIENT) if pod["metadata"]["labels"][names.SITE_LABEL] == site)
        return next(pod for pod in pods if pod["status"]["phase"] == "Running")

    @staticmethod
    def finished(job: dict[str, Any]) -> bool:
        """Whether a Job is over."""
        return bool((job.get("status") or {}).get("conditions"))

    def end_pod(self, pod: dict[str, Any], code: int, words: str = "", *, disrupted: bool = False) -> None:
        """A pod's container ends, and its Job notices."""
        metadata = pod["metadata"]
        status = ended(code, words, disrupted=disrupted, container=metadata["labels"][names.ROLE_LABEL])
        self.put(names.POD, metadata["namespace"], metadata["name"], status=status)
        for job in [*self.jobs(names.SERVER), *self.jobs(names.CLIENT)]:
            if job["metadata"]["uid"] != metadata["labels"][OWNER]:
                continue
            kind = "Complete" if code == 0 else "Failed"
            condition = {
                "type": kind,
                "status": "True",
                "reason": "Test",
                "message": "",
                "lastTransitionTime": stamp(self.now),
            }
            self.put(names.JOB, metadata["namespace"], job["metadata"]["name"], status={"conditions": [condition]})

    def report(self, key: Key, state: str = "Running", completed: int = 0, **more: Any) -> None:
        """The server's report, as the endpoint applies it. more: further fields of status.progress."""
        raw = self.objects[(names.FEDERATED_JOB.name, key.namespace, key.name)]
        progress = {"state": state, "completedRounds": completed, "totalRounds": 3, **more}
        if completed:
            progress["lastRoundTime"] = stamp(self.now)
        status = {**(raw.get("status") or {}), "progress": progress}
        sites = {entry["name"]: entry for entry in status.get("sites") or ()}
        status["sites"] = [
            {**sites.get(s["name"], {"name": s["name"]}), "training": "Training"} for s in raw["spec"]["sites"]
        ]
        self.put(names.FEDERATED_JOB, key.namespace, key.name, status=status)

    def orphans_die(self) -> None:
        """Pods whose Job is gone end at last."""
        jobs = {job["metadata"]["uid"] for job in (*self.jobs(names.SERVER), *self.jobs(names.CLIENT))}
        for pod in [*self.pods(names.SERVER), *self.pods(names.CLIENT)]:
            metadata = pod["metadata"]
            if metadata["labels"][OWNER] not in jobs:
                self.remove((names.POD.name, metadata["namespace"], metadata["name"]))

    # ---------------------------------------------------------------------------------- what the operator does

    @property
    def trust(self) -> Trust:
        """Whom the certificates are from."""
        return self.authority.trust

    def plan(self, key: Key) -> Plan:
        """The decision for a key, now."""
        if key.controller == HUB:
            seen = self.store.job(key)
            return hub.desired_state(seen, self.now, self.settings, self.trust) if seen else Plan()
        there = self.store.site_job(key)
        return site.desired_state(there, self.now, self.settings, self.trust) if there else Plan()

    def steps(self, key: Key, plan: Plan) -> Iterator[Callable[[], None]]:
        """The calls of the plan, in the order in which they are made; a crash may come before each of them."""
        kind = names.FEDERATED_JOB if key.controller == HUB else names.SITE_JOB
        if plan.status is not None:
            yield lambda: self._status(kind, key, plan.status or {})
        for issue in plan.issue:
            yield lambda issue=issue: self._issue(issue)
        for manifest in plan.apply:
            yield lambda manifest=manifest: self._apply(manifest)
        for create in plan.create:
            yield lambda create=create: self._create(create)
        for target in plan.delete:
            yield lambda target=target: self._delete(target)

    def one_pass(self, key: Key, *, crash_after: int | None = None) -> int:
        """Decide and act, up to a crash; returns the number of calls made."""
        done = 0
        for call in self.steps(key, self.plan(key)):
            if crash_after is not None and done >= crash_after:
                break
            call()
            done += 1
        return done

    def next_run(self, later: timedelta) -> None:
        """What has ended is noticed; later, when its pause is over, the next run begins."""
        self.settle()
        self.now += later
        self.settle()
        self.start_pods()
        self.settle()

    def always_end(self, seconds: float, code: int, *, disrupted: bool = False) -> None:
        """Every script ends so as soon as it runs, for so long; time jumps from one moment that a decision asks for to the next."""
        over = self.now + timedelta(seconds=seconds)
        while self.now < over:
            for raw in self.pods(names.CLIENT):
                if raw["status"]["phase"] == "Running":
                    self.end_pod(raw, code, disrupted=disrupted)
            self.settle()
            waits = [again for key in self.store.all_keys() if (again := self.plan(key).again) is not None]
            self.now += timedelta(seconds=min(waits))
            self.settle()
            self.start_pods()

    def settle(self, most: int = 40) -> int:
        """Passes over everything until none has anything to do; returns how many rounds that took."""
        for turn in range(most):
            if sum(self.one_pass(key) for key in self.store.all_keys()) == 0:
                return turn
        raise AssertionError("does not settle")

    def up(self, key: Key) -> None:
        """The server runs, the sites train, a report has come."""
        for _ in range(2):
            self.settle()
            self.start_pods()
        self.report(key)
        self.settle()

    def status(self, key: Key) -> dict[str, Any]:
        """The status of a job."""
        found = self.objects[(names.FEDERATED_JOB.name, key.namespace, key.name)].get("status") or {}
        return dict(found)

    def condition(self, key: Key, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = next(c for c in self.status(key)["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]

    def live_servers(self) -> list[str]:
        """Server pods that may be alive."""
        return [pod.name for pod in map(read_pod, self.pods(names.SERVER)) if pod.live]

    def _status(self, kind: names.Kind, key: Key, status: dict[str, Any]) -> None:
        raw = self.objects.get((kind.name, key.namespace, key.name))
        if raw is None:
            return
        old = raw.get("status") or {}
        theirs = {entry["name"]: entry for entry in old.get("sites") or ()}
        kept = {
            name: {k: v for k, v in entry.items() if k in ("training", "examples")} for name, entry in theirs.items()
        }
        sites = [{**kept.get(entry["name"], {}), **entry} for entry in status.get("sites") or ()]
        reported = {k: old[k] for k in ("progress", "metrics") if k in old}
        self._wrote("status")
        self.put(kind, key.namespace, key.name, status={**reported, **status, **({"sites": sites} if sites else {})})

    def _issue(self, issue: Any) -> None:
        manifest, present = pki.fill(issue, self.authority, self.now)
        self._wrote("issue")
        self.store.certificates[(manifest["metadata"]["namespace"], manifest["metadata"]["name"])] = present

    def _apply(self, manifest: dict[str, Any]) -> None:
        metadata = manifest["metadata"]
        self._wrote(f"apply {manifest['kind']}")
        parts = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
        old = self.objects.get((manifest["kind"], metadata["namespace"], metadata["name"])) or {}
        if approval := (old.get("spec") or {}).get("approval"):
            parts["spec"] = {**parts["spec"], "approval": approval}  # a person's own field
        raw = self.put(names.KINDS[manifest["kind"]], metadata["namespace"], metadata["name"], **parts)
        self.store.wrote(manifest["kind"], raw)

    def _create(self, create: Any) -> None:
        metadata = create.manifest["metadata"]
        if (names.JOB.name, metadata["namespace"], metadata["name"]) in self.objects:
            return
        for raw in self.pods(create.alone[names.ROLE_LABEL]) if create.alone else ():
            same = all(raw["metadata"]["labels"].get(key) == value for key, value in create.alone.items())
            if same and read_pod(raw).live:
                return
        self._wrote("create Job")
        self.put(names.JOB, metadata["namespace"], metadata["name"], metadata=metadata, spec=create.manifest["spec"])

    def _delete(self, target: Any) -> None:
        place = (target.kind, target.namespace, target.name)
        if place in self.objects and self.objects[place]["metadata"]["uid"] == target.uid:
            self._wrote(f"delete {target.kind}")
            self.remove(place)

    def _wrote(self, what: str) -> None:
        self.writes.append(what)


def running() -> dict[str, Any]:
    """Status of a pod that runs and is ready."""
    return {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def ended(code: int, words: str = "", *, disrupted: bool = False, container: str = names.SERVER) -> dict[str, Any]:
    """Status of a pod of which a container ended."""
    conditions = (
        [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}] if disrupted else []
    )
    end = {"name": container, "state": {"terminated": {"exitCode": code, "message": words}}}
    return {"phase": "Succeeded" if code == 0 else "Failed", "conditions": conditions, "containerStatuses": [end]}


def stamp(moment: datetime) -> str:
    """A time as the API server writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def world() -> World:
    """Two approved sites that allow everything, and no job."""
    made = World()
    made.add_site("a")
    made.add_site("b")
    made.allow_all()
    return made


@pytest.fixture
def empty_world() -> type[World]:
    """To make worlds, for laws that need many."""
    return World


def keys_of(world: World) -> tuple[list[Key], list[Key]]:
    """The hub's keys and the sites' keys."""
    every = world.store.all_keys()
    return [key for key in every if key.controller == HUB], [key for key in every if key.controller == SITE]
