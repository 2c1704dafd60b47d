"""The operator: `python -m fedjob_operator`. Start-up and wiring.

A replica first listens (health, metrics, reports), then waits for the Lease, then lists everything, then watches and works. Whatever
ends, ends the process: the kubelet starts it again, and nothing is kept that a list does not give back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from fedjob.logs import as_json

from . import names, triggers
from .arguments import Ports, read
from .cluster import ApiError, Cluster
from .health import Health
from .hub.endpoint import Endpoint
from .lease import Leadership, LeadershipLost
from .metrics import Metrics, QueueGauges
from .names import Kind
from .observed import Raw
from .pki import NoAuthorityError
from .reach import Reach
from .readmission import Readmission
from .reconcile import Reconciler
from .resync import Resync
from .rotation import Rotation
from .routes import Key
from .settings import HUB, Settings
from .store import Store
from .workqueue import WorkQueue

log = logging.getLogger("fedjob_operator")

_REFUSALS_SECONDS = 5.0
EXIT_LOST = 3  # the Lease: another replica acts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal or a loss; returns the exit code."""
    settings, ports, kubeconfig = read(sys.argv[1:] if arguments is None else arguments)
    _log_as_json()
    try:
        return asyncio.run(_run(settings, ports, kubeconfig))
    except LeadershipLost as e:
        log.error("leadership lost", extra={"why": str(e)})
        return EXIT_LOST
    except ApiError as e:
        log.error("the API server refuses", extra={"error": str(e)})
        return 1
    except NoAuthorityError as e:
        log.error("there is no authority to issue certificates with", extra={"error": str(e)})
        return 1


async def _run(settings: Settings, ports: Ports, kubeconfig: str) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    replica = Replica(settings)
    await replica.listen(ports, kubeconfig)
    tasks = [asyncio.create_task(replica.lead()), asyncio.create_task(stop.wait())]
    tasks += [asyncio.create_task(task) for task in replica.background()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # raises what ended us
        return 0
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await replica.close()


class Replica:
    """One replica and all its parts, wired."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.store = Store(settings.jobs_at_once)
        self.queue: WorkQueue[Key] = WorkQueue(
            time.monotonic, lambda: random.uniform(0.8, 1.2), QueueGauges(self.metrics)
        )
        self.free = Cluster(self.metrics, may_write=lambda: None)  # the Lease itself, and reports to any replica
        failures = (ApiError,)
        self.leadership = Leadership(
            self.free, settings.namespace, settings.identity, settings.lease_seconds, time.monotonic, failures
        )
        self.cluster = Cluster(self.metrics, may_write=self.leadership.check)
        self.health = Health(self.metrics, time.monotonic)
        self.reach = Reach(self.store, settings, self.metrics)
        self.resync = Resync(self.cluster, self.store, self.reach, self.metrics, self.queue.add)
        self.readmission = Readmission(self.cluster, self.resync, self.reach)
        self.rotation = Rotation(self.cluster, self.free, self.store, settings, self.metrics, self._trust_changed)
        authority = self.rotation.authority
        self.reconciler = Reconciler(
            self.cluster, self.store, self.queue, settings, self.metrics, authority, self.reach.doubt
        )
        self.endpoint = Endpoint(
            self.free, self.metrics, authority, settings.hub_name, settings.trust_domain, settings.certificate_life,
            time.monotonic,
        )  # fmt: skip

    async def listen(self, ports: Ports, kubeconfig: str) -> None:
        """Open connections and ports; the authority is read or made on the way."""
        await self.cluster.open(kubeconfig)
        await self.free.open(kubeconfig)
        self.health.problems.append(
            lambda: f"dead watches: {', '.join(sorted(self.resync.dead))}" if self.resync.dead else ""
        )
        self.health.before_scrape = self._measure
        self.metrics.observe_store(self.store)
        port = await self.health.serve(ports.metrics)
        await self.rotation.find()
        reports = await self.endpoint.serve(ports.reports) if HUB in self.settings.controllers else 0
        self.health.ready = True
        log.info("listening", extra={"metrics": port, "reports": reports, "identity": self.settings.identity})

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """What every replica does, leading or not."""
        always = [self.health.beat(), self.rotation.follow_for_ever()]
        return [*always, self.endpoint.renew_for_ever()] if HUB in self.settings.controllers else always

    async def lead(self) -> None:
        """Wait for the Lease; then list, watch and work until something ends."""
        await self.leadership.acquire()
        self.metrics.leader.set(1)
        hold = asyncio.create_task(self.leadership.hold())
        await _first(hold, self.rotation.find())  # what this replica read before may be a step behind
        await _first(hold, self.resync.fill())
        log.info("listed", extra=self.store.sizes())
        tasks = [
            hold,
            asyncio.create_task(triggers.watch(self.reach, self._hear, self.metrics.watch_restarts.inc)),
            asyncio.create_task(self.resync.follow()),
            asyncio.create_task(self.readmission.follow()),
            *(asyncio.create_task(self.queue.work(self._pass)) for _ in range(self.settings.workers)),
            asyncio.create_task(self._resync_for_ever()),
            asyncio.create_task(self._look_for_refusals_for_ever()),
            asyncio.create_task(self.rotation.turn_for_ever()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Let another replica begin at once."""
        await self.leadership.release()
        await self.cluster.close()
        await self.free.close()

    async def _pass(self, key: Key) -> None:
        if key.controller in self.settings.controllers and key.namespace not in self.store.forbidden:
            await self.reconciler.one_pass(key)
        else:
            self.queue.done(key)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.resync_seconds)
            try:
                await self.resync.again()
                if HUB in self.settings.controllers:
                    await self.reconciler.sweep()
            except ApiError as e:
                log.warning("the lists cannot be read; later again", extra={"error": str(e)})

    async def _look_for_refusals_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_REFUSALS_SECONDS)
            try:
                await self.resync.look_for_refusals()
            except ApiError as e:
                log.warning("events cannot be read; later again", extra={"error": str(e)})

    def _hear(self, kind: Kind, what: str, raw: Raw) -> None:
        self.metrics.watch_events.labels(kind.name).inc()
        if kind is names.FEDERATED_SITE and raw["metadata"]["namespace"] != self.settings.namespace:
            return  # anybody's; the hub's administrator writes in the operator's own namespace
        if not what:  # listed
            self.resync.begun(kind)
        note = self.store.gone if what == "DELETED" else self.store.see
        for key in note(kind.name, raw):
            self.queue.add(key)

    def _trust_changed(self) -> None:
        if HUB in self.settings.controllers:
            self.endpoint.renew()
        for key in self.store.all_keys():
            self.queue.add(key)

    def _measure(self) -> None:
        self.metrics.queue_depth.set(self.queue.depth())
        self.metrics.queue_oldest.set(self.queue.oldest_seconds())


async def _first(guard: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, unless `guard` ends before it does."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([guard, task], return_when=asyncio.FIRST_COMPLETED)
        if guard.done():
            guard.result()
        await task
    finally:
        task.cancel()


def _log_as_json() -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    as_json(root)
    for noisy in ("kopf", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with contextlib.suppress(AttributeError):
        logging.getLogger("kopf.objects").propagate = False


if __name__ == "__main__":
    sys.exit(main())
