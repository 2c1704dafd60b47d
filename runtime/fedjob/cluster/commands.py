"""What `fedjob` does on a cluster: a function for each subcommand, thin over the modules beside it.

Those are imported when a command runs, not when `fedjob` starts: a local run pays nothing for them, and needs no package of theirs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..terminal import confirmed, emit, say
from .options import EXIT_CODES, Context, Image, JobName, Kubeconfig, Namespace
from .running import on_cluster, program, refuse

if TYPE_CHECKING:
    from .connection import Connection
    from .submission import Source

_PANEL = "On a cluster"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def register(app: typer.Typer) -> None:
    """Make the commands known, in the order of a job's life."""
    command = app.command
    command(epilog=EXIT_CODES)(manifest)  # asks no cluster
    for function in (submit, get, status, logs, suspend, resume, download, cancel):
        command(epilog=EXIT_CODES, rich_help_panel=_PANEL)(function)


JobFile = Annotated[Path, typer.Argument(help="The job: YAML, JSON or TOML, as for `run`.", show_default=False)]
Files = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Files beside the job file to send along, e.g. 'lib/*.py'. May be repeated."),
]


def manifest(
    job: JobFile,
    files: Files = None,
    image: Annotated[
        str | None,
        typer.Option(help="Image of the training script. Default: what the job names.", show_default=False),
    ] = None,
) -> None:
    """Print the job and its code as one file, for `kubectl apply`, GitOps, and `run`. It asks no cluster.

    Example: `fedjob manifest job.yaml > cluster.yaml`, then `kubectl apply -n team-a -f cluster.yaml`
    """
    from ..api import JobFileError
    from .submission import needs_server_side, one_file

    source = _parsed(job, files)
    try:
        document = one_file(source, image)
    except JobFileError as e:
        refuse(str(e))
    emit(document)
    if needs_server_side(document):
        say(f"{job}: larger than the annotation of a plain `kubectl apply`: use kubectl apply --server-side", err=True)


