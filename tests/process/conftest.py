"""Jobs as real processes: `fedjob run` with scripts that a test writes, or a server of its own and sites played by the test.

Every process is started with a mark in its environment, so that a test can find those of its job, and none that is left
behind goes unseen. Keys lie in a folder of the test's own (TMPDIR), for the same reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fedjob import api, config, exchange, identity, local
from fedjob import wire_pb2 as wire
from fedjob.errors import ReceiveTimeout
from fedjob.model import FLModel
from fedjob.records import read_history
from fedjob.uplink import Uplink

T = TypeVar("T")
MARK = "TEST_OF_FEDJOB"
PATIENCE_SECONDS = 60.0  # only ever used up by a failure


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Processes of the tests heed Ctrl-C, as those of a terminal do: where a script starts the tests beside itself, they inherit deafness."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_until(condition: Callable[[], T], seconds: float = PATIENCE_SECONDS, pause: float = 0.005) -> T:
    """What `condition` returns, once that is true; AssertionError if it is not by the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(pause)
    return value


def processes(mark: str) -> dict[int, str]:
    """Live processes that carry the mark: pid -> "runner", "server", "warden", or the site's name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            variables = dict(v.partition(b"=")[::2] for v in (path / "environ").read_bytes().split(b"\0"))
            if variables.get(MARK.encode()) == mark.encode():
                site = Path(variables.get(b"FEDJOB_CONFIG", b"").decode()).stem
                command = (path / "cmdline").read_bytes()
                if b"/fedjob/warden.py" in command:
                    site = "warden"  # it has the script's environment
                found[int(path.name)] = site or ("server" if b"fedjob.server" in command else "runner")
    return found


@dataclass
class Job:
    """A job's folder: job.yaml, train.py, and what its script leaves there."""

    folder: Path
    name: str
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def keys(self) -> Path:
        """Where the processes' keys are while the job runs."""
        return self.folder / "tmp"

    def document(self) -> dict[str, Any]:
        """job.yaml, to be changed."""
        return json.loads((self / "job.yaml").read_text())  # type: ignore[no-any-return]

    def write(self, document: Mapping[str, Any]) -> None:
        """job.yaml. JSON is YAML."""
        (self / "job.yaml").write_text(json.dumps(document))

    def start(self, *options: str) -> Started:
        """`fedjob run job.yaml` in the background, without a terminal."""
        environment = {**os.environ, MARK: self.mark, "TMPDIR": str(self.keys), "COLUMNS": "120"}
        command = [sys.executable, "-m", "fedjob.cli.main", "run", "job.yaml", *options]
        with (self / "output").open("ab") as out:
            popen = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        number = len(list((self / "runs").glob("*"))) + (0 if "--resume" in options else 1)
        return Started(self, popen, self / "runs" / f"{self.name}-{number:02d}")

    def run(self, *options: str, code: int = 0) -> Started:
        """`start`, and wait for its end with this exit code."""
        started = self.start(*options)
        assert started.wait() == code, started.story()
        return started

    def lines(self, name: str) -> list[str]:
        """Of a file that the script writes; none before it is there."""
        return (self / name).read_text().splitlines() if (self / name).exists() else []

    def seen(self, name: str) -> list[Any]:
        """The lines of such a file, as JSON."""
        return [json.loads(line) for line in self.lines(name)]

    @property
    def output(self) -> str:
        """What `fedjob run` has printed, over all its runs."""
        return (self / "output").read_text()


