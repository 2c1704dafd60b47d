"""Flower as deployed: a SuperLink with TLS, SuperNodes, apps in processes of their own, state in memory."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from folders import emptied
from marks import VARIABLE, Mark, Marks, marks
from processes import MeasureError, await_port, contained, free_ports, start, succeed

from peers import CLIENTS, ROUND_SECONDS, START_SECONDS, VALUES, PeerRun
from peers.certificates import issue
from peers.environment import environment, versions

VERSION = "1.42.0"
APP = Path(__file__).parent / "flower_app"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def install() -> Path:
    # Its lower bound of certifi may be a release that a package index does not hold yet. certifi is a list of public
    # authorities, of which this deployment uses none.
    return environment("flwr", VERSION, unbound=("certifi",))


def empty_rounds(rounds: int) -> PeerRun:
    """Run one job of so many empty rounds. Raises MeasureError."""
    venv, work = install(), emptied("flower")
    app = shutil.copytree(APP, work / "app")
    with contained(), marks(work) as seen:
        env = {**QUIET, "FLWR_HOME": str(work), "HOME": str(work), VARIABLE: str(seen.path)}
        deployed = time.monotonic()
        server = _deploy(venv / "bin", work, env)
        began = time.monotonic()
        sizes = f"clients={CLIENTS} rounds={rounds} values={VALUES}"
        submit = [venv / "bin/flwr", "run", ".", "benchmark", "--run-config", sizes]
        succeed(start(submit, work / "submit.log", cwd=app, env=env), work / "submit.log", START_SECONDS)
        seen.until(_done, server, work / "superlink.log", START_SECONDS + rounds * ROUND_SECONDS)
    first = seen.of("received")[0].seconds
    return PeerRun(
        deployment="SuperLink and SuperNodes, TLS, subprocess isolation",
        versions=versions(venv, "flwr", "numpy"),
        round_seconds=_complete(seen, rounds),
        first_model_seconds=first - began,
        first_model_includes="submission to a SuperLink and SuperNodes that run already",
        with_deployment_seconds=first - deployed,
    )


def _done(seen: list[Mark]) -> bool:
    return any(m.event == "done" for m in seen)


def _complete(seen: Marks, rounds: int) -> list[float]:
    """Seconds from round to round. A failed round of Flower's ends early and would flatter: refuse it."""
    if (received := len(seen.of("received"))) != CLIENTS * rounds:
        raise MeasureError(f"flower: {received} models received, expected {CLIENTS} x {rounds}")
    return seen.intervals()


def _deploy(bin_: Path, work: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a SuperLink and the SuperNodes; returns the SuperLink once all listen."""
    tls = issue(work)
    port, *nodes = free_ports(1 + CLIENTS)
    address = f"127.0.0.1:{port}"
    (work / "config.toml").write_text(
        f'[superlink]\ndefault = "benchmark"\n\n'
        f'[superlink.benchmark]\naddress = "{address}"\nroot-certificates = "{tls.ca}"\n'
    )
    files = ["--ssl-ca-certfile", tls.ca, "--ssl-certfile", tls.certificate, "--ssl-keyfile", tls.key]
    # The apps are found by name, and nothing is installed while the job runs.
    env = {**env, "PATH": f"{bin_}:/usr/local/bin:/usr/bin:/bin"}
    log = work / "superlink.log"
    listen = ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    server = start([bin_ / "flower-superlink", *files, *listen], log, cwd=work, env=env)
    await_port(port, server, log, START_SECONDS)
    started = []
    for own in nodes:
        log = work / f"supernode-{own}.log"
        join = ["--root-certificates", tls.ca, "--superlink", address, "--host", "127.0.0.1", "--port", str(own)]
        started.append((own, start([bin_ / "flower-supernode", *files, *join], log, cwd=work, env=env), log))
    for own, node, log in started:
        await_port(own, node, log, START_SECONDS)
    return server
