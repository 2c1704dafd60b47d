"""The logs of a job: all its containers in all namespaces, as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..api.names import POD, ROLE_LABEL, SERVER, SITE_LABEL, UID_LABEL
from .connection import Connection, Query
from .failures import ApiFailure, StreamCut, Unreachable
from .jobs import Raw, changes, verdict
from .merging import Line, merged, parsed

_LOOK_SECONDS = 2.0  # for new pods, while following
_LAST_WORDS_SECONDS = 15.0  # for logs that still come when the job has ended


@dataclass(frozen=True)
class Wanted:
    """Whose logs. sites: only these, server: and the server's; neither: everybody's. since, tail: as kubectl's."""

    sites: tuple[str, ...] = ()
    server: bool = False
    since_seconds: int | None = None
    tail: int | None = None

    def covers(self, source: str) -> bool:
        """Whether a server or a site is asked for."""
        if not self.sites and not self.server:
            return True
        return self.server if source == SERVER else source in self.sites


@dataclass(frozen=True)
class Source:
    """One container that has a log. name: what stands before its lines. running: it may write more."""

    namespace: str
    pod: str
    container: str
    name: str
    running: bool = field(default=False, compare=False)


Last = dict[Source, int]  # the time of the newest line of each, in nanoseconds


async def pods(cluster: Connection, job: Raw) -> list[Raw]:
    """Pods of the job in all namespaces, or in the job's own if others may not be looked at."""
    metadata = job["metadata"]
    query = [("labelSelector", f"{UID_LABEL}={metadata['uid']}")]
    try:
        found = await cluster.get(POD.path(""), "list pods", query)
    except ApiFailure as e:
        if e.status != 403:
            raise
        found = await cluster.get(
            POD.path(metadata["namespace"]), f"list pods in namespace {metadata['namespace']}", query
        )
    items: list[Raw] = found["items"]
    return sorted(items, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def sources(found: Iterable[Raw], wanted: Wanted) -> list[Source]:
    """The containers that have written something, in the order of their pods."""
    made = []
    for pod in found:
        labels = pod["metadata"].get("labels") or {}
        who = SERVER if labels.get(ROLE_LABEL) == SERVER else labels.get(SITE_LABEL, "")
        if not who or not wanted.covers(who):
            continue
        status = pod.get("status") or {}
        containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        index = labels.get("batch.kubernetes.io/job-completion-index", "")
        for container in containers:
            state = container.get("state") or {}
            if "running" not in state and "terminated" not in state:
                continue
            suffix = "" if container["name"] in ("server", "client") else f"/{container['name']}"
            node = f"/{index}" if index not in ("", "0") else ""
            place = pod["metadata"]["namespace"], pod["metadata"]["name"]
            made.append(Source(*place, container["name"], f"{who}{node}{suffix}", "running" in state))
    return made


async def history(cluster: Connection, found: Sequence[Source], wanted: Wanted, last: Last) -> AsyncIterator[Line]:
    """What has been written so far, merged by time; `last` is kept up to date."""
    query: list[tuple[str, str]] = []
    if wanted.since_seconds is not None:
        query.append(("sinceSeconds", str(wanted.since_seconds)))
    if wanted.tail is not None:
        query.append(("tailLines", str(wanted.tail)))
    async for line in merged([_told(cluster, source, query, last) for source in found]):
        yield line


async def _told(cluster: Connection, source: Source, query: Query, last: Last) -> AsyncIterator[Line]:
    """As `_read`; a log that cannot be read, as its node is away, says so and does not keep the others from being read."""
    try:
        async for line in _read(cluster, source, query, last):
            yield line
    except (ApiFailure, StreamCut) as e:
        if isinstance(e, ApiFailure) and not e.passing:
            raise
        why = e.message if isinstance(e, ApiFailure) else str(e)
        yield Line(last.get(source, 0), source.name, f"(this log cannot be read to its end: {why})")


async def _read(cluster: Connection, source: Source, query: Query, last: Last) -> AsyncIterator[Line]:
    """The lines of one container that are newer than its last. A pod that has gone has no log any more."""
    path = f"{POD.path(source.namespace, source.pod)}/log"
    what = f"read the log of pod {source.pod} in namespace {source.namespace}"
    known = last.get(source, -1)
    try:
        async for raw in cluster.lines(path, what, [("container", source.container), ("timestamps", "true"), *query]):
            line = parsed(raw, source.name, last.get(source, 0))
            if line.at > known:
                last[source] = line.at
                yield line
    except ApiFailure as e:
        if e.status not in (400, 404):  # not started yet, or gone
            raise


@dataclass
class Follower:
    """Tells what is written from now on, by containers that are there and by those that come. last: see `history`."""

    cluster: Connection
    job: Raw
    wanted: Wanted
    tell: Callable[[Line], None]
    last: Last = field(default_factory=dict)
    _tasks: dict[Source, asyncio.Task[None]] = field(default_factory=dict)
    _over: set[Source] = field(default_factory=set)

    async def run(self) -> None:
        """Until the job has ended and its last words are said, or the job is gone. Raises what a stream cannot survive."""
        end = asyncio.create_task(self._await_end())
        try:
            while not end.done():
                await self._look()
                await asyncio.wait([end, *self._tasks.values()], timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED")
            end.result()
            if self._tasks:
                await asyncio.wait(self._tasks.values(), timeout=_LAST_WORDS_SECONDS)
            await self._last_words()
        finally:
            for task in (end, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(end, *self._tasks.values(), return_exceptions=True)

    async def _look(self) -> None:
        """Begin to follow what is new. What went wrong for good with one that is followed is raised here."""
        for source, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[source]
                task.result()
        try:
            found = await pods(self.cluster, self.job)
        except (ApiFailure, Unreachable) as e:
            if isinstance(e, ApiFailure) and not e.passing:
                raise
            return  # away for a moment; `_await_end` notices if it stays away
        for source in sources(found, self.wanted):
            if source not in self._tasks and (source.running or source not in self._over):
                self._tasks[source] = asyncio.create_task(self._follow(source))

    async def _last_words(self) -> None:
        """What came between the end of a stream and the end of its container."""
        for source in sources(await pods(self.cluster, self.job), self.wanted):
            async for line in _told(self.cluster, source, self._since(source), self.last):
                self.tell(line)

    def _since(self, source: Source) -> list[tuple[str, str]]:
        """Where to go on. Whole seconds: what came within the last one comes again, and is known by its time."""
        if source in self.last:
            return [("sinceTime", _stamp(self.last[source]))]
        return [("sinceSeconds", str(self.wanted.since_seconds))] if self.wanted.since_seconds is not None else []

    async def _follow(self, source: Source) -> None:
        """One container until its stream ends; one that is cut is taken up after the last line that came."""
        while True:
            query = [("follow", "true"), *self._since(source)]
            try:
                async for line in _read(self.cluster, source, query, self.last):
                    self.tell(line)
            except (ApiFailure, StreamCut, Unreachable) as e:
                if isinstance(e, ApiFailure) and not e.passing:
                    raise
                await asyncio.sleep(1.0)  # the node or the API server is away; that the job ends is seen elsewhere
            else:
                self._over.add(source)  # as far as this stream knows: see `_look`
                return

    async def _await_end(self) -> None:
        async for job in changes(self.cluster, self.job):
            if verdict(job) is not None:
                return


def _stamp(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def nothing_yet(found: Sequence[Raw], job: Raw) -> str:
    """Why there is no log, in one line."""
    status: Any = job.get("status") or {}
    if not found:
        return f"no pod of {job['metadata']['name']} yet: it is {status.get('state') or 'Pending'}"
    names = ", ".join(pod["metadata"]["name"] for pod in found[:4])
    return f"no log yet: {names} {'has' if len(found) == 1 else 'have'} not started"