@dataclass
class Started:
    """A `fedjob run`."""

    job: Job
    popen: subprocess.Popen[bytes]
    folder: Path

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code."""
        return self.popen.wait(seconds)

    def pid(self, name: str) -> int:
        """Of the server or a site, as soon as it runs."""
        return wait_until(lambda: next((p for p, n in processes(self.job.mark).items() if n == name), 0))

    def kill(self, *names: str) -> None:
        """SIGKILL to each, all at once, as soon as all run; to nobody if the run ends before."""

        def found() -> list[int]:
            pids = {name: pid for pid, name in processes(self.job.mark).items()}
            return [pids[name] for name in names if name in pids]

        wait_until(lambda: len(found()) == len(names) or self.popen.poll() is not None)
        for pid in found():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def model(self) -> bytes:
        """The final model."""
        return (self.folder / "model.safetensors").read_bytes()

    @property
    def status(self) -> dict[str, Any]:
        """status.json, {} before it is there."""
        path = self.folder / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def site(self, name: str) -> dict[str, Any]:
        """A site's part in the status, {} before there is any."""
        return next((s for s in self.status.get("sites", ()) if s["name"] == name), {})

    def is_held(self, number: int, training: str, answered: str) -> bool:
        """Whether these sites train in this round, and the server has the answers of those; all in one status.

        A status alone with the answers may still be of the round before; that somebody trains shows that this one was asked.
        """
        status = self.status
        states = {site["name"]: site["state"] for site in status.get("sites", ())}
        wanted = dict.fromkeys(training, "Training") | dict.fromkeys(answered, "Answered")
        return status.get("progress", {}).get("currentRound") == number and wanted.items() <= states.items()

    @property
    def history(self) -> list[Any]:
        """The rounds' records."""
        return read_history(self.folder / "history.jsonl")

    def missing(self, number: int) -> dict[str, str]:
        """Site -> reason, of a round's record."""
        return {m.site: m.reason for m in self.history[number].missing}

    def log(self, name: str) -> str:
        """A process's log."""
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def story(self) -> str:
        """Everything that a person would look at, for a failed assertion."""
        logs = "".join(f"\n--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted((self.folder / "logs").glob("*")))
        return f"{self.job.output[-3000:]}{logs}"


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Wait for a condition, with a deadline."""
    return wait_until


@pytest.fixture
def left_of() -> Callable[[Job], dict[int, str]]:
    """Live processes of a job."""
    return lambda job: processes(job.mark)


@pytest.fixture
def new_job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Makes jobs, by the arguments of `make_job` but the folder; afterwards no process and no key of any is left."""
    yield from jobs_in(tmp_path)


@pytest.fixture(scope="module")
def shared_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Job]]:
    """`new_job` for jobs that several tests look at."""
    yield from jobs_in(tmp_path_factory.mktemp("shared"))


def jobs_in(folder: Path) -> Iterator[Callable[..., Job]]:
    """What `new_job` gives."""
    jobs: list[Job] = []

    def new(script: str, sites: Any, **spec: Any) -> Job:
        jobs.append(make_job(folder / f"job-{len(jobs)}", script, sites, **spec))
        return jobs[-1]

    yield new
    for job in jobs:
        check_nothing_left(job)


def make_job(folder: Path, script: str, sites: Any, name: str = "job", **spec: Any) -> Job:
    """A job in `folder`. sites: their names, or objects as in the resource; spec: what else the job's spec holds."""
    job = Job(folder, name)
    job.keys.mkdir(parents=True)
    (job / "train.py").write_text(f"import os; os.chdir({str(folder)!r})  # where the test looks\n{script}")
    spec = {
        "trainer": {"command": ["python", "train.py"]},
        "sites": [s if isinstance(s, dict) else {"name": s} for s in sites],
        **spec,
    }
    job.write({"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": {"name": name}, "spec": spec})
    return job


def check_nothing_left(job: Job) -> None:
    """End what is left of a job, and complain if there was anything."""
    left = processes(job.mark)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"still running: {left}"
    assert not list(job.keys.glob("fedjob-*")), "keys are left behind"


# ------------------------------------------------------------------------------------ sites played by the test itself


