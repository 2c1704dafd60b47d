"""`fedjob logs`: what has been written, then what is being written."""

from __future__ import annotations

import difflib
import os
import sys

from ..api.names import SERVER
from ..terminal import emit, say
from .connection import Connection
from .failures import ClusterError
from .jobs import find, verdict
from .logs import Follower, Last, Wanted, history, nothing_yet, pods, sources
from .merging import Line, Page


async def print_logs(cluster: Connection, name: str, wanted: Wanted, *, follow: bool) -> int:
    """Print a job's logs; follow: until it ends. Raises ClusterError if there is none, and none can come."""
    job = await find(cluster, name)
    known = [site["name"] for site in job["spec"]["sites"]]
    _check_sites(wanted, known)
    page = Page([SERVER, *known], sys.stdout.isatty() and not os.environ.get("NO_COLOR"))

    def tell(line: Line) -> None:
        emit(page.of(line) + "\n")

    found = await pods(cluster, job)
    there, last = sources(found, wanted), Last()
    if not there and not follow:
        raise ClusterError(nothing_yet(found, job))
    async for line in history(cluster, there, wanted, last):
        tell(line)
    if follow and verdict(job) is None:
        if not there:
            say(nothing_yet(found, job), err=True)
        await Follower(cluster, job, wanted, tell, last).run()
    return 0


def _check_sites(wanted: Wanted, known: list[str]) -> None:
    for site in wanted.sites:
        if site not in known:
            near = difflib.get_close_matches(site, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"its sites are {', '.join(known[:8])}"
            raise ClusterError(f"the job has no site {site}; {hint}")
