"""Flower as deployed: a SuperLink with TLS, SuperNodes, apps in processes of their own, state in memory."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from folders import emptied, lightened
from marks import VARIABLE, Marks, marks
from processes import MeasureError, await_port, contained, free_ports, start, succeed
from usage import watched

from peers import START_SECONDS, PeerRun, Work
from peers.certificates import issue
from peers.environment import environment, versions

VERSION = "1.42.0"
APP = Path(__file__).parent / "flower_app"
_ROLES = {"superlink": "SuperLink", "supernode": "SuperNode", "serverapp": "ServerApp", "clientapp": "ClientApp"}
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def install() -> Path:
    # Its lower bound of certifi may be a release that a package index does not hold yet. certifi is a list of public
    # authorities, of which this deployment uses none.
    return environment("flwr", VERSION, unbound=("certifi",))


def run(folder: Path, work: Work) -> PeerRun:
    """Run one job. Raises MeasureError."""
    venv = install()
    app = shutil.copytree(APP, emptied(folder) / "app")
    with contained(), marks(folder) as seen, watched(_role) as usage:
        env = {**QUIET, "FLWR_HOME": str(folder), "HOME": str(folder), VARIABLE: str(seen.path)}
        deployed = time.monotonic()
        server = _deploy(venv / "bin", folder, env, work.clients)
        began = time.monotonic()
        sizes = f"clients={work.clients} rounds={work.rounds} tensors={work.tensors} values={work.values}"
        submit: list[str | Path] = [venv / "bin/flwr", "run", ".", "benchmark", "--run-config", sizes]
        succeed(start(submit, folder / "submit.log", cwd=app, env=env), folder / "submit.log", START_SECONDS)
        seen.until(lambda m: m.counts["done", work.rounds] > 0, server, folder / "superlink.log", work.seconds)
    lightened(folder)
    seconds = _complete(seen, work)
    first = seen.of("received")[0].seconds
    return PeerRun(
        deployment="SuperLink and SuperNodes, TLS, subprocess isolation",
        versions=versions(venv, "flwr", "numpy", "torch"),
        round_seconds=seconds,
        first_model_seconds=first - began,
        first_model_includes="submission to a SuperLink and SuperNodes that run already",
        with_deployment_seconds=first - deployed,
        usage=usage.summary(),
    )


def _complete(seen: Marks, work: Work) -> list[float]:
    """Seconds from round to round. A failed round of Flower's ends early and would flatter: refuse it."""
    if (received := len(seen.of("received"))) != work.clients * work.rounds:
        raise MeasureError(f"flower: {received} models received, expected {work.clients} x {work.rounds}")
    return seen.intervals()


def _role(command: str, _: dict[str, str]) -> str:
    for part, role in _ROLES.items():
        if part in command:
            return role
    return ""


def _deploy(bin_: Path, work: Path, env: dict[str, str], clients: int) -> subprocess.Popen[bytes]:
    """Start a SuperLink and the SuperNodes; returns the SuperLink once all listen."""
    tls = issue(work)
    port, *nodes = free_ports(1 + clients)
    address = f"127.0.0.1:{port}"
    (work / "config.toml").write_text(
        f'[superlink]\ndefault = "benchmark"\n\n'
        f'[superlink.benchmark]\naddress = "{address}"\nroot-certificates = "{tls.ca}"\n',
        encoding="utf-8",
    )
    files: list[str | Path] = ["--ssl-ca-certfile", tls.ca, "--ssl-certfile", tls.certificate, "--ssl-keyfile", tls.key]
    # The apps are found by name, and nothing is installed while the job runs.
    env = {**env, "PATH": f"{bin_}:/usr/local/bin:/usr/bin:/bin"}
    log = work / "superlink.log"
    listen = ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    server = start([bin_ / "flower-superlink", *files, *listen], log, cwd=work, env=env)
    await_port(port, server, log, START_SECONDS)
    started = []
    for own in nodes:
        log = work / f"supernode-{own}.log"
        join: list[str | Path] = [
            "--root-certificates",
            tls.ca,
            "--superlink",
            address,
            "--host",
            "127.0.0.1",
            "--port",
            str(own),
        ]
        started.append((own, start([bin_ / "flower-supernode", *files, *join], log, cwd=work, env=env), log))
    for own, node, log in started:
        await_port(own, node, log, START_SECONDS)
    return server