class Puppet:
    """A site whose script is the test: the same connection and messages, call by call."""

    def __init__(
        self, settings: config.SiteConfig, credentials: identity.Credentials | None = None, attempt: int = 0
    ) -> None:
        self.config = settings
        self.uplink = Uplink(
            settings.server,
            settings.server_name,
            credentials or identity.read(settings.tls),
            attempt or settings.attempt,
            settings.server_lost_seconds,
        )

    def task(self, kind: str = "Train", number: int | None = None) -> wire.Task:
        """The task at hand, once it is of this kind and round."""

        def at_hand() -> wire.Task | None:
            with contextlib.suppress(ReceiveTimeout):
                task = self.uplink.next_task(0.05)
                assert task is not None, f"the job ended while {self.config.site} waited for {kind} {number}"
                if task.key.kind == kind and number in (None, task.key.round):
                    return task
            return None

        task = wait_until(at_hand)
        assert task is not None
        return task

    def fetch(self, task: wire.Task) -> Any:
        """The params of a task."""
        trees = exchange.download(self.uplink, task, {}, self.config)
        assert trees is not None
        return trees["params"]

    def answer(self, task: wire.Task, model: FLModel, **header: Any) -> wire.Verdict:
        """Send a model; header: what to say in it instead of the truth."""
        announce, parts = exchange.announcement(task, model, {}, self.config)
        if header:
            announce.header = json.dumps({**json.loads(announce.header), **header})
        verdict = self.uplink.submit(announce, parts)
        self.uplink.done(task.key)
        return verdict

    def offer(self, params: Any) -> wire.Verdict:
        """Answer the question for an initial model."""
        task = self.task("Offer")
        verdict = self.uplink.submit(*exchange.offer(task, params, {}))
        self.uplink.done(task.key)
        return verdict


class Hosted(Started):
    """A server of its own, without a runner."""

    def __init__(self, job: Job, run: local.Run, **environment: str) -> None:
        self.run = run
        self.puppets: list[Puppet] = []
        super().__init__(job, self._serve(job, environment), run.folder)

    def _serve(self, job: Job, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        server = self.run.processes[local.SERVER]
        variables = {**server.environment, MARK: job.mark, **environment}
        with (self.run.folder / "logs" / "server.log").open("ab") as log:
            return subprocess.Popen(server.command, cwd=server.directory, env=variables, stdout=log, stderr=log)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The server's exit code. Puppets that have heard of the job's end hang up, as scripts do."""

        def over() -> bool:
            for puppet in self.puppets:
                if puppet.uplink._ended is not None:
                    puppet.uplink.close()
            return self.popen.poll() is not None

        wait_until(over, seconds)
        return self.popen.wait()

    def serve_again(self, **environment: str) -> None:
        """Start the server once more, when it has ended."""
        self.wait()
        self.popen = self._serve(self.job, environment)

    def settings(self, site: str) -> config.SiteConfig:
        """What a site's process is told."""
        return config.read_site(str(self.run.keys / f"{site}.json"))

    def puppet(self, site: str, **options: Any) -> Puppet:
        """Play a site."""
        puppet = Puppet(self.settings(site), **options)
        self.puppets.append(puppet)
        return puppet

    def end(self) -> None:
        """End the server, politely and then for certain."""
        for puppet in self.puppets:
            puppet.uplink.close()
        self.popen.terminate()
        try:
            self.popen.wait(20)
        finally:
            self.popen.kill()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Hosted]]:
    """Starts a server for a job whose sites the test plays; afterwards it is ended, and its keys are gone."""
    with contextlib.ExitStack() as stack:

        def start(
            sites: Any,
            prepare: Callable[[local.Run], None] | None = None,
            environment: Mapping[str, str] | None = None,
            **spec: Any,
        ) -> Hosted:
            job = make_job(tmp_path / "hosted", spec.pop("script", ""), sites, **spec)
            run = local.Run(api.load(job / "job.yaml"), job / "runs" / "job-01", job.folder, {})
            stack.enter_context(local.prepared(run, resume=False))
            if prepare is not None:
                prepare(run)
            (job / "output").touch()
            hosted = Hosted(job, run, **(environment or {}))
            stack.callback(hosted.end)
            return hosted

        yield start