def submit(
    job: JobFile,
    files: Files = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Then watch the job until it ends.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Send a job to the cluster: the same file that `run` takes.

    The Python code beside the job file goes along, and scripts and configurations that its command names, unless the job names an
    image or carries files. Nothing else does, unless --files asks for it: what else lies there may be data.

    Example: `fedjob submit job.yaml -n team-a --watch`
    """
    from .submission import addressed

    source = _parsed(job, files)

    async def work(cluster: Connection) -> int:
        from .lifecycle import submitted

        made = await submitted(cluster, addressed(source, namespace, cluster.namespace))
        return await _watch(cluster, made) if watch else 0

    on_cluster(kubeconfig, context, namespace, work)


def _parsed(job: Path, files: list[str] | None) -> Source:
    """The job file with its code; ends with one line if a cluster cannot run it, and says what it will not get."""
    from ..api import JobFileError
    from .submission import Refused, left_behind, parsed

    try:
        source = parsed(job, files or [])
    except (JobFileError, Refused) as e:
        refuse(str(e))
    if script := left_behind(source):
        say(f"{job}: names an image, so {script} beside it stays here; to send it along: --files '*.py'", err=True)
    return source


def get(
    name: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="One job. Default: all.", show_default=False)
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Jobs of all namespaces.")] = False,
    output: Annotated[
        Literal["table", "wide", "json", "yaml", "name"], typer.Option("--output", "-o", help="How to print them.")
    ] = "table",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List jobs, as `kubectl get federatedjobs` does.

    Example: `fedjob get -A`

    In a script: `fedjob get digits -o json | jq -r .status.state`
    """
    if name is not None and everywhere:
        refuse("-A lists all jobs of all namespaces; name one with -n NAMESPACE")

    async def work(cluster: Connection) -> int:
        from .listing import show

        return await show(cluster, name, output, everywhere=everywhere)

    on_cluster(kubeconfig, context, namespace, work)


def status(
    name: JobName,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, quietly, until it ends.")] = False,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Watch or wait no longer than this, e.g. 30m.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show how far a job is, what each site does, and what stands in the way, with what to do about it.

    Example: `fedjob status digits --watch`

    In a script: `fedjob status digits --wait --timeout 2h && fedjob download digits`
    """
    seconds = _seconds("--timeout", timeout)
    if seconds is not None and not (watch or wait):
        refuse("--timeout: allowed with --watch or --wait")

    async def work(cluster: Connection) -> int:
        from ..screen import console
        from .jobs import find
        from .watching import show

        job = await find(cluster, name)
        if watch or wait:
            return await _watch(cluster, job, watch=watch, seconds=seconds)
        show(job, console())
        return 0

    on_cluster(kubeconfig, context, namespace, work)


def logs(
    name: JobName,
    site: Annotated[
        list[str] | None, typer.Option(help="Only this site's. May be repeated.", show_default=False)
    ] = None,
    server: Annotated[
        bool, typer.Option("--server", help="Only the server's, or the server's too, with --site.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what is younger than this, e.g. 10m.", show_default=False)
    ] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Only so many last lines of each container.", show_default=False)
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the logs of the server and of all sites as one, in the order of time.

    Example: `fedjob logs digits -f`

    Two sites, the last ten minutes: `fedjob logs digits --site hospital-a --site hospital-b --since 10m`
    """
    seconds = _seconds("--since", since)

    async def work(cluster: Connection) -> int:
        from .logs import Wanted
        from .printing import print_logs

        return await print_logs(cluster, name, Wanted(tuple(site or ()), server, seconds, tail), follow=follow)

    on_cluster(kubeconfig, context, namespace, work)


def suspend(name: JobName, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Pause a job: its running round ends, then it has no pods. Its state stays.

    Example: `fedjob suspend digits`
    """

    async def work(cluster: Connection) -> int:
        from .lifecycle import pause

        return await pause(cluster, name, suspend=True)

    on_cluster(kubeconfig, context, namespace, work)


def resume(name: JobName, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Let a paused job go on from where it is.

    Example: `fedjob resume digits`
    """

    async def work(cluster: Connection) -> int:
        from .lifecycle import pause

        return await pause(cluster, name, suspend=False)

    on_cluster(kubeconfig, context, namespace, work)


def download(
    name: JobName,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file. Default: JOB.safetensors.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    image: Image = "",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Bring the final model of a job here, from its server's volume, and check its digest.

    A download that was cut goes on from where it was, within one command and over several.

    Example: `fedjob download digits -o model.safetensors`
    """

    async def work(cluster: Connection) -> int:
        from . import results

        return await results.download(cluster, name, output or Path(f"{name}.safetensors"), image, force=force)

    on_cluster(kubeconfig, context, namespace, work)


def cancel(
    name: JobName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete a job with everything of it: pods, state, model. `suspend` only pauses it.

    Example: `fedjob cancel digits`
    """
    if not yes and not sys.stdin.isatty():
        refuse("there is no terminal to ask on: --yes deletes the job without a question")

    async def work(cluster: Connection) -> int:
        from .lifecycle import delete

        return await delete(cluster, name, lambda loss: yes or confirmed(f"{loss}\nDelete it?"))

    on_cluster(kubeconfig, context, namespace, work)


def report(
    name: str, output: Path | None, image: str, namespace: str | None, context: str | None, kubeconfig: Path | None
) -> None:
    """The report of a job on the cluster: the second half of `fedjob report`, whose first is a run on this machine."""

    async def work(cluster: Connection) -> int:
        from . import results

        return await results.report(cluster, name, output or Path(f"{name}.html"), image)

    on_cluster(kubeconfig, context, namespace, work)


async def _watch(cluster: Connection, job: object, *, watch: bool = True, seconds: int | None = None) -> int:
    from ..screen import console
    from .watching import until_the_end

    return await until_the_end(cluster, job, console(), watch=watch, seconds=seconds)  # type: ignore[arg-type]


def _seconds(option: str, given: str | None) -> int | None:
    """A time as kubectl takes it: 90s, 10m, 1h30m."""
    if given is None:
        return None
    parts = re.findall(r"(\d+)([smh])", given)
    if not parts or "".join(number + unit for number, unit in parts) != given:
        refuse(f"{option}: got {given}, allowed: a time such as 90s, 10m or 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


__all__ = ["program", "register", "report"]
