"""The end of a job is on disk before anybody hears of it: a server that is killed at any step of it ends in the same way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedjob import exchange
from fedjob.errors import JobFailed
from fedjob.model import FLModel

if TYPE_CHECKING:
    from conftest import Hosted, Job, Puppet

SEED = int(os.environ.get("FEDJOB_SEED", time.time()))
REASON = "QuorumNotMet: round 2: 2 of 2 answers needed"
ZEROS = {"w": np.zeros(4, np.float32)}

# Loaded by the server's Python before anything else. The process kills itself before the n-th change to a file of the run,
# counted from the moment at which so many rounds are told.
SUICIDE = """
import os, signal, sys

point, rounds, folder = int(os.environ["KILL_BEFORE"]), int(os.environ["KILL_AFTER"]), os.environ["KILL_IN"]
told = count = 0

def hook(event, arguments):
    global told, count
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return
    elif event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"):
        path = arguments[0]
    else:
        return
    if folder not in str(path) or "status.json" in str(path):
        return
    if told < rounds and os.path.exists(folder + "/history.jsonl"):
        with open(folder + "/history.jsonl") as f:
            told = len(f.readlines())
    if told >= rounds:
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
"""


class Site:
    """A site that does what it is asked, for as long as there is a job, and notes what was accepted and how it ended."""

    def __init__(self, puppet: Puppet, wrong_in: int = -1) -> None:
        self.accepted: Counter[tuple[str, int]] = Counter()
        self.end: JobFailed | None = None
        self._puppet, self._wrong_in = puppet, wrong_in
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def heard(self) -> JobFailed | None:
        """How the job ended, as this site has heard it."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "nobody told this site that the job is over"
        return self.end

    def _work(self) -> None:
        puppet = self._puppet
        try:
            while (task := puppet.uplink.next_task(60)) is not None:
                if task.key.kind == "Offer":
                    verdict = puppet.uplink.submit(*exchange.offer(task, ZEROS, {}))
                    puppet.uplink.done(task.key)
                elif exchange.download(puppet.uplink, task, {}, puppet.config) is not None:
                    verdict = puppet.answer(task, self._update(task.key.kind, task.key.round))
                self.accepted[task.key.kind, task.key.round] += verdict.accepted
        except JobFailed as e:
            self.end = e

    def _update(self, kind: str, number: int) -> FLModel:
        element = np.nan if number == self._wrong_in else 1.0
        params = {"w": np.full(4, element, np.float32)} if kind == "Train" else None
        return FLModel(params=params, metrics={"score": 0.9})


def mortal(folder: Path, rounds: int) -> Callable[[int], dict[str, str]]:
    """The environment of a server that is killed at its n-th step past so many rounds, for a job in this folder."""
    (folder / "suicide").mkdir()
    (folder / "suicide" / "sitecustomize.py").write_text(SUICIDE)
    path = os.pathsep.join(filter(None, [str(folder / "suicide"), os.environ.get("PYTHONPATH")]))
    fixed = {"PYTHONPATH": path, "KILL_AFTER": str(rounds), "KILL_IN": str(folder / "hosted" / "runs" / "job-01")}
    return lambda point: {**fixed, "KILL_BEFORE": str(point)}


def lives(run: Hosted, environment: Callable[[int], dict[str, str]]) -> int:
    """Let processes of the server be killed at every third step, until one comes to its end; how many there were.

    The first has been begun, to be killed at its first step. The seed decides which steps of each three it is for the others.
    """
    print(f"seed {SEED}")  # noqa: T201 - shown when the test fails
    count, offset = 1, SEED % 3
    while run.wait() == -signal.SIGKILL:
        run.serve_again(**environment(3 * count + 1 - offset))
        count += 1
    return count


