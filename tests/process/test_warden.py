"""A script of several processes leaves nobody behind, however it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedjob import warden

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the warden is for Linux")
WARDEN = [*warden.COMMAND]

# A child in a session of its own, with a child in yet another: as torchrun's workers, deaf to SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True).wait()"
subprocess.Popen([sys.executable, "-c", middle], start_new_session=True)
"""
GANG = """
import os, time
open(f"rank-{os.environ['RANK']}", "w").write(str(os.getpid()))
time.sleep(600)
"""


def alive(mark: str) -> int:
    """How many live processes carry the mark."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            count += mark.encode() in path.read_bytes()
        except OSError:
            continue
    return count


def start(mark: str, script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*WARDEN, sys.executable, "-c", script], env={**os.environ, "WARDEN_TEST": mark})


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 11)", -11)],
)
def test_it_ends_as_its_command_did_and_leaves_nobody(tmp_path: Path, end: str, code: int) -> None:
    mark = str(tmp_path)
    assert start(mark, FAMILY + end).wait(60) == code
    assert alive(mark) == 0


def test_sigterm_reaches_the_command(tmp_path: Path, until: Callable[..., Any]) -> None:
    ready = tmp_path / "ready"
    script = f"signal.signal(15, lambda *_: sys.exit(5)); open({str(ready)!r}, 'w'); time.sleep(600)"
    warden = start(str(tmp_path), FAMILY + script)
    until(ready.exists)
    warden.terminate()
    assert warden.wait(60) == 5
    assert alive(str(tmp_path)) == 0


def test_a_command_that_cannot_start_says_so() -> None:
    done = subprocess.run([*WARDEN, "/no/such"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (127, "cannot start '/no/such': No such file or directory\n")


def test_a_file_of_the_script_with_a_name_of_the_standard_library_is_not_the_wardens(tmp_path: Path) -> None:
    for name in ("signal.py", "resource.py", "fedjob.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [*WARDEN, sys.executable, "-I", "-c", "print('ran')"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torchrun comes with torch")
def test_a_killed_runner_leaves_no_worker(
    new_job: Callable[..., Any], left_of: Callable[..., dict[int, str]], until: Callable[..., Any]
) -> None:
    trainer = {"command": ["python", "train.py"], "processesPerNode": 2}
    job = new_job(GANG, ["a"], trainer=trainer, workflow={"type": "FedAvg", "rounds": 1})
    started = job.start()
    until(lambda: started.popen.poll() is not None or ((job / "rank-0").exists() and (job / "rank-1").exists()))
    assert started.popen.poll() is None, started.story()
    assert "warden" in left_of(job).values()
    os.kill(started.popen.pid, signal.SIGKILL)
    started.wait()
    until(lambda: not left_of(job))
    for keys in job.keys.glob("fedjob-*"):  # only a resumed run removes what a killed runner could not
        for path in sorted(keys.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        keys.rmdir()
