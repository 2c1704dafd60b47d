"""The commands of `fedjob`: one function for each, and nothing that another program could want. `main` is where they begin."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ..api import FederatedJob, JobFileError, can_be_job, cluster_only, json_schema, load, reason
from ..cluster import commands as cluster_commands
from ..cluster import options as cluster_options
from ..errors import FedJobError
from ..terminal import discard_output, emit, say
from ..version import __version__
from .main import EXIT_INTERRUPTED

EXIT_CODES = (
    """Exit codes: 0 the job is complete, 1 it failed, 2 the job file or an option is wrong, 130 it was interrupted."""
)


class Commands(TyperGroup):
    """All commands: Ctrl-C ends each with a line, but for those of a cluster, which only stop looking."""

    def invoke(self, ctx: Any) -> Any:
        """Run the one that is named, which may tidy up on Ctrl-C from here on."""
        if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    name="fedjob",
    cls=Commands,
    help=f"Federated learning: one job file, your own training script, real mTLS between all parts.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

JobFile = Annotated[Path, typer.Argument(help="The job: YAML, JSON or TOML.", show_default=False)]
Runs = Annotated[str, typer.Option(help="Folder of all runs.")]
_RUNS = Path("runs")
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@app.command(epilog=EXIT_CODES)
def run(
    job: JobFile,
    runs: Runs = str(_RUNS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this job's last run, from where it stopped.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Where the data that `sites[].data` names is. May be repeated."),
    ] = None,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="Serve metrics for Prometheus, at the addresses in the run's targets.json."),
    ] = False,
) -> None:
    """Run a job on this machine: a server and one training process for each site, with certificates of their own.

    Everything of the run is kept in runs/NAME-NN: the model, history, logs, and report.html.

    Example: `fedjob run examples/mnist/job.yaml`

    After Ctrl-C or a crash: `fedjob run examples/mnist/job.yaml --resume`
    """
    from .. import local, run_folder

    _heed_endings()
    if not runs:
        _refuse("--runs '': no name of a folder; the current one is --runs .")
    parsed = _load(job)
    where = _data(data or [], parsed)
    try:
        with local.usable(f"--runs {runs}"):
            folder = (run_folder.latest if resume else run_folder.claim)(_expanded(Path(runs)), parsed.metadata.name)
            this = local.Run(parsed, folder.resolve(), job.resolve().parent, where, metrics)
    except FedJobError as e:
        _refuse(str(e))
    _note_unused(parsed)
    raise typer.Exit(_run(this, resume, _again(job, Path(runs), data or [], metrics)))


def _again(job: Path, runs: Path, data: list[str], metrics: bool) -> str:
    """The command that goes on with a run, for a shell in the same folder."""
    options = ["--resume", *(["--runs", str(runs)] if runs != _RUNS else [])]
    options += [part for pair in data for part in ("--data", pair)]
    return shlex.join(["fedjob", "run", str(job), *options, *(["--metrics"] if metrics else [])])


def _run(this: object, resume: bool, again: str) -> int:
    from .. import local, logs, supervision
    from .live import showing

    assert isinstance(this, local.Run)
    logs.as_text(logging.WARNING, "%(message)s")
    folder = Path(os.path.relpath(this.folder))
    _say(f"{'resuming' if resume else 'running'} {this.job.metadata.name} in {folder}")
    try:
        with showing(this.status):
            code = supervision.run_job(this, resume=resume)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        if not this.folder.exists():  # it had not begun
            _say("interrupted")
            return code
        end = this.conclusion()
        if end is not None:  # what was left to wait for were scripts
            code = 0 if end.state == "Complete" else 1
        else:
            _say(f"interrupted; to go on: {again}")
    except FedJobError as e:
        _refuse(str(e))
    _conclude(this, folder, code, again)
    return code


def _conclude(this: object, folder: Path, code: int, again: str) -> None:
    """The table of sites, and where everything is. Nothing here decides how the job ended, be the disk full or nobody listening."""
    from .. import local
    from ..report import build

    assert isinstance(this, local.Run)
    page = None
    try:
        page = build(folder)
    except (OSError, ValueError) as e:
        this.unwritten = this.unwritten or f"report.html: {getattr(e, 'strerror', None) or e}"
    try:
        _print_end(this, folder, code, page, again)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as e:
        discard_output()
        if not isinstance(e, BrokenPipeError):  # whoever reads no further knows
            _say(f"stdout: {e.strerror}")
    if this.unwritten:
        _say(f"not written: {this.unwritten}; `fedjob report {folder}` writes the report once there is room")


def _print_end(this: object, folder: Path, code: int, page: Path | None, again: str) -> None:
    from .. import local
    from ..quantities import plural
    from ..screen import console
    from .live import final_table, saving_text

    assert isinstance(this, local.Run)
    if code == 0:
        with contextlib.suppress(ValueError):  # a broken file is what the report could not be built from
            console().print(final_table(folder))
            if saving := saving_text(folder):
                say(f"moved   {saving}")
        say(f"model   {folder / 'model.safetensors'}")
    if page is not None:
        say(f"report  {page if not page.is_absolute() else Path(os.path.relpath(page))}")
    if code != 0 and (status := this.status()) and status.state == "Failed":
        _say(f"logs    {folder / 'logs'}")
        _say(f"failed: {status.reason}: {status.message}")
        if done := status.progress.completed_rounds:
            _say(f"to go on after {plural(done, 'complete round')}: {again}")


def _say(line: str) -> None:
    """To stderr, if anybody listens."""
    with contextlib.suppress(OSError):
        say(line, err=True)


@app.command(epilog=EXIT_CODES)
def digest(
    file: Annotated[Path, typer.Argument(help="A file, such as model.safetensors.", exists=True, dir_okay=False)],
) -> None:
    """Print the digest by which histories and reports name a model: compare a file that you were given with them.

    Example: `fedjob digest runs/mnist-01/model.safetensors`
    """
    from ..stored import file_digest

    say(file_digest(file))


@app.command(epilog=EXIT_CODES)
def validate(job: JobFile) -> None:
    """Check a job file, without running anything.

    Prints one line for each problem: file, line, field, what was given, what is allowed. Exit code 2 if there is one.

    Example: `fedjob validate job.yaml`
    """
    from ..quantities import plural

    parsed = _load(job)
    _note_unused(parsed)
    sites, rounds = plural(len(parsed.spec.sites), "site"), plural(parsed.spec.workflow.rounds, "round")
    say(f"{job}: {parsed.metadata.name}: {sites}, {rounds}, valid")


def _note_unused(job: FederatedJob) -> None:
    """A line for each reason why fields have no effect here."""
    fields: dict[str, list[str]] = {}
    for path in cluster_only(job):
        fields.setdefault(reason(path), []).append(path)
    for why, paths in fields.items():
        _say(f"no effect on one machine: {', '.join(paths)} ({why})")


@app.command(epilog=EXIT_CODES)
def schema() -> None:
    """Print the JSON schema of job files, for editors.

    Example: `fedjob schema > fedjob.schema.json`, then begin job.yaml with the line
    `# yaml-language-server: $schema=fedjob.schema.json`
    """
    emit(json.dumps(json_schema(), indent=2) + "\n")


@app.command(epilog=cluster_options.EXIT_CODES)
def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run's folder, e.g. runs/mnist-01, or a job's name on a cluster.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Of a job on a cluster: the file. Default: JOB.html.", show_default=False),
    ] = None,
    image: cluster_options.Image = "",
    namespace: cluster_options.Namespace = None,
    context: cluster_options.Context = None,
    kubeconfig: cluster_options.Kubeconfig = None,
) -> None:
    """Build the report of a run on this machine again, or of a job on a cluster, also while it goes on.

    Example: `fedjob report runs/mnist-01`

    Of a job on a cluster: `fedjob report digits -n team-a`
    """
    from ..records import HISTORY_FILE
    from ..report import build
    from ..run_folder import is_run

    here = not (namespace or context or kubeconfig)
    if here and is_run(Path(run)):
        say(build(Path(run)))
        return
    if here and is_run(_RUNS / run):
        _refuse(f"{run}: not a run's folder; there is {_RUNS / run}: fedjob report {shlex.quote(str(_RUNS / run))}")
    if not can_be_job(run) or (here and Path(run).exists()):
        _refuse(f"{run}: not a run's folder, which holds {HISTORY_FILE}; name one such as {_last_of(run)}")
    if here:
        _say(f"{run}: no run's folder here: the cluster is asked for a job of this name")
    cluster_commands.report(run, output, image, namespace, context, kubeconfig)


def _last_of(file: str) -> str:
    """The folder of the last run of a job file, if that is what somebody has named; else an example of one."""
    from .. import run_folder

    try:
        return str(run_folder.latest(_RUNS, load(Path(file)).metadata.name))
    except (FedJobError, JobFileError):
        return str(_RUNS / "mnist-01")


cluster_commands.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"fedjob {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _load(path: Path) -> FederatedJob:
    try:
        return load(path)
    except JobFileError as e:
        _refuse(str(e))


def _data(pairs: list[str], job: FederatedJob) -> dict[str, Path]:
    """Where each data set is. A name that comes twice, or that no site uses, is a slip of the pen: one of them would not be seen."""
    used = sorted({site.data for site in job.spec.sites if site.data is not None})
    known = f"its sites name {', '.join(used)}" if used else "none of its sites has a field data"
    found = dict[str, Path]()
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            _refuse(f"--data {pair}: got no NAME=PATH, e.g. --data cohort-2024=/srv/cohort")
        if name not in used:
            _refuse(f"--data {pair}: {job.metadata.name} has no data {name}; {known}")
        if name in found:
            _refuse(f"--data {pair}: {name} was given before, as {found[name]}; {known}")
        found[name] = _expanded(Path(path))
    return found


def _expanded(path: Path) -> Path:
    """With a home folder in place of a tilde: a shell leaves the one of `--runs=~/r` alone, and of `--data my-data=~/d`."""
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user: a name like any other
        return path


def _heed_endings() -> None:
    """Let what tells a process to end be as Ctrl-C: keys go, and the run says how to go on. What `nohup` ignores stays ignored."""
    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    for number in _ENDINGS:  # a terminal that closes says it twice, by the shell and by the kernel: once is enough
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _refuse(message: str) -> NoReturn:
    _say(message)
    raise typer.Exit(2)
