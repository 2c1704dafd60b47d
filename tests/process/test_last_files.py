"""What people read never decides how a job ends: a disk that is full, a reader that is gone, a crash that looks like a verdict."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from fedjob import conclusion, config, local, supervision
from fedjob.cli.live import watch
from fedjob.conclusion import Conclusion
from fedjob.records import STATUS_FILE, Progress, Status, write_status

if TYPE_CHECKING:
    from conftest import Hosted, Job

# When the job is over, nothing can take the names of the files that people would read.
SCRIPT = """
import os
from pathlib import Path
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(4, np.float32)})
while fedjob.is_running():
    fedjob.send(fedjob.FLModel(params=fedjob.receive().params))
run = Path(os.environ["RUN"])
for name in ("status.json", "report.html"):
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
"""


def without_server(host: Callable[..., Hosted]) -> local.Run:
    """A run whose server has just died."""
    hosted = host("a", workflow={"rounds": 1})
    hosted.popen.kill()
    hosted.wait()
    return hosted.run


def test_a_job_whose_last_files_cannot_be_written_and_whose_output_nobody_takes_is_complete(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(SCRIPT, "a", workflow={"rounds": 1})
    document = job.document()
    folder = job / "runs" / "job-01"
    document["spec"]["trainer"]["env"] = [{"name": "RUN", "value": str(folder)}]
    job.write(document)
    command = [sys.executable, "-m", "fedjob.cli.main", "run", "job.yaml"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=job.folder, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "running job in runs/job-01", "stdout", "not written",
    ]  # fmt: skip
    assert (folder / "model.safetensors").exists()


def test_a_server_that_cannot_start_for_no_fault_of_its_configuration_ends_with_70(
    host: Callable[..., Hosted], tmp_path: Path
) -> None:
    """Python ends with 1 by itself, which would be the verdict that the job has failed."""
    run = host("a", workflow={"rounds": 1})
    path = run.run.keys / "server.json"
    (tmp_path / "file").touch()
    config.write(path, config.read_server(path).model_copy(update={"run": tmp_path / "file" / "run"}))
    done = subprocess.run(
        [sys.executable, "-m", "fedjob.server", str(path)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 70, done.stderr.decode()


def test_an_exit_code_of_the_server_is_a_verdict_only_if_the_verdict_is_on_the_disk(
    host: Callable[..., Hosted],
) -> None:
    run = without_server(host)
    server = run.processes[local.SERVER]
    exits: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for code in (0, 1):
        assert supervision._server_ended(run, exits, server, code) is None
        assert server.due is not None
        server.due = None
    conclusion.save(run.folder / "state", 1, run.job.model_dump_json(), Conclusion("Failed", "QuorumNotMet"))
    assert supervision._server_ended(run, exits, server, 1) == 1
    assert server.due is None


def test_a_server_that_refuses_its_configuration_says_why(host: Callable[..., Hosted]) -> None:
    run = without_server(host)
    (run.folder / "logs" / "server.log").write_text("ConfigError: server.json: not a configuration\n")
    server = run.processes[local.SERVER]
    assert supervision._server_ended(run, queue.SimpleQueue(), server, 2) == 2
    status = run.status()
    assert status is not None
    assert (status.state, status.message) == (
        "Failed", "ConfigError: server.json: not a configuration; see logs/server.log",
    )  # fmt: skip


def test_the_end_is_not_shown_before_the_servers_last_status(host: Callable[..., Hosted]) -> None:
    """The verdict is on the disk before the last rounds are in the status: a view that ended there would lose them."""
    run = without_server(host)
    status = replace(run.first_status(), state="Running", updated_at=1.0)
    write_status(run.folder / STATUS_FILE, status)
    conclusion.save(run.folder / "state", 1, run.job.model_dump_json(), Conclusion("Complete", "RoundsCompleted"))
    console = Console(file=StringIO(), width=80)
    looks = 0

    def latest() -> Status | None:
        nonlocal looks
        looks += 1
        if looks == 2:
            progress = Progress(0, 1, 1)
            sites = tuple(replace(site, state="Refused", message="BadWeight: 0") for site in status.sites)
            last = replace(status, state="Complete", reason="RoundsCompleted", progress=progress, sites=sites)
            write_status(run.folder / STATUS_FILE, last)
        return run.status()

    watch(latest, threading.Event(), console)
    told = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert told[1].endswith("refused: BadWeight: 0")
    assert told[2].startswith("round 1/1")
    assert told[3].startswith("job ")
    assert told[3].endswith("complete  RoundsCompleted")


def test_a_verdict_that_no_status_tells_is_told_once_the_server_is_over(host: Callable[..., Hosted]) -> None:
    run = without_server(host)
    write_status(run.folder / STATUS_FILE, replace(run.first_status(), state="Running"))
    conclusion.save(run.folder / "state", 1, run.job.model_dump_json(), Conclusion("Failed", "QuorumNotMet"))
    run.over = True
    status = run.status()
    assert status is not None
    assert (status.state, status.reason) == ("Failed", "QuorumNotMet")


def test_a_site_in_whose_name_the_runner_speaks_has_not_connected(host: Callable[..., Hosted]) -> None:
    run = without_server(host)
    site = replace(run.first_status().sites[0], state="Waiting")
    write_status(run.folder / STATUS_FILE, replace(run.first_status(), state="Starting", sites=(site,)))
    assert [each.state for each in run.status().sites] == ["Waiting"]  # type: ignore[union-attr]
    run.processes["a"].final = True
    assert [each.state for each in run.status().sites] == ["Absent"]  # type: ignore[union-attr]


def test_what_a_script_did_wrong_comes_with_the_next_step(host: Callable[..., Hosted]) -> None:
    run = without_server(host)
    write_status(run.folder / STATUS_FILE, run.first_status())
    site = run.processes["a"]
    step = "call fedjob.init(), then receive and send in `while fedjob.is_running()`"
    assert supervision._left_early(run, site) == f"the script ended without training: {step}"
    site.said = 0
    (run.folder / "logs" / "a.log").write_text("python: can't open file '/x/../train.py': [Errno 2] No such file\n")
    assert "; each site runs in a folder of its own, " in supervision._how(run, site, 2)
    (run.folder / "logs" / "a.log").write_text("ValueError: 1\n")
    assert supervision._how(run, site, 1) == "exit code 1: ValueError: 1"


WAITING = """
import time
from pathlib import Path
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(4, np.float32)})
while fedjob.is_running():
    model = fedjob.receive()
    while Path("hold").exists():
        time.sleep(0.005)
    fedjob.send(fedjob.FLModel(params=model.params))
