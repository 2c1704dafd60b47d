"""How a training script ends, and what follows: started again, left for good, or told apart by its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedjob import config
from fedjob.errors import JobFailed, ServerLost, StaleAttempt, Superseded
from fedjob.wire_pb2 import Announce

if TYPE_CHECKING:
    from conftest import Hosted, Job, Started

# Each site but "stays" ends in round 0, the first time that it is there, in the way that its name says. While the file "hold"
# is there, "stays" trains.
SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
import fedjob

def fail():
    raise ArithmeticError("in a thread")

def thread_fails():
    thread = threading.Thread(target=fail, name="loader")
    thread.start()
    thread.join()
    sys.exit()

ENDS = {
    "exits-1": lambda: sys.exit(1),
    "exits-text": lambda: sys.exit("no data"),
    "exits-hard": lambda: os._exit(3),
    "terminated": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "leaves": lambda: sys.exit(0),
    "leaves-hard": lambda: os._exit(0),
    "thread": thread_fails,
}
with fedjob.init({"w": np.zeros(4, np.float32)}):
    site = fedjob.get_site_name()
    while fedjob.is_running():
        model = fedjob.receive()
        if site in ENDS and not Path(f"ended-{site}").exists():
            Path(f"ended-{site}").touch()
            ENDS[site]()
        while site == "stays" and Path("hold").exists():
            time.sleep(0.002)
        fedjob.send(fedjob.FLModel(params=model.params))
"""
FAIL, LEAVE = ("exits-1", "exits-text", "exits-hard", "terminated"), ("leaves", "leaves-hard", "thread")


@pytest.fixture(scope="module")
def run(shared_job: Callable[..., Job]) -> Started:
    """No round ends by its deadline, and no site is lost for being silent."""
    return shared_job(SCRIPT, ["stays", *FAIL, *LEAVE], workflow={"rounds": 2, "quorum": 5}).run()


@pytest.mark.parametrize("site", FAIL)
def test_a_script_that_fails_is_started_again_and_takes_part_in_the_round(site: str, run: Started) -> None:
    assert run.site(site)["restarts"] == 1
    assert all(site in r.contributors for r in run.history)


@pytest.mark.parametrize("site", LEAVE)
def test_a_script_that_ends_well_before_the_job_has_left(site: str, run: Started) -> None:
    assert run.site(site)["restarts"] == 0
    assert [{m.site: m.message for m in r.missing}[site] for r in run.history] == [
        "ScriptEnded: the script ended without training: call fedjob.init(), then receive and send in `while fedjob.is_running()`"
    ] * 2
    assert run.site(site)["state"] == "Left"


def test_the_servers_log_says_what_each_script_knew_of_its_end(run: Started) -> None:
    log = run.log("server")
    assert "site exits-1: ScriptEnded: the script ended before the job\n" in log
    ended = "site thread: ScriptEnded: the script ended before the job"
    assert f"{ended}, after loader had failed with ArithmeticError: in a thread\n" in log
    assert "site terminated: Script" not in log
    assert "ArithmeticError: in a thread" in run.log("thread")


