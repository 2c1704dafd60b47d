"""A job as local processes: its run folder, and what one server and a training script for each site are started with."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import changes, conclusion, identity, run_folder, site_folder, warden
from . import config as configuration
from .api import FederatedJob, JobFileError, Site, load, to_yaml
from .conclusion import Conclusion
from .errors import ConfigError, StateError
from .herald import Herald
from .model import ParamsType
from .records import (
    HISTORY_FILE,
    METRICS_FILE,
    STATUS_FILE,
    JobRef,
    Progress,
    SiteStatus,
    Status,
    read_history,
    read_status,
)
from .restarts import Budget
from .stored import write_whole
from .tls import SERVER_ENVIRONMENT

SERVER = "server"
TARGETS_FILE = "targets.json"
JOB_FILE = "job.yaml"
ADDRESS = "127.0.0.1"
_KEYS_PREFIX = "fedjob-"
# As `transport.tune_malloc`, from the process's first allocation on: also what a script allocates before `init`.
_MALLOC = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str((1 << 31) - 1)) | {
    "MALLOC_ARENA_MAX": "1"
}
_AT_WORK = frozenset({"Waiting", "Downloading", "Training", "Uploading"})
log = logging.getLogger("fedjob.local")


@dataclass
class Process:
    """One process of the job. command, directory and environment start it; `started` is None while it does not run."""

    name: str
    command: list[str]
    directory: Path
    environment: Mapping[str, str]
    budget: Budget
    started: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    due: float | None = None  # monotonic time of the next start
    given_up: str = ""
    final: bool = False  # whether the runner has told the server, in its name, that it will not be started again
    said: int = 0  # where its own words begin in its log, which earlier processes have begun


@dataclass
class Run:
    """A job in its run folder. `folder` holds what people read, `folder/state` what the server needs to go on."""

    job: FederatedJob
    folder: Path
    source: Path
    data: Mapping[str, Path]
    watched: bool = False  # whether the processes serve metrics, at the addresses in TARGETS_FILE
    uid: str = ""
    attempt: int = 1
    keys: Path = Path()
    port: int = 0
    metrics: dict[str, str] = field(default_factory=dict)  # process -> host:port
    processes: dict[str, Process] = field(default_factory=dict)
    herald: Herald = field(default_factory=Herald)
    over: bool = False  # whether no server of this run will write a status again
    no_room: str = ""  # why the run's disk takes nothing now
    unwritten: str = ""  # the file that people would read, and why it could not be written

    def conclusion(self) -> Conclusion | None:
        """How the job has ended, None while it goes on."""
        try:
            return conclusion.load(self.folder / "state", self.attempt, self.job.model_dump_json())
        except (StateError, OSError):
            return None

    def first_status(self) -> Status:
        """What there is to say before the server has said anything."""
        job = JobRef(self.job.metadata.name, self.uid, self.attempt)
        sites = tuple(SiteStatus(site.name) for site in self.job.spec.sites)
        return Status(job, progress=Progress(total_rounds=self.job.spec.workflow.rounds), sites=sites)

    def status(self) -> Status | None:
        """The server's status, with what only the runner knows: restarts, and sites that were given up.

        None before the server of this attempt has written one. How the job ended is told even if the status could not say it,
        once the server is over: until then its last status, with the last rounds and refusals, is still to come.
        """
        try:
            status = read_status(self.folder / STATUS_FILE)
        except (OSError, ValueError):
            return None
        if status is None or not self.processes or status.job.attempt != self.attempt:
            return None
        if self.over and not status.ended and (end := self.conclusion()):
            status = replace(status, state=end.state, reason=end.reason, message=end.message)
        known = {p.name: p for p in list(self.processes.values())}
        sites = tuple(
            replace(
                s,
                state="Absent" if known[s.name].final and s.state in _AT_WORK and not status.ended else s.state,
                restarts=known[s.name].restarts,
                message=s.message or known[s.name].given_up,
            )  # one that works after its end is no script: the runner is saying that it has ended
            for s in status.sites
            if s.name in known
        )
        return replace(status, sites=sites)


@contextlib.contextmanager
def usable(what: str) -> Iterator[None]:
    """Raise ConfigError, naming `what`, where the system refuses a path that somebody gave."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as e:  # ValueError: it holds a NUL; RuntimeError: links in a circle
        raise ConfigError(f"{what}: {getattr(e, 'strerror', None) or e}") from e