"""


@pytest.fixture
def small_disk(new_job: Callable[..., Job]) -> Iterator[Job]:
    """A job whose runs are on a disk of their own."""
    job = new_job(WAITING, "a", workflow={"rounds": 2})
    (job / "runs").mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", job / "runs"], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount one: {made.stderr.decode().strip()}")
    yield job
    subprocess.run(["umount", "--lazy", job / "runs"], check=True)


def test_a_run_whose_disk_is_full_says_so_once_where_it_can(small_disk: Job, until: Callable[..., Any]) -> None:
    job = small_disk
    (job / "hold").touch()
    run = job.start()
    until(lambda: run.site("a").get("state") == "Training")
    ballast = job / "runs" / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(512)):
            pass
    until(lambda: "No space left on device" in job.output)
    ballast.unlink()
    until(lambda: "there is room again" in job.output)
    (job / "hold").unlink()
    assert run.wait() == 0, run.story()
    assert job.output.count("No space left on device: the job waits until there is room") == 1


def test_a_status_that_cannot_be_written_is_logged_once_and_written_as_soon_as_it_can_be(
    host: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    hosted = host("a", prepare=lambda run: (run.folder / STATUS_FILE).mkdir(), workflow={"rounds": 1})
    until(lambda: "status is not written: " in hosted.log("server"))
    hosted.puppet("a")
    until(lambda: "site a attends" in hosted.log("server"))
    (hosted.folder / STATUS_FILE).rmdir()
    until(lambda: "status is written again" in hosted.log("server"))
    assert hosted.log("server").count("status is not written: ") == 1
    assert hosted.site("a")
