"""One pass for one key: observe, decide, act. Everything that the pass wants is in its plan; here it is carried out, in order.

What the store lacks may exist nonetheless. That is harmless where names are fixed: an apply or a create meets the object, and the
answer is seen. Two steps are not harmless, and look again before they act: a new run of a server or a script starts only if the
API server itself shows no live pod of another one, and children of a job are swept away only if the job is really gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from . import events, names, pki
from .cluster import ApiError, Cluster
from .desired import job as job_decisions
from .desired import site_job as site_decisions
from .desired.authority import keeps
from .lease import LeadershipLost
from .metrics import Metrics
from .observed import Observed, ObservedSite, Raw, owner_uid, read_pod
from .plan import Create, Delete, Issue, Manifest, Plan, with_status
from .routes import Key
from .settings import HUB, Settings
from .store import Store
from .together import together
from .workqueue import WorkQueue

log = logging.getLogger(__name__)

_REFUSED_SECONDS = 30.0  # rights and quotas are changed by people
_PANIC_SECONDS = 300.0
_ALONE_SECONDS = 5.0
_OUTDATED_SECONDS = 1.0  # should the watch be slow


class Outdated(Exception):  # noqa: N818 - what was found
    """The object has changed since the decision; the watch tells how."""


class NotAlone(Exception):  # noqa: N818 - what was found
    """A pod of an earlier run is alive, though the store does not know it."""


@dataclass
class Reconciler:
    """The edge of both controllers.

    authority: gives the hub's authority, which may be replaced while we run; doubt: asks whether namespaces still let us in.
    """

    cluster: Cluster
    store: Store
    queue: WorkQueue[Key]
    settings: Settings
    metrics: Metrics
    authority: Callable[[], pki.Authority]
    doubt: Callable[[], None]
    _advanced: set[Key] = field(default_factory=set)  # keys whose present pass has changed something
    _fresh: set[Key] = field(
        default_factory=set
    )  # whose first status we wrote, so that nobody has issued a certificate

    async def one_pass(self, key: Key) -> None:
        """Bring what `key` names a step nearer to what it should be, and say when to look again."""
        began = time.monotonic()
        result = "error"
        self._advanced.discard(key)
        try:
            again = await self._pass(key)
            self.queue.done(key, again)
            result = "success" if again is None else "requeue"
        except LeadershipLost:
            raise
        except Outdated:
            self.queue.done(key, _OUTDATED_SECONDS)
            result = "requeue"
        except NotAlone as e:
            log.info("a new run waits", extra={"key": str(key), "why": str(e)})
            self.queue.done(key, _ALONE_SECONDS)
            result = "requeue"
        except ApiError as e:
            await self._refused(key, e)
        except Exception:
            # A bug in one object's decision must not stop the others, and must not keep the API server busy.
            log.exception("the pass failed", extra={"key": str(key)})
            self.metrics.panics.labels(key.controller).inc()
            self.queue.failed(key, at_least=_PANIC_SECONDS)
            result = "panic"
        finally:
            self.metrics.passes.labels(key.controller, result).inc()
            self.metrics.pass_seconds.labels(key.controller).observe(time.monotonic() - began)

    async def _pass(self, key: Key) -> float | None:
        seen = await self._observe(key)
        if seen is None:
            self.queue.forget(key)
            self.store.unassigned.pop(key, None)
            self._fresh.discard(key)
            if key.controller == HUB:
                await self._sweep(self.store.assigned_by(key))
            return None
        plan = self._decide(seen)
        try:
            await self._act(key, seen, plan)
        except Outdated:
            raw = seen.job if isinstance(seen, Observed) else seen.site_job
            await self._look_again(raw["kind"], raw)
            raise
        if self.store.trouble.pop(key, None):
            return 0.1  # the status still tells of it
        if key in self.store.unassigned:
            return min(plan.again or _REFUSED_SECONDS, _REFUSED_SECONDS)
        return plan.again

    async def _observe(self, key: Key) -> Observed | ObservedSite | None:
        """The snapshot, and the certificate if this process has not looked into its Secret yet."""
        seen = self.store.job(key) if key.controller == HUB else self.store.site_job(key)
        return seen if seen is None else await self._with_certificate(key, seen)

    async def _with_certificate(self, key: Key, seen: Observed | ObservedSite) -> Observed | ObservedSite:
        raw = seen.job if isinstance(seen, Observed) else seen.site_job
        name = names.secret(raw["kind"], key.name, raw["metadata"]["uid"])
        if not keeps(raw):  # also before the first pass, which writes the status and then issues one
            self.store.certificates.pop((key.namespace, name), None)
            return replace(seen, certificate=None)
        if seen.certificate is not None or not raw.get("status") or key in self._fresh:
            return seen
        secret = await self.cluster.get(names.SECRET, key.namespace, name)
        present = pki.read(secret) if secret is not None else None
        if present is not None:
            self.store.certificates[(key.namespace, name)] = present
        return replace(seen, certificate=present)

    def _decide(self, seen: Observed | ObservedSite) -> Plan:
        now, trust = datetime.now(UTC), self.authority().trust
        if isinstance(seen, Observed):
            return job_decisions.desired_state(seen, now, self.settings, trust)
        return site_decisions.desired_state(seen, now, self.settings, trust)

    # ------------------------------------------------------------------------------------------------ acting

    async def _act(self, key: Key, seen: Observed | ObservedSite, plan: Plan) -> None:
        raw = seen.job if isinstance(seen, Observed) else seen.site_job
        if plan.status is not None and not await self._write_status(key, raw, plan.status):
            raise Outdated
        known = {(child.kind, child.name) for child in seen.children}
        refused: dict[str, str] = {}

        async def apply(manifest: Manifest, *, known: bool) -> None:
            if manifest["kind"] == names.SITE_JOB.name:
                await self._assign(key, raw, manifest, refused, known=known)
            else:
                await self._apply(key, raw, manifest, known=known)

        await together(
            *(events.tell(self.cluster, self.metrics, raw, event) for event in plan.events),
            *(self._issue(key, issue) for issue in plan.issue),
            *(apply(m, known=(m["kind"], m["metadata"]["name"]) in known) for m in plan.apply),
        )
        self._note(key, refused)
        for create in plan.create:
            await self._create(key, raw, create)
        await together(*(self._delete(key, target) for target in plan.delete))

    async def _look_again(self, kind: str, raw: Raw) -> None:
        """What an object is now, from the API server itself: the watch may be slow, or dead."""
        metadata = raw["metadata"]
        now = await self.cluster.find(names.KINDS[kind], metadata["namespace"], metadata["name"])
        for key in self.store.gone(kind, raw) if now is None else self.store.see(kind, now):
            self.queue.add(key)

    async def _write_status(self, key: Key, raw: Raw, status: Manifest) -> bool:
        """Write the status, if the object is still the version that the decision was made for: False if it is not.

        Without this, the verdict on a deleted job could end another one that was made under its name a moment later.
        """
        try:
            written = await self.cluster.apply(with_status(raw, status), status=True)
        except ApiError as e:
            result = "conflict" if e.conflict or e.gone else "invalid" if e.status == 422 else "failed"
            self.metrics.status_writes.labels(key.controller, result).inc()
            if e.gone or e.conflict:
                return False
            raise
        self.metrics.status_writes.labels(key.controller, "written").inc()
        if not raw.get("status"):
            self._fresh.add(key)
        self._wrote(raw["kind"], written)
        self._advanced.add(key)
        return True

    def _wrote(self, kind: str, raw: Raw) -> None:
        """Remember the answer to a write, and let every pass that it concerns look again, this one too."""
        for key in self.store.wrote(kind, raw):
            self.queue.add(key)

    async def _issue(self, key: Key, issue: Issue) -> None:
        self._fresh.discard(key)
        manifest, present = pki.fill(issue, self.authority(), datetime.now(UTC))
        await self.cluster.apply(manifest)
        metadata = manifest["metadata"]
        self.store.certificates[(metadata["namespace"], metadata["name"])] = present
        self.metrics.issued.labels("server" if issue.site is None else "site").inc()
        self._advanced.add(key)

    async def _apply(self, key: Key, raw: Raw, manifest: Manifest, *, known: bool) -> None:
        """Apply a child. One that we have never seen is taken only if it is ours or nobody's: see `_ours`."""
        try:
            written = await self.cluster.apply(manifest, force=known)
        except ApiError as e:
            if not e.conflict or known or not await self._ours(key, raw, manifest):
                raise
            written = await self.cluster.apply(manifest)
        self._wrote(manifest["kind"], written)
        self._advanced.add(key)

    async def _assign(self, key: Key, raw: Raw, manifest: Manifest, refused: dict[str, str], *, known: bool) -> None:
        """Apply a SiteJob. That one site's namespace refuses it is that site's trouble, not the whole job's: into `refused`."""
        try:
            await self._apply(key, raw, manifest, known=known)
        except ApiError as e:
            if not e.refused:
                raise
            log.warning("a SiteJob is refused", extra={"key": str(key), "error": str(e)})
            refused[manifest["spec"]["site"]] = str(e)

    def _note(self, key: Key, refused: dict[str, str]) -> None:
        """Sites whose SiteJob is refused: news is a pass of its own, whose status tells of it."""
        if refused == self.store.unassigned.get(key, {}):
            return
        self.store.unassigned[key] = refused
        if not refused:
            del self.store.unassigned[key]
        self.queue.add(key)

    async def _create(self, key: Key, raw: Raw, create: Create) -> None:
        if create.alone is not None:
            await self._check_alone(key, create.alone)
        try:
            made = await self.cluster.create(create.manifest)
        except ApiError as e:
            if not e.conflict or not await self._ours(key, raw, create.manifest):
                raise
            return  # an earlier try made it
        self._wrote(create.manifest["kind"], made)
        self._advanced.add(key)
        log.info("created", extra={"key": str(key), "object": create.manifest["metadata"]["name"]})

    async def _delete(self, key: Key, target: Delete) -> None:
        try:
            await self.cluster.delete(target)
        except ApiError as e:
            if e.conflict:
                raise Outdated from e
            raise
        log.info("deleted", extra={"key": str(key), "kind": target.kind, "object": target.name})

    async def _check_alone(self, key: Key, labels: Any) -> None:
        """The API server's own word, not the store's, that no earlier run is alive. Raises NotAlone."""
        pods = await self.cluster.objects(names.POD, key.namespace, labels)
        alive = [pod.name for pod in map(read_pod, pods) if pod.live]
        if alive:
            for pod in pods:
                self.store.see(names.POD.name, pod)
            raise NotAlone(f"{', '.join(alive)} may still be alive")

    async def _ours(self, key: Key, raw: Raw, manifest: Manifest) -> bool:
        """Whether the object whose name we need belongs to us; what it is now goes to the store either way."""
        metadata = manifest["metadata"]
        found = await self.cluster.find(names.KINDS[manifest["kind"]], metadata["namespace"], metadata["name"])
        if found is None:
            return False
        if "ownerReferences" in metadata and owner_uid(found) != raw["metadata"]["uid"]:
            self.store.stranger(key, manifest["kind"], found)
            return False
        self.store.see(manifest["kind"], found)
        return True

    # ------------------------------------------------------------------------------------------------- failing

    async def _refused(self, key: Key, error: ApiError) -> None:
        """A call failed: come back later, and let the status say what only a person can change."""
        level = logging.ERROR if error.status == 422 else logging.WARNING
        log.log(level, "the API server refuses", extra={"key": str(key), "error": str(error)})
        least = error.retry_after
        if error.status == 403:
            self.doubt()
        if error.refused:
            least = max(least, _REFUSED_SECONDS)
            await self._complain(key, str(error))
        self.queue.failed(key, at_least=least, advanced=key in self._advanced)

    async def _complain(self, key: Key, why: str) -> None:
        if self.store.trouble.get(key) == why:
            return
        self.store.trouble[key] = why
        seen = self.store.job(key) if key.controller == HUB else self.store.site_job(key)
        if seen is None:
            return
        plan = self._decide(seen)
        raw = seen.job if isinstance(seen, Observed) else seen.site_job
        try:
            if plan.status is not None:
                await self._write_status(key, raw, plan.status)
        except ApiError as e:
            log.warning("the status cannot say so either", extra={"key": str(key), "error": str(e)})

    async def sweep(self) -> None:
        """Delete SiteJobs in other namespaces whose FederatedJob is gone: no owner reference reaches them."""
        jobs = {raw["metadata"]["uid"] for raw in self.store.raws(names.FEDERATED_JOB.name)}
        await self._sweep(raw for raw in self.store.raws(names.SITE_JOB.name) if raw["spec"]["job"]["uid"] not in jobs)

    async def _sweep(self, site_jobs: Iterable[Raw]) -> None:
        """Delete those whose FederatedJob the API server does not know. One that cannot be deleted waits for the next sweep.

        One without the operator's label is somebody else's: the API server lets nothing of theirs be deleted.
        """
        forbidden = self.store.forbidden.keys()
        for raw in site_jobs:
            origin, metadata = raw["spec"]["job"], raw["metadata"]
            ours = metadata.get("labels", {}).get(names.MANAGED_BY) == names.MANAGER
            if not ours or owner_uid(raw) or {metadata["namespace"], origin["namespace"]} & forbidden:
                continue
            try:
                there = await self.cluster.get(names.FEDERATED_JOB, origin["namespace"], origin["name"])
                if there is None or there["metadata"]["uid"] != origin["uid"]:
                    await self.cluster.delete(
                        Delete(names.SITE_JOB.name, metadata["namespace"], metadata["name"], metadata["uid"])
                    )
            except ApiError as e:
                log.warning("a SiteJob without a job stays", extra={"object": metadata["name"], "error": str(e)})