def test_a_job_that_stopped_early_ends_once_wherever_its_server_is_killed(
    host: Callable[..., Hosted], tmp_path: Path
) -> None:
    environment = mortal(tmp_path, rounds=2)
    rule = {"metric": "score", "patienceRounds": 1}
    workflow = {"rounds": 9, "quorum": 2, "stopWhen": rule, "options": {"evaluate": True}}
    run = host("ab", environment=environment(1), workflow=workflow)
    sites = [Site(run.puppet(name)) for name in "ab"]
    assert lives(run, environment) > 4
    assert run.popen.returncode == 0, run.story()
    assert [site.heard() for site in sites] == [None, None]
    rounds = [("Train", 0), ("Train", 1), ("Evaluate", 2)]
    for site in sites:
        last = site.accepted.pop(("Evaluate", 2))  # whose verdict a site does not wait for when it hears of the end
        site.accepted.pop(("Offer", 0), None)
        assert site.accepted == dict.fromkeys(rounds[:2], 1)
        assert last <= 1
    assert [(r.kind, r.round) for r in run.history] == rounds
    assert {r.contributors for r in run.history} == {("a", "b")}, "each answer counts, and once"
    assert run.model.endswith(np.ones(4, np.float32).tobytes())
    assert (run.status["state"], run.status["reason"]) == ("Complete", "score has not improved on 0.9 for 1 rounds")
    assert run.status["progress"]["completedRounds"] == 2
    run.serve_again()
    assert run.wait() == 0, "and it ends in the same way once more, with nobody there"


def test_a_job_that_failed_fails_once_wherever_its_server_is_killed(
    host: Callable[..., Hosted], tmp_path: Path
) -> None:
    environment = mortal(tmp_path, rounds=1)
    run = host("ab", environment=environment(1), workflow={"rounds": 2, "quorum": 2})
    sites = [Site(run.puppet("a")), Site(run.puppet("b"), wrong_in=1)]
    assert lives(run, environment) > 4
    assert run.popen.returncode == 1, run.story()
    assert [str(site.heard()).partition(", ")[0] for site in sites] == [REASON] * 2
    assert (run.status["state"], run.status["reason"]) == ("Failed", "QuorumNotMet")
    assert run.status["progress"]["completedRounds"] == 1
    assert not (run.folder / "model.safetensors").exists()
    run.serve_again()
    assert run.wait() == 1


# What a script does behind its last `send`, or behind its loop. It opens the way for the others, or keeps the job's end waiting.
LATE = """
import os, time
from pathlib import Path
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(4, np.float32)})
site = fedjob.get_site_name()
while fedjob.is_running():
    model = fedjob.receive()
    fedjob.send(fedjob.FLModel(params=model.params))
    if site == "a" and model.current_round == 1 and os.environ["END"] != "behind the loop":
        Path("sent").touch()
        while not Path("../../state/conclusion.json").exists():
            time.sleep(0.002)
        if os.environ["END"] == "exit":
            os._exit(0)
        if os.environ["END"] == "stay":
            time.sleep(600)
        raise RuntimeError("no room for my plots")
if site == "a":
    raise RuntimeError("no room for my plots")
"""
WHY = "a ended with exit code 1 after the job was complete: RuntimeError: no room for my plots; see "


@pytest.mark.parametrize("end", ["behind its last send", "behind the loop", "exit"])
def test_a_script_that_ends_behind_the_job_is_not_waited_for_and_an_error_is_told(
    end: str, new_job: Callable[..., Job]
) -> None:
    job = new_job(LATE.replace("../../", "runs/job-01/"), "ab", workflow={"rounds": 2, "quorum": 2},
                  trainer={"command": ["python", "train.py"], "env": [{"name": "END", "value": end}]})  # fmt: skip
    run = job.run()
    assert [line.startswith(WHY) for line in job.output.splitlines()].count(True) == (end != "exit"), job.output
    assert "model   runs/job-01/model.safetensors" in job.output
    waited = run.status["updatedAt"] - (run.folder / "state" / "conclusion.json").stat().st_mtime
    assert waited < 8, "less than the 10 s in which a site without a connection may come back"


def test_ctrl_c_behind_the_end_of_a_job_leaves_it_complete(
    new_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    job = new_job(LATE.replace("../../", "runs/job-01/"), "ab", workflow={"rounds": 2, "quorum": 2},
                  trainer={"command": ["python", "train.py"], "env": [{"name": "END", "value": "stay"}]})  # fmt: skip
    run = job.start()
    until((run.folder / "state" / "conclusion.json").exists)
    run.popen.send_signal(signal.SIGINT)
    assert run.wait() == 0, run.story()
    assert "interrupted" not in job.output
    assert run.status["state"] == "Complete"
    assert "model   runs/job-01/model.safetensors" in job.output
