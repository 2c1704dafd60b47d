"""kopf: the watches, and nothing else. An event goes into the store and its keys into the queue; no decision is taken here.

kopf's change handlers, timers, daemons and indices are not used: the first lose edges, the next two put finalizers on resources, the
last keep what was deleted while a watch was down.

It has a thread and an event loop of its own, because on its way out it cancels every task of its loop that it does not know, and it takes
the process's signals if it is given the main thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import kopf

from . import names
from .names import Kind
from .reach import Reach
from .store import WATCHED

log = logging.getLogger(__name__)

_END_SECONDS = 2.0
_WATCH_SECONDS = 1.0  # between two watches of one kind, at least
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before kopf is started again
OURS = f"{names.MANAGED_BY}={names.MANAGER}"

Tell = Callable[[Kind, str, Any], None]  # kind, type of the event, object


def registry(tell: Tell) -> kopf.OperatorRegistry:
    """Handlers for every kind that is watched."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    async def login(**arguments: Any) -> kopf.AiohttpSession | None:
        info = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
        return None if info is None else _session(info)

    for kind in WATCHED:
        _register(found, kind, tell)
    return found


def _register(found: kopf.OperatorRegistry, kind: Kind, tell: Tell) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=found, id=kind.plural)
    async def _(event: Any, **_: Any) -> None:
        tell(kind, event["type"] or "", event["object"])


def _session(info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """Connections of our own making, so that they keep the pace."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        middlewares=(Pace(),),
    )
    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        expiration=info.expiration,
        aiohttp_session=session,
    )


@dataclass
class Pace:
    """A watch is asked for once a second at most: kopf asks again at once, without end, when an answer is cut short."""

    _next: dict[str, float] = field(default_factory=dict)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A middleware of aiohttp."""
        if "watch" in request.url.query:
            now, path = asyncio.get_running_loop().time(), request.url.path
            due = max(self._next.get(path, 0.0), now)
            self._next[path] = due + _WATCH_SECONDS
            await asyncio.sleep(due - now)
        return await handler(request)


def settings() -> kopf.OperatorSettings:
    """kopf with everything off that writes, scans or waits for long."""
    s = kopf.OperatorSettings()
    s.scanning.disabled = True  # no watch of namespaces and CRDs: rights in the watched namespaces are enough
    s.posting.enabled = False
    s.peering.standalone = True  # our Lease decides who acts
    s.watching.server_timeout = 300
    s.watching.connect_timeout = 10
    s.watching.inactivity_timeout = 70
    s.watching.reconnect_backoff = _WATCH_SECONDS
    s.watching.chunk_size = 200
    s.networking.request_timeout = 30
    s.networking.connect_timeout = 5
    s.networking.error_backoffs = [1, 2, 4, 8]
    s.networking.enforce_retry_after = True
    s.queueing.idle_timeout = 1.0  # a task for each object that has news lives so long; a burst makes thousands
    s.queueing.error_delays = [1, 2, 5, 10, 30]
    s.persistence.diffbase_storage = _NoDiffs()
    s.persistence.progress_storage = _NoProgress()
    s.persistence.finalizer = f"{names.GROUP}/never-used"  # should kopf ever add one, it names us
    s.process.ultimate_exiting_timeout = None  # it would kill the process, not the thread
    s.execution.max_workers = 2
    for kind in (names.JOB, names.POD):
        s.watching.label_selectors[kind.plural] = OURS  # not every pod of the cluster
    return s


class _NoDiffs(kopf.DiffBaseStorage):
    """No handler of ours looks at changes, so no event's object is copied to compare it with the one before."""

    def build(self, **_: Any) -> Any:
        """What is compared."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """What was there before."""
        return None

    def store(self, **_: Any) -> None:
        """Never called: nothing is handled."""


class _NoProgress(kopf.ProgressStorage):
    """No handler of ours makes progress."""

    def fetch(self, **_: Any) -> Any:
        """Of a handler."""
        return None

    def store(self, **_: Any) -> None:
        """Never called."""

    def purge(self, **_: Any) -> None:
        """Never called."""

    def touch(self, **_: Any) -> None:
        """Never called."""

    def clear(self, *, essence: Any) -> Any:
        """What is compared, without notes of progress: there are none."""
        return essence


async def watch(reach: Reach, tell: Tell, restarted: Callable[[], None]) -> None:
    """Watch until cancelled. tell: called on this event loop, for each event in turn; restarted: when kopf begins anew.

    kopf ends for good on much that passes by itself: a run of 5xx answers, an event that is cut in half, an error within a stream, a
    credential refused once. It holds nothing that a list does not give back, so it is started again, after a pause; also when
    the namespaces to watch are others, as it ends for all when one of them forbids.
    """
    loop = asyncio.get_running_loop()
    pauses = iter(_PAUSES)
    while True:
        began = loop.time()
        why = await _until_it_ends(reach, tell)
        if why is None:
            continue
        reach.doubt()
        if loop.time() - began > _PAUSES[-1]:
            pauses = iter(_PAUSES)
        pause = next(pauses, _PAUSES[-1])
        log.error("the watches have ended; they begin again", extra={"error": repr(why), "seconds": pause})
        restarted()
        await asyncio.sleep(pause)


async def _until_it_ends(reach: Reach, tell: Tell) -> BaseException | None:
    """One life of kopf; returns why it has ended, None if the namespaces to watch are others now."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException] = loop.create_future()
    stop = threading.Event()
    reach.changed.clear()
    spaces = reach.spaces()

    def hand_over(kind: Kind, what: str, raw: Any) -> None:
        if not stop.is_set():
            loop.call_soon_threadsafe(tell, kind, what, raw)

    def run() -> None:
        try:
            why = _run(_first_to_end(spaces, hand_over, stop))
        except BaseException as e:  # noqa: BLE001 - the top of a thread
            why = e
        if not stop.is_set():
            loop.call_soon_threadsafe(ended.set_result, why)

    threading.Thread(target=run, name="kopf", daemon=True).start()
    changed = asyncio.ensure_future(reach.changed.wait())
    either: list[asyncio.Future[Any]] = [ended, changed]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else None
    finally:
        changed.cancel()
        stop.set()


async def _first_to_end(spaces: Sequence[str], tell: Tell, stop: threading.Event) -> BaseException:
    """Run kopf's tasks, which never end unless kopf does; returns why. spaces: the namespaces to watch, "" for all."""
    tasks = await kopf.spawn_tasks(
        registry=registry(tell),
        settings=settings(),
        clusterwide="" in spaces,
        namespaces=() if "" in spaces else spaces,
        stop_flag=stop,
    )
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    errors = [error for task in done if not task.cancelled() and (error := task.exception()) is not None]
    return errors[0] if errors else RuntimeError("kopf has ended")


def _run(main: Coroutine[Any, Any, BaseException]) -> BaseException:
    """As asyncio.run, but what does not end in time when it is cancelled is left alone.

    After a watch has failed, kopf's other watches wait for a login that will never come (seen with 1.45), and kopf for them.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_END_SECONDS))
        loop.set_exception_handler(lambda *_: None)  # what is left is told about once more when it is collected
        loop.close()