@contextlib.contextmanager
def prepared(run: Run, *, resume: bool) -> Iterator[Run]:
    """Everything that the processes need, and the run's lock; keys and scratch are removed afterwards.

    Raises ConfigError, naming the field, for what the job asks and this machine does not have; a new run's folder is gone then.
    """
    began = resume
    try:
        with usable(f"--runs {run.folder.parent}"):
            (run.folder / "logs").mkdir(parents=True, exist_ok=True)
            (run.folder / "state").mkdir(exist_ok=True)
        with _folder_of_keys(run), _locked(run):
            with usable(str(run.folder)):
                run.uid = uuid.uuid4().hex
                if resume:
                    _go_on(run)
                _write_inputs(run)
                write_whole(run.folder / JOB_FILE, to_yaml(run.job).encode())
                _remember(run)  # last: what was refused has not begun, and is never the run to go on with
            began = True
            yield run
    finally:
        if not began:
            shutil.rmtree(run.folder, ignore_errors=True)


@contextlib.contextmanager
def _folder_of_keys(run: Run) -> Iterator[None]:
    with usable("TMPDIR"):
        run.keys = Path(tempfile.mkdtemp(prefix=_KEYS_PREFIX))
    try:
        yield
    finally:
        shutil.rmtree(run.keys, ignore_errors=True)


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Alone in the run's folder. Raises ConfigError."""
    with contextlib.ExitStack() as stack:
        with usable(str(run.folder)):
            lock = stack.enter_context((run.folder / "state" / "lock").open("w", encoding="utf-8"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{run.folder}: another `fedjob run` is at work in this folder") from None
        except OSError as e:  # a network file system without locks
            where = "name a folder on another file system with --runs"
            raise ConfigError(f"{lock.name}: cannot be locked: {e.strerror}; {where}") from e
        yield


# ---------------------------------------------------------------------------------------------------- inputs


def _go_on(run: Run) -> None:
    """Take up the job's uid and its next attempt: an older attempt's processes are refused."""
    saved = run_folder.recall(run.folder)
    run.uid, run.attempt = saved["uid"], saved["attempt"] + 1
    _tell_changes(run)
    _remove_keys(run, Path(saved["keys"]))
    _remember(run)  # where the keys are, should the runner be killed before it has begun


def _remember(run: Run) -> None:
    run_folder.remember(run.folder, job=run.job.metadata.name, uid=run.uid, attempt=run.attempt, keys=run.keys)


def _tell_changes(run: Run) -> None:
    """Say what differs from the job of the attempt before. Raises ConfigError for what this run cannot go on with."""
    path = run.folder / JOB_FILE
    try:
        before = load(path)
        completed = sum(record.kind == "Train" for record in read_history(run.folder / HISTORY_FILE))
    except (JobFileError, ValueError) as e:
        log.warning("%s: cannot be compared with the job that ran before: %s", path, e)
        return
    found = changes.changes(before, run.job, completed)
    if refused := [change.text for change in found if change.refused]:
        raise ConfigError(f"{'; '.join(refused)}; or leave --resume out to start a new run")
    for change in found:
        log.warning("changed since attempt %d: %s", run.attempt - 1, change.text)


def _remove_keys(run: Run, folder: Path) -> None:
    """What a runner that was killed could not remove; never those of a run that this one's folder is a copy of."""
    try:
        document = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        own = folder.name.startswith(_KEYS_PREFIX) and configuration.path_read(document["run"]) == run.folder
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if own:
        shutil.rmtree(folder, ignore_errors=True)


def _write_inputs(run: Run) -> None:
    (run.folder / METRICS_FILE).touch()
    run.port = _free_port()
    if run.watched:
        _write_targets(run)
    _issue_certificates(run)
    scratch = [run.keys / "initial"] if run.job.spec.model.initial is not None else []
    folders = {site.name: run.folder / "sites" / site.name for site in run.job.spec.sites}
    _fill(run, [*scratch, *folders.values()])
    run.processes = {SERVER: _server_process(run)}
    for site in run.job.spec.sites:
        run.processes[site.name] = _site_process(run, site, folders[site.name])


def _write_targets(run: Run) -> None:
    """Addresses of the metrics, in the form of Prometheus' file_sd_configs."""
    run.metrics = {name: f"{ADDRESS}:{_free_port()}" for name in (SERVER, *(site.name for site in run.job.spec.sites))}
    targets = [{"targets": [address], "labels": {"process": name}} for name, address in run.metrics.items()]
    write_whole(run.folder / TARGETS_FILE, json.dumps(targets, indent=1).encode())


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((ADDRESS, 0))
        return int(s.getsockname()[1])


def _issue_certificates(run: Run) -> None:
    now, spec = datetime.now(UTC), run.job.spec
    lifetime = timedelta(seconds=spec.start_deadline_seconds + spec.active_deadline_seconds, hours=1)
    authority = identity.create_authority(run.uid, now=now, lifetime=lifetime)
    server = identity.issue(
        authority,
        authority.server(),
        now=now,
        lifetime=lifetime,
        dns_names=["localhost"],
        ip_addresses=[ADDRESS],
    )
    identity.write(server, run.keys / SERVER)
    for site in spec.sites:
        credentials = identity.issue(authority, authority.site(site.name), now=now, lifetime=lifetime)
        identity.write(credentials, run.keys / site.name)


def _fill(run: Run, folders: list[Path]) -> None:
    """Working folders, with the files that the job carries; else with what lies beside the job file."""
    if texts := run.job.spec.trainer.files:
        for folder in folders:
            site_folder.fill_with_texts(folder, texts)
        return
    what = site_folder.beside(run.source, run.folder, run.keys)
    for folder in folders:
        site_folder.fill(folder, what)
    if shared := what.shared:
        log.warning(
            "not copied for each site, too large: %s; what a script writes there, all sites share", ", ".join(shared)
        )


def _server_process(run: Run) -> Process:
    policy = run.job.spec.failure_policy
    config = configuration.ServerConfig(
        job=run.job,
        uid=run.uid,
        attempt=run.attempt,
        trust_domain=identity.TRUST_DOMAIN,
        listen=f"{ADDRESS}:{run.port}",
        tls=run.keys / SERVER,
        run=run.folder,
        state=run.folder / "state",
        initial=_initial(run),
        metrics=run.metrics.get(SERVER),
    )
    path = run.keys / "server.json"
    configuration.write(path, config)
    environment = {
        **configuration.inherited(), **SERVER_ENVIRONMENT, **_MALLOC, "GRPC_TRACE": "handshaker", "PYTHONUTF8": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "fedjob.server", str(path)]
    return Process(SERVER, command, run.folder, environment, Budget(policy.server_restarts, policy.refill_on_rounds))


def _site_process(run: Run, site: Site, directory: Path) -> Process:
    spec, policy = run.job.spec, run.job.spec.failure_policy
    config = configuration.SiteConfig(
        job=run.job.metadata.name,
        uid=run.uid,
        attempt=run.attempt,
        trust_domain=identity.TRUST_DOMAIN,
        site=site.name,
        sites=tuple(sorted(s.name for s in spec.sites)),
        workflow=spec.workflow.model_dump(mode="json", by_alias=True),
        params_type=ParamsType.DIFF if spec.model.exchange.params == "Diff" else ParamsType.FULL,
        include=spec.model.exchange.include,
        wire_dtype=spec.model.exchange.dtype,
        server=f"{ADDRESS}:{run.port}",
        server_name="localhost",
        tls=run.keys / site.name,
        work=run.folder / "state" / "sites" / site.name,
        server_lost_seconds=policy.server_lost_seconds,
        metrics=run.metrics.get(site.name),
    )
    path = run.keys / f"{site.name}.json"
    configuration.write(path, config)
    own = {variable.name: _as_utf8(variable.value) for variable in (*spec.trainer.env, *site.env)}
    defaults = {**_shared_cores(len(spec.sites)), "PYTHONUTF8": "1"}  # as in a pod, whatever the locale
    # `sh -c "python …"` means the same python as `python …`, and torchrun is the one beside it.
    inherited = configuration.inherited()
    programs = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), inherited.get("PATH")]))
    environment = {**defaults, **inherited, "PATH": programs, **_MALLOC, "PYTHONUNBUFFERED": "1", **own}
    environment[configuration.CONFIG_VARIABLE] = str(path)
    if site.data is not None:
        environment[configuration.DATA_VARIABLE] = str(_data(run, site))
    budget = Budget(policy.site_restarts, policy.refill_on_rounds)
    _check_program(spec.trainer.command[0], directory, environment)
    return Process(site.name, _command(run.job), directory, environment, budget)


