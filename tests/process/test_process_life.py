"""A script's processes: which of them is in the job, where it works, and that none outlives it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Job

# Each way to run the script's top once more, and one that copies the environment in part. The session goes on undisturbed.
AGAIN = """
import multiprocessing, os, subprocess, sys
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(4, np.float32)})

def forked():
    if (child := os.fork()) == 0:
        try:
            fedjob.init()
        except fedjob.errors.LocalProtocolError as e:
            print("REFUSED", e, flush=True)
        os._exit(0)
    os.waitpid(child, 0)

while fedjob.is_running():
    model = fedjob.receive()
    spawned = multiprocessing.get_context("spawn").Process(target=print, args=("never",))
    spawned.start()
    spawned.join()
    again = subprocess.run([sys.executable, os.path.abspath("train.py")], capture_output=True, encoding="utf-8")
    print("SPAWNED", spawned.exitcode, "AGAIN", again.returncode, again.stderr.splitlines()[-1], flush=True)
    forked()
    fedjob.init()
    fedjob.send(fedjob.FLModel(params=model.params))
"""


def test_an_init_in_what_the_script_starts_is_refused_and_the_session_goes_on(new_job: Callable[..., Job]) -> None:
    run = new_job(AGAIN, "a", workflow={"rounds": 1}, failurePolicy={"siteRestarts": 0}).run()
    log = run.log("a")
    assert "SPAWNED 1 AGAIN 1 fedjob.errors.ConfigError: the training script, process " in log
    assert "is in the job already and has started this process" in log
    assert "REFUSED fedjob.init() was called by process " in log
    assert run.site("a")["restarts"] == 0


# The first process of the site is displaced by one that knows nothing of it. Nobody but the runner can start another.
DISPLACED = """
import os, subprocess, sys, time
from pathlib import Path
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(4, np.float32)})
if not Path("displaced").exists():
    Path("displaced").touch()
    hidden = {k: v for k, v in os.environ.items() if k != "FEDJOB_SESSION"}
    subprocess.Popen([sys.executable, "-c", "import fedjob, time; fedjob.init(); time.sleep(600)"], env=hidden)
    while fedjob.is_running():  # until it is here
        time.sleep(0.01)
while fedjob.is_running():
    fedjob.send(fedjob.FLModel(params=fedjob.receive().params))
"""


def test_a_script_that_was_displaced_by_no_process_of_the_runner_is_started_again(
    new_job: Callable[..., Job], left_of: Callable[..., dict[int, str]]
) -> None:
    job = new_job(DISPLACED, "a", workflow={"rounds": 1})
    run = job.run()
    assert run.site("a")["restarts"] == 1
    assert "a ended with exit code 81: fedjob.errors.Superseded" in job.output
    assert left_of(job) == {}


RANKS = """
import json, os
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(4, np.float32)})
while fedjob.is_running():
    fedjob.send(fedjob.FLModel(params=fedjob.receive().params))
with open("seen", "a", encoding="utf-8") as f:
    f.write(json.dumps([fedjob.system_info()["world_size"], os.environ.get("RANK"), os.environ.get("CITY"), os.environ["HOME"]]) + "\\n")
"""


def test_what_a_launcher_of_something_else_says_of_ranks_and_what_the_locale_is_do_not_matter(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511",
              "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "FEDJOB_SESSION": str(os.getpid())}  # fmt: skip
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    trainer = {
        "command": ["sh", "-c", "exec python train.py Zürich"],
        "env": [{"name": "CITY", "value": "Zürich ✓ $(X) $$"}],
    }
    job = new_job(RANKS.replace('os.environ.get("CITY")', 'os.environb[b"CITY"].decode()'), "ab", workflow={"rounds": 1},
                  trainer=trainer)  # fmt: skip
    job.run()
    assert job.seen("seen") == [[1, None, "Zürich ✓ $(X) $$", os.environ["HOME"]]] * 2


# Like an experiment tracker's helper, and a daemon's double fork.
HELPERS = """
import os, subprocess, sys, time
from pathlib import Path

subprocess.Popen(["sleep", "600"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
"""
JOINS = """
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(4, np.float32)})
while fedjob.is_running():
    model = fedjob.receive()
    Path("trains").touch()
    while Path("hold").exists():
        time.sleep(0.002)
    fedjob.send(fedjob.FLModel(params=model.params))
"""


@pytest.mark.parametrize("end", ["complete", "killed"])
def test_helpers_in_sessions_of_their_own_end_with_the_run(
    end: str, new_job: Callable[..., Job], left_of: Callable[..., dict[int, str]], until: Callable[..., Any]
) -> None:
    job = new_job(HELPERS + JOINS, "a", workflow={"rounds": 1})
    if end == "complete":
        job.run()
        assert left_of(job) == {}
        return
    (job / "hold").touch()
    run = job.start()
    until((job / "trains").exists)
    os.kill(run.popen.pid, signal.SIGKILL)
    run.wait()
    until(lambda: not left_of(job))
    (job / "hold").unlink()
    assert job.run("--resume").folder == run.folder  # it removes the keys as well


FOLDERS = """
import os
from pathlib import Path
import numpy as np
import fedjob
from pkg.helper import ANSWER

site = Path.cwd().name
print("READ", open("data.csv", encoding="utf-8").read(), ANSWER, flush=True)
fedjob.init({"w": np.zeros(4, np.float32)})
while fedjob.is_running():
    fedjob.send(fedjob.FLModel(params=fedjob.receive().params))
    with open("best.pth", "a", encoding="utf-8") as f:
        f.write(fedjob.get_site_name())
"""


def test_each_site_works_in_a_folder_of_its_own_with_what_lies_beside_the_job_file(new_job: Callable[..., Job]) -> None:
    job = new_job("", "ab", workflow={"rounds": 1})
    (job / "train.py").write_text(FOLDERS)
    (job / "data.csv").write_text("1,2")
    (job / "best.pth").write_text("")
    (job / "pkg").mkdir()
    (job / "pkg" / "helper.py").write_text("ANSWER = 42")
    run = job.run()
    assert {s: (run.folder / "sites" / s / "best.pth").read_text() for s in "ab"} == {"a": "a", "b": "b"}
    assert (job / "best.pth").read_text() == ""
    assert "READ 1,2 42" in run.log("a")
    document = job.document()
    document["spec"]["workflow"]["rounds"] = 2
    job.write(document)
    job.run("--resume")
    assert (run.folder / "sites" / "a" / "best.pth").read_text() == "aa"
    assert Path(run.folder / "sites" / "b" / "data.csv").read_text() == "1,2"
