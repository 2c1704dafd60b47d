"""kopf: the watches, and nothing else. An event goes into the store and its keys into the queue; no decision is taken here.

kopf's change handlers, timers, daemons and indices are not used: the first lose edges, the next two put finalizers on resources, the
last keep what was deleted while a watch was down.

It has a thread and an event loop of its own, because on its way out it cancels every task of its loop that it does not know, and it takes
the process's signals if it is given the main thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import kopf

from . import names
from .names import Kind
from .settings import Settings
from .store import WATCHED

OURS = f"{names.MANAGED_BY}={names.MANAGER}"

Tell = Callable[[Kind, str, Any], None]  # kind, type of the event, object


def registry(tell: Tell) -> kopf.OperatorRegistry:
    """Handlers for every kind that is watched."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    def login(**arguments: Any) -> Any:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    for kind in WATCHED:
        _register(found, kind, tell)
    return found


def _register(found: kopf.OperatorRegistry, kind: Kind, tell: Tell) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=found, id=kind.plural)
    async def _(event: Any, **_: Any) -> None:
        tell(kind, event["type"] or "", event["object"])


def settings() -> kopf.OperatorSettings:
    """kopf with everything off that writes, scans or waits for long."""
    s = kopf.OperatorSettings()
    s.scanning.disabled = True  # no watch of namespaces and CRDs: rights in the watched namespaces are enough
    s.posting.enabled = False
    s.peering.standalone = True  # our Lease decides who acts
    s.watching.server_timeout = 300
    s.watching.connect_timeout = 10
    s.watching.inactivity_timeout = 70
    s.watching.reconnect_backoff = 0.5
    s.networking.request_timeout = 30
    s.networking.connect_timeout = 5
    s.networking.error_backoffs = [0.5, 1, 2, 4, 8]
    s.networking.enforce_retry_after = True
    s.queueing.error_delays = [1, 2, 5, 10, 30]
    s.persistence.finalizer = f"{names.GROUP}/never-used"  # should kopf ever add one, it names us
    s.process.ultimate_exiting_timeout = 20
    s.execution.max_workers = 2
    for kind in (names.JOB, names.POD):
        s.watching.label_selectors[kind.plural] = OURS  # not every pod of the cluster
    return s


async def watch(own: Settings, tell: Tell) -> None:
    """Watch until cancelled. tell: called on this event loop, for each event in turn. Raises if kopf cannot go on."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    stop = threading.Event()

    def hand_over(kind: Kind, what: str, raw: Any) -> None:
        loop.call_soon_threadsafe(tell, kind, what, raw)

    def run() -> None:
        try:
            asyncio.run(_operator(own, hand_over, stop))
            why: BaseException = RuntimeError("kopf has ended")
        except BaseException as e:  # noqa: BLE001 - the top of a thread
            why = e
        if not stop.is_set():
            loop.call_soon_threadsafe(ended.set_exception, why)

    threading.Thread(target=run, name="kopf", daemon=True).start()
    try:
        await ended
    finally:
        stop.set()


async def _operator(own: Settings, tell: Tell, stop: threading.Event) -> None:
    await kopf.operator(
        registry=registry(tell),
        settings=settings(),
        clusterwide=not own.namespaces,
        namespaces=sorted({own.namespace, *own.namespaces}) if own.namespaces else (),
        stop_flag=stop,
    )
