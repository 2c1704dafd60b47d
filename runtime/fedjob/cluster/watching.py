"""`fedjob status`: a job now, or for as long as it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from ..screen import Harmless
from ..terminal import say
from ..text import one_line
from .connection import Connection
from .failures import ClusterError
from .jobs import Raw, changes, verdict
from .running import EXIT_TIMEOUT
from .view import line, lines, render


def show(job: Raw, console: Console) -> None:
    """The job as it is now."""
    console.print(render(job))


async def until_the_end(cluster: Connection, job: Raw, console: Console, *, watch: bool, seconds: float | None) -> int:
    """Wait for the end of the job; returns 0 if it is complete, 1 if it has failed, 4 if `seconds` are over. watch: show it meanwhile."""
    latest = job

    async def follow(tell: Callable[[Raw], None]) -> int:
        nonlocal latest
        async for latest in changes(cluster, job):
            tell(latest)
            if (end := verdict(latest)) is not None:
                say(f"{latest['metadata']['name']}: {one_line(end[1])}", err=True)
                return 0 if end[0] else 1
        raise ClusterError(f"{job['metadata']['name']} was deleted")

    screen, tell = _screen(console, watch)
    try:
        with screen:
            async with asyncio.timeout(seconds):
                return await follow(tell)
    except TimeoutError:
        say(f"{job['metadata']['name']} has not ended after {seconds:g} s: {line(latest)}", err=True)
        return EXIT_TIMEOUT


def _screen(console: Console, watch: bool) -> tuple[AbstractContextManager[object], Callable[[Raw], None]]:
    """Where a job is shown again and again: a live view in a terminal, a line for each change elsewhere."""
    if not watch:
        return nullcontext(), lambda _: None
    if console.is_terminal:
        live = Live(console=console, auto_refresh=False, vertical_overflow="visible")
        return live, lambda job: live.update(Harmless(render(job)), refresh=True)
    shown: list[Raw] = []

    def tell(job: Raw) -> None:
        for text in lines(shown[-1] if shown else None, job):
            say(f"{datetime.now(UTC).astimezone():%H:%M:%S}  {text}")
        shown[:] = [job]

    return nullcontext(), tell