def test_who_has_left_is_not_waited_for_by_a_server_that_was_started_again(
    new_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    job = new_job(SCRIPT, ["stays", "leaves"], workflow={"rounds": 2})
    (job / "hold").touch()
    run = job.start()
    until(lambda: run.site("leaves").get("state") == "Left")
    run.kill("server")
    (job / "hold").unlink()
    assert run.wait() == 0, run.story()
    assert [r.contributors for r in run.history] == [("stays",)] * 2


# ------------------------------------------------------------------------------------------ exit codes


def environment(run: Hosted, site: str, **changed: Any) -> dict[str, str]:
    """Variables of a script that is started by hand, with the site's own settings or others."""
    path = run.job / f"{site}.json"
    config.write(path, run.settings(site).model_copy(update=changed))
    return {**os.environ, config.CONFIG_VARIABLE: str(path)}


def script(run: Hosted, site: str, **changed: Any) -> subprocess.Popen[str]:
    """A training script of a site, started by hand."""
    command, variables = [sys.executable, "train.py"], environment(run, site, **changed)
    return subprocess.Popen(command, cwd=run.job.folder, env=variables, stderr=subprocess.PIPE, text=True)


def assert_ended_with(kind: type[Any], words: str, process: subprocess.Popen[str]) -> None:
    """The script let this error pass."""
    _, said = process.communicate(timeout=60)
    assert said.splitlines()[-1].startswith(f"fedjob.errors.{kind.__name__}: "), said
    assert words in said.splitlines()[-1]
    assert process.returncode == kind.exit_code


def test_each_end_that_is_not_the_scripts_fault_has_an_error_and_an_exit_code(
    host: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    run = host("ab", script=SCRIPT, workflow={"rounds": 1, "quorum": 2})
    assert_ended_with(StaleAttempt, "attempt 7, the job is at attempt 1", script(run, "a", attempt=7))
    older = script(run, "a")
    until(lambda: "site a attends" in run.log("server"))
    newer = run.puppet("a")
    assert_ended_with(Superseded, "a newer process of this site has connected", older)
    other = script(run, "b")
    newer.offer({"w": np.zeros(4, np.float32)})
    task = newer.task("Train")
    newer.uplink.submit(Announce(key=task.key, attempt=1, upload="x", declined="no data"), ())
    assert_ended_with(JobFailed, "QuorumNotMet: round 1", other)
    assert run.wait() == 1
    assert_ended_with(
        ServerLost, "for 1 s (failurePolicy.serverLostSeconds)", script(run, "b", server_lost_seconds=1.0)
    )
    assert len({kind.exit_code for kind in (JobFailed, Superseded, StaleAttempt, ServerLost)} | {0, 1, 2}) == 7


RULES = [
    {"name": "data", "onExitCodes": {"values": [3]}, "action": "FailSite"},
    {"name": "flaky", "onExitCodes": {"values": [143]}, "action": "Ignore"},
]


def test_rules_of_the_failure_policy_decide_by_exit_code(new_job: Callable[..., Job]) -> None:
    """One site is given up at its first death, another is started again though it may not die once."""
    policy = {"siteRestarts": 0, "rules": RULES}
    sites = ["stays", "terminated", "exits-hard"]
    run = new_job(SCRIPT, sites, workflow={"rounds": 2, "quorum": 2}, failurePolicy=policy).run()
    assert run.site("exits-hard")["restarts"] == 0
    assert run.site("terminated")["restarts"] == 1
    assert all({"stays", "terminated"} <= set(r.contributors) for r in run.history)
    said = {m.site: m.message for m in run.history[1].missing}["exits-hard"]
    assert said == "SiteFailedByRule: exit code 3 (rule data of failurePolicy: FailSite)"


def test_a_rule_ends_the_whole_job(new_job: Callable[..., Job]) -> None:
    rules = [{"name": "bug", "onExitCodes": {"values": [1]}, "action": "FailJob"}]
    run = new_job(SCRIPT, ["stays", "exits-1"], workflow={"rounds": 2}, failurePolicy={"rules": rules}).run(code=1)
    assert (run.status["state"], run.status["reason"]) == ("Failed", "FailedByRule")
    assert "exits-1: exit code 1 (rule bug of failurePolicy: FailJob)" in run.status["message"]


# ------------------------------------------------------------------------------------------ the first process of a container

# As in a pod, where the script is process 1: the kernel gives that one no signal for which it has no handler.
FIRST = """
import multiprocessing, os, signal, sys
from pathlib import Path
import numpy as np
import fedjob

if "own handler" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
with fedjob.init({"w": np.zeros(4, np.float32)}):
    fedjob.receive()
    Path("pid").write_text(str(os.getpid()))
    if "worker" in sys.argv:
        worker = multiprocessing.get_context("fork").Process(target=signal.pause)
        worker.start()
        worker.terminate()  # maybe before its first statement
        worker.join()
        os._exit(-worker.exitcode)
    signal.pause()
"""


def _can_unshare() -> bool:
    return (
        sys.platform == "linux" and subprocess.run(["unshare", "--pid", "--fork", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not _can_unshare(), reason="a namespace of processes needs Linux and root")
@pytest.mark.parametrize(("kind", "code"), [("plain", 143), ("own handler", 7), ("worker", 15)])
def test_a_script_that_is_a_containers_first_process_heeds_sigterm(
    kind: str, code: int, host: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    run = host("a", script=FIRST, workflow={"rounds": 1})
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "train.py", kind]
    with subprocess.Popen(command, cwd=run.job.folder, env=environment(run, "a")) as outer:
        if kind != "worker":
            until(lambda: (run.job / "pid").exists() and (run.job / "pid").read_text())
            os.kill(_child(outer.pid), signal.SIGTERM)
        assert outer.wait(60) == code
        assert (run.job / "pid").read_text() == "1"


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
