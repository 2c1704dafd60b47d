"""One command against a cluster: a connection, the work, and one line and an exit code for whatever goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from ..terminal import say
from .failures import ApiFailure, ClusterError, explained

if TYPE_CHECKING:
    from .connection import Connection

EXIT_USAGE, EXIT_CLUSTER, EXIT_TIMEOUT, EXIT_INTERRUPTED = 2, 3, 4, 130

Work = Callable[["Connection"], Awaitable[int]]


def on_cluster(kubeconfig: Path | None, context: str | None, namespace: str | None, work: Work) -> NoReturn:
    """Do the work with a connection to the cluster that is meant, and end with its exit code."""
    import asyncio  # which a local command need not wait for

    try:
        from .connection import Where, connected
    except ModuleNotFoundError as e:
        refuse(f"{program()} needs the package {e.name} for this: pip install 'fedjob[cluster]'")

    async def run() -> int:
        async with connected(Where(kubeconfig, context, namespace)) as cluster:
            try:
                return await work(cluster)
            except ApiFailure as e:
                raise ClusterError(explained(e, cluster.server)) from e

    try:
        code = asyncio.run(run())
    except ClusterError as e:
        refuse(str(e), e.exit_code)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def refuse(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """End with one line on the standard error."""
    say(message, err=True)
    raise typer.Exit(code)


def program() -> str:
    """How the command was called: `fedjob`, or `kubectl fedjob`."""
    return "kubectl fedjob" if Path(sys.argv[0]).name.startswith("kubectl") else "fedjob"
