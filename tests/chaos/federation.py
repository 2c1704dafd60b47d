"""A real job under faults: its folder, its processes, and a line of its own between each site and the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import processes
from chaos.faults import RUNNER, SERVER, SITES, Shape
from chaos.proxy import Line
from fedjob import api
from fedjob.records import RoundRecord, read_history

NAME = "job"
_SCRIPT = Path(__file__).with_name("train.py")
_NEVER = 1000  # restarts: more than any schedule needs


@dataclass
class Federation:
    """One job. environment: of all its processes, over this one's; of_site: of one site's, over that."""

    folder: Path
    shape: Shape
    environment: Mapping[str, str] = field(default_factory=dict)
    of_site: Callable[[str], Mapping[str, str]] = lambda _: {}
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    lines: dict[str, Line] = field(default_factory=dict)
    runner: subprocess.Popen[bytes] | None = None

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / f"{NAME}-01"

    @property
    def state(self) -> Path:
        """What the server goes on from."""
        return self.run / "state"

    @property
    def scratch(self) -> Path:
        """Where the processes' keys and temporary files are."""
        return self.folder / "tmp"

    def write(self, **spec: Any) -> None:
        """The job's files. spec: what its spec holds besides the usual."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_SCRIPT, self.folder / "train.py")
        sites = [
            {"name": n, "env": _variables({"THROUGH": f"127.0.0.1:{line.port}", **self.of_site(n)})}
            for n, line in self.lines.items()
        ]
        spec = {
            "workflow": {"rounds": self.shape.rounds, "quorum": len(SITES)},
            "model": {"exchange": {"params": self.shape.params}},
            "failurePolicy": {"serverRestarts": _NEVER, "siteRestarts": _NEVER},
            "trainer": {
                "command": ["python", "train.py"],
                "env": _variables({"ELEMENTS": str(self.shape.elements), "TRAININGS": str(self.folder / "trainings")}),
            },
            "sites": sites,
            **spec,
        }
        document = {"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": {"name": NAME}, "spec": spec}
        (self.folder / "job.yaml").write_text(json.dumps(document))  # JSON is YAML

    def start(self, *options: str) -> None:
        """`fedjob run job.yaml`, with --resume for one that was killed."""
        environment = {
            **os.environ,
            **self.environment,
            processes.MARK: self.mark,
            "TMPDIR": str(self.scratch),
            "COLUMNS": "120",
        }
        command = [sys.executable, "-m", "fedjob.cli.main", "run", "job.yaml", *options]
        with (self.folder / "output").open("ab") as out:
            self.runner = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def pids(self, *names: str) -> dict[str, int]:
        """Of these that live now; without names, of all."""
        return {n: pid for pid, n in processes.find(self.mark).items() if not names or n in names}

    async def all_of(self, *names: str) -> dict[str, int]:
        """The pids of these, as soon as all live; some may be starting just now. Fewer if the job ends meanwhile."""

        def all_live() -> bool:
            return len(self.pids(*names)) == len(names) or self.exit_code is not None

        await processes.until(all_live, 60.0, f"{', '.join(names)} alive", pause=0.05)
        return self.pids(*names)

    async def kill_runner(self) -> None:
        """SIGKILL to `fedjob run`; returns when all processes of the job are gone."""
        assert self.runner is not None
        self.runner.kill()
        await asyncio.to_thread(self.runner.wait, 30.0)
        await processes.until(lambda: not self.pids(), 30.0, "the kernel has ended the runner's processes")

    @property
    def exit_code(self) -> int | None:
        """Of the runner, once it has ended."""
        assert self.runner is not None
        return self.runner.poll()

    @property
    def trainings(self) -> int:
        """How many have begun."""
        path = self.folder / "trainings"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    @property
    def history(self) -> list[RoundRecord]:
        """The rounds' records."""
        return read_history(self.run / "history.jsonl")

    @property
    def output(self) -> str:
        """What the runners have printed."""
        path = self.folder / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    def log(self, name: str) -> str:
        """A process's log."""
        path = self.run / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def story(self, size: int = 4000) -> str:
        """What a person would look at first: the ends of everything that was printed."""
        parts = {RUNNER: self.output} | {name: self.log(name) for name in (SERVER, *SITES)}
        return "".join(f"\n--- {name}\n{text[-size:]}" for name, text in parts.items())

    def server_address(self) -> tuple[str, int]:
        """Where the server of the attempt that runs now listens. Raises OSError if there is none yet."""
        try:
            keys = Path(json.loads((self.state / "run.json").read_text())["keys"])
            host, port = json.loads((keys / "a.json").read_text())["server"].split(":")
        except ValueError as e:
            raise OSError(f"no server yet: {e}") from e
        return host, int(port)

    @property
    def keys(self) -> Path:
        """Where the certificates of the attempt that runs now are."""
        return Path(json.loads((self.state / "run.json").read_text())["keys"])


def _variables(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


@contextlib.asynccontextmanager
async def federation(
    folder: Path,
    shape: Shape,
    environment: Mapping[str, str] | None = None,
    of_site: Callable[[str], Mapping[str, str]] = lambda _: {},
    **spec: Any,
) -> AsyncIterator[Federation]:
    """A job that is ready to start, of what `Federation` names; spec: see `write`. Afterwards none of its processes is left."""
    this = Federation(folder, shape, environment or {}, of_site)
    async with contextlib.AsyncExitStack() as stack:
        for name in SITES:
            this.lines[name] = await stack.enter_async_context(Line(this.server_address).listening())
        this.write(**spec)
        try:
            yield this
        finally:
            processes.send(this.pids().values(), signal.SIGKILL)
            if this.runner is not None:
                this.runner.kill()
                this.runner.wait()