def _check_program(program: str, directory: Path, environment: Mapping[str, str]) -> None:
    """Raise ConfigError if the training script's program is not there: once, and not as the death of each site."""
    if program in ("python", "python3"):
        return
    with usable(f"spec.trainer.command: cannot start {program!r}"):
        place = directory / program
        if "/" in program and not place.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if "/" in program and not (place.is_file() and os.access(place, os.X_OK)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if "/" not in program and shutil.which(program, path=environment.get("PATH")) is None:
            raise FileNotFoundError(errno.ENOENT, f"{os.strerror(errno.ENOENT)} in PATH")


def _command(job: FederatedJob) -> list[str]:
    """The training script's command: `python` is the interpreter that runs fedjob; torchrun for several processes."""
    trainer = job.spec.trainer
    holding = (
        warden.COMMAND if sys.platform == "linux" else ()
    )  # what starts sessions of its own outlives the script otherwise
    program, *arguments = map(_as_utf8, trainer.command)
    if program not in ("python", "python3"):
        return [*holding, program, *arguments]
    if trainer.processes_per_node == 1:
        return [*holding, sys.executable, *arguments]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={trainer.processes_per_node}"]
    return [*holding, sys.executable, *torchrun, *arguments]


def _as_utf8(text: str) -> str:
    """What Python turns into the bytes of UTF-8 when it starts a process, whatever the locale."""
    return os.fsdecode(text.encode())


def _shared_cores(sites: int) -> dict[str, str]:
    """The sites share this machine: each library that would take all cores is told its part, unless the user has."""
    return {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // sites, 1))}


def _data(run: Run, site: Site) -> Path:
    path = run.data.get(site.data or "")
    if path is None:
        raise ConfigError(f"site {site.name} needs the data {site.data!r}: say where it is, --data {site.data}=PATH")
    with usable(f"--data {site.data}={path}"):
        if path.exists():
            return path.resolve()
    raise ConfigError(f"--data {site.data}={path}: no such file or folder")


def _initial(run: Run) -> Path | None:
    """The file that the first model is read from, made by the trainer's code if the job names an object."""
    initial = run.job.spec.model.initial
    if initial is None:
        return None
    if initial.path is not None:
        with usable(f"spec.model.initial.path: {initial.path}"):
            path = (run.source / initial.path).resolve()
            if path.is_file():
                return path
        raise ConfigError(f"spec.model.initial.path: no file {path}")
    path = run.folder / "state" / "initial.safetensors"
    if not path.exists():
        command = [sys.executable, "-m", "fedjob.initial", str(initial.object), str(path)]
        seconds = run.job.spec.start_deadline_seconds
        try:
            made = subprocess.run(
                command, cwd=run.keys / "initial", env={**configuration.inherited(), "PYTHONUTF8": "1"}, capture_output=True,
                encoding="utf-8", errors="replace", check=False, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"spec.model.initial.object: not there after {seconds} s (spec.startDeadlineSeconds)"
            ) from None
        if made.returncode != 0:
            raise ConfigError(f"spec.model.initial.object: {made.stderr.strip() or 'failed'}")
    return path
