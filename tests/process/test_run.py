"""`fedjob run` as its user meets it: what it prints and leaves, Ctrl-C and --resume, sites that never come up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Job, Started

# A site trains for as long as the file hold-SITE-ROUND is there; the job waits for its sites while hold-start is.
SCRIPT = """
import os, time
from pathlib import Path
import numpy as np
import fedjob

while Path("hold-start").exists():
    time.sleep(0.002)
fedjob.init({"w": np.zeros(100, np.float32)})
site = fedjob.get_site_name()
while fedjob.is_running():
    model = fedjob.receive()
    Path(f"trains-{site}-{model.current_round}").touch()
    while Path(f"hold-{site}-{model.current_round}").exists():
        time.sleep(0.002)
    noise = np.random.default_rng([model.current_round, ord(site)]).standard_normal(100, np.float32)
    fedjob.send(fedjob.FLModel(params={"w": model.params["w"] + noise}, metrics={"mean": 0.5}))
"""
WORKFLOW = {"rounds": 4, "quorum": 2}
STARTING = "job job starting  4 rounds  2 sites"


@pytest.fixture(scope="module")
def undisturbed(shared_job: Callable[..., Job], until: Callable[..., Any]) -> Started:
    """A run that nothing disturbs, and that was seen before its sites were there: its rounds take milliseconds."""
    job = shared_job(SCRIPT, "ab", workflow=WORKFLOW)
    (job / "hold-start").touch()
    run = job.start()
    until(lambda: STARTING in job.output or run.popen.poll() is not None)
    (job / "hold-start").unlink()
    assert run.wait() == 0, run.story()
    return run


def held(new_job: Callable[..., Job], until: Callable[..., Any]) -> Started:
    """A run in whose round 2 site a has answered and site b trains."""
    job = new_job(SCRIPT, "ab", workflow=WORKFLOW)
    (job / "hold-b-2").touch()
    run = job.start()
    until(lambda: (job / "trains-b-2").exists() and run.is_held(2, "b", "a"))
    return run


def test_a_run_leaves_what_people_read_and_no_key(undisturbed: Started) -> None:
    left = sorted(p.name for p in undisturbed.folder.iterdir())
    assert left == [
        "history.jsonl", "job.yaml", "logs", "metrics.jsonl", "model.safetensors", "report.html", "sites", "state", "status.json",
    ]  # fmt: skip
    assert sorted(p.name for p in (undisturbed.folder / "logs").iterdir()) == ["a.log", "b.log", "server.log"]
    for path in undisturbed.folder.rglob("*"):
        assert path.is_dir() or b"-----BEGIN" not in path.read_bytes(), path
    log = undisturbed.log("server")
    for words in (
        "listens on port",
        "site a attends",
        "round 4 (Train) complete: 2 answers, 0 missing",
        "job complete",
    ):
        assert words in log


def test_a_proxy_for_others_is_not_between_a_site_and_its_server(
    shared_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at the proxy, so whoever asks it for the server gets nowhere."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert (shared_job(SCRIPT, "ab", workflow={"rounds": 1}).run().folder / "model.safetensors").exists()


def test_without_a_terminal_a_run_prints_plain_lines(undisturbed: Started) -> None:
    output = undisturbed.job.output
    assert "\x1b" not in output
    assert "\r" not in output
    for words in (
        "running job in runs/job-01",
        STARTING,
        "job job complete  RoundsCompleted",
        "model   runs/job-01/model.safetensors",
        "report  runs/job-01/report.html",
    ):
        assert words in output.splitlines()


def test_ctrl_c_ends_every_process_and_resume_goes_on_from_there(
    new_job: Callable[..., Job],
    undisturbed: Started,
    until: Callable[..., Any],
    left_of: Callable[[Job], dict[int, str]],
) -> None:
    run = held(new_job, until)
    job = run.job
    job.run("--resume", code=2)
    assert "runs/job-01: another `fedjob run` is at work in this folder" in job.output
    run.popen.send_signal(signal.SIGINT)
    assert run.wait() == 130
    assert left_of(job) == {}
    assert "interrupted; to go on: fedjob run job.yaml --resume" in job.output
    assert run.status["state"] == "Interrupted"
    assert "Traceback" not in job.output

    (job / "hold-b-2").unlink()
    (job / "trains-a-2").unlink()
    resumed = job.run("--resume")
    assert resumed.folder == run.folder
    assert resumed.status["job"]["attempt"] == 2
    assert resumed.model == undisturbed.model
    assert [r.model_digest for r in resumed.history] == [r.model_digest for r in undisturbed.history]
    assert not (job / "trains-a-2").exists(), "what had arrived before the interrupt counts"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_runner_that_is_told_to_end_ends_as_with_ctrl_c(
    number: signal.Signals,
    new_job: Callable[..., Job],
    until: Callable[..., Any],
    left_of: Callable[[Job], dict[int, str]],
) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # a suite behind nohup ignores it, and so would the runner
    try:
        run = held(new_job, until)
    finally:
        signal.signal(number, before)
    for _ in range(2):  # as when a terminal closes
        run.popen.send_signal(number)
    assert run.wait() == 130
    assert left_of(run.job) == {}
    assert not list(run.job.keys.iterdir()), "the keys go"
    assert "interrupted; to go on: fedjob run job.yaml --resume" in run.job.output
    assert (run.folder / "report.html").exists()


def test_a_run_behind_nohup_outlives_its_terminal(new_job: Callable[..., Job], until: Callable[..., Any]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = held(new_job, until)
    finally:
        signal.signal(signal.SIGHUP, before)
    run.popen.send_signal(signal.SIGHUP)
    (run.job / "hold-b-2").unlink()
    assert run.wait() == 0, run.story()


def test_a_run_that_is_complete_goes_on_with_more_rounds_and_says_so_and_never_with_fewer(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(SCRIPT, "abc", workflow={"rounds": 1, "quorum": 2})
    run = job.run()
    document = job.document()
    document["spec"]["workflow"]["rounds"] = 2
    document["spec"]["sites"] = [{"name": name} for name in "abd"]
    job.write(document)
    assert [r.contributors for r in job.run("--resume").history][1:] == [("a", "b", "d")]
    for said in (
        "changed since attempt 1: spec.workflow.rounds: 1 -> 2: 1 are complete, 1 are left",
        "changed since attempt 1: spec.sites[c]: present -> none: takes no part any more; completed rounds keep its share",
        "changed since attempt 1: spec.sites[d]: none -> present: takes part from now on",
    ):
        assert said in job.output.splitlines()
    document["spec"]["workflow"]["rounds"] = 1
    job.write(document)
    before = (run.folder / "job.yaml").read_bytes()
    job.run("--resume", code=2)
    assert "spec.workflow.rounds: 2 -> 1: 2 rounds are complete already and cannot be undone" in job.output
    assert (run.folder / "job.yaml").read_bytes() == before


def test_a_site_that_had_answered_can_be_taken_out_of_the_job(
    new_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    run = held(new_job, until)
    run.popen.send_signal(signal.SIGINT)
    assert run.wait() == 130
    document = run.job.document()
    document["spec"]["sites"] = [{"name": "b"}]
    document["spec"]["workflow"]["quorum"] = 1
    run.job.write(document)
    (run.job / "hold-b-2").unlink()
    assert [r.contributors for r in run.job.run("--resume").history] == [("a", "b")] * 2 + [("b",)] * 2


def test_the_status_names_the_final_model_as_the_command_line_does(undisturbed: Started) -> None:
    path = undisturbed.folder / "model.safetensors"
    command = [sys.executable, "-m", "fedjob.cli.main", "digest", str(path)]
    digest = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    assert undisturbed.status["model"] == {"digest": digest, "size": path.stat().st_size}


def test_a_killed_runner_takes_every_process_with_it_and_the_run_can_be_resumed(
    new_job: Callable[..., Job],
    undisturbed: Started,
    until: Callable[..., Any],
    left_of: Callable[[Job], dict[int, str]],
) -> None:
    run = held(new_job, until)
    run.popen.kill()
    run.popen.wait(10)
    until(lambda: left_of(run.job) == {}, 10)
    (run.job / "hold-b-2").unlink()
    assert run.job.run("--resume").model == undisturbed.model


# Each site leaves a process of its own behind. Site b ends before it has done anything.
BROKEN = """
import os, subprocess
import numpy as np
import fedjob

subprocess.Popen(["sleep", "600"])
if os.environ.get("ENDS"):
    print("no data here", flush=True)
    os._exit(3)
fedjob.init({"w": np.zeros(10, np.float32)})
while fedjob.is_running():
    fedjob.send(fedjob.FLModel(params=fedjob.receive().params))
"""


def test_a_site_whose_restarts_are_used_up_is_given_up_and_the_others_go_on(
    new_job: Callable[..., Job], left_of: Callable[[Job], dict[int, str]]
) -> None:
    broken = {"name": "b", "env": [{"name": "ENDS", "value": "1"}]}
    job = new_job(BROKEN, ["a", broken], workflow={"rounds": 3}, failurePolicy={"siteRestarts": 1})
    run = job.run()
    assert [r.contributors for r in run.history] == [("a",)] * 3
    assert run.missing(2) == {"b": "PeerLost"}
    assert "exit code 3: no data here (1 restart used up)" in run.history[2].missing[0].message
    assert run.site("b")["restarts"] == 1
    assert "b ended with exit code 3: no data here (1 restart used up); see runs/job-01/logs/b.log" in job.output
    assert "site b: RestartBudgetExhausted" in run.log("server")
    assert left_of(job) == {}


def test_a_server_whose_restarts_are_used_up_fails_the_job(
    new_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    job = new_job(SCRIPT, "a", workflow={"rounds": 1}, failurePolicy={"serverRestarts": 0})
    (job / "hold-a-0").touch()
    run = job.start()
    until((job / "trains-a-0").exists)
    run.kill("server")
    assert run.wait() == 1
    assert run.status["reason"] == "RestartBudgetExhausted"
    assert "failed: RestartBudgetExhausted: the server ended with signal SIGKILL" in job.output


@pytest.mark.parametrize("wrong", ["a forgotten --data", "a mistyped command"])
def test_a_run_that_is_refused_leaves_nothing_and_resume_goes_on_with_the_one_before(
    wrong: str, new_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    job = new_job(SCRIPT, [{"name": "a", "data": "scans"}], workflow=WORKFLOW | {"quorum": 1})
    (job / "hold-a-2").touch()
    data = ["--data", f"scans={job.folder}"]
    run = job.start(*data)
    until((job / "trains-a-2").exists)
    run.popen.send_signal(signal.SIGINT)
    assert run.wait() == 130
    document = job.document()
    if wrong == "a mistyped command":
        job.write({**document, "spec": {**document["spec"], "trainer": {"command": ["trayn", "train.py"]}}})
    refused = job.run(*(data if wrong == "a mistyped command" else []), code=2)
    assert not refused.folder.exists()
    job.write(document)
    (job / "hold-a-2").unlink()
    assert job.run("--resume", *data).folder == run.folder
    assert "resuming job in runs/job-01" in job.output
    assert [record.round for record in run.history] == [0, 1, 2, 3]


def test_a_resume_that_is_refused_changes_nothing_that_the_next_one_compares_with(
    new_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    run = held(new_job, until)
    job, document = run.job, run.job.document()
    run.popen.send_signal(signal.SIGINT)
    assert run.wait() == 130
    (job / "hold-b-2").unlink()
    document["spec"]["workflow"]["rounds"] = 5
    job.write({**document, "spec": {**document["spec"], "trainer": {"command": ["trayn", "train.py"]}}})
    job.run("--resume", code=2)
    job.write(document)
    before = len(job.output)
    job.run("--resume")
    assert "spec.workflow.rounds" in job.output[before:], "still compared with the job that ran"


def test_a_runner_that_is_stopped_while_it_prepares_leaves_nothing(
    new_job: Callable[..., Job], until: Callable[..., Any]
) -> None:
    job = new_job(SCRIPT, "a", workflow={"rounds": 1}, model={"initial": {"object": "net:make"}})
    making = job / "making"
    (job / "net.py").write_text(f"import pathlib, time\npathlib.Path({str(making)!r}).touch()\ntime.sleep(600)\n")
    run = job.start()
    until(making.exists)
    run.popen.send_signal(signal.SIGINT)
    assert run.wait() == 130, job.output
    assert job.output.splitlines()[-1] == "interrupted"
    assert not run.folder.exists()


def test_a_command_that_does_not_exist_is_one_clear_line_and_the_next_run_has_its_folder(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(SCRIPT, "ab", workflow=WORKFLOW, trainer={"command": ["trayn", "train.py"]})
    job.run(code=2)
    said = [line for line in job.output.splitlines() if "trayn" in line]
    assert said == ["spec.trainer.command: cannot start 'trayn': No such file or directory in PATH"]
    assert "Traceback" not in job.output
    document = job.document()
    document["spec"]["trainer"]["command"] = ["python", "train.py"]
    document["spec"]["workflow"]["rounds"] = 1
    job.write(document)
    assert job.run().folder.name == "job-01"
    assert "model   runs/job-01/model.safetensors" in job.output


FAILS_LATE = """
import numpy as np, fedjob
from pathlib import Path
fedjob.init({"w": np.ones(3, np.float32)})
while fedjob.is_running():
    model = fedjob.receive()
    if model.current_round == 1 and not Path("MENDED").exists():
        raise ValueError("BOOM")
    fedjob.send(fedjob.FLModel(params=model.params))
"""


def test_a_failure_is_told_once_for_each_death_and_once_as_the_verdict_which_says_how_to_go_on(
    new_job: Callable[..., Job], tmp_path: Any
) -> None:
    mended = tmp_path / "mended"
    job = new_job(
        FAILS_LATE.replace("MENDED", str(mended)), "ab", workflow={"rounds": 2}, failurePolicy={"siteRestarts": 1}
    )
    job.run(code=1)
    told = job.output.splitlines()
    assert [line.partition(" ")[0] for line in told if "BOOM" in line].count("failed:") == 1
    assert len([line for line in told if "BOOM" in line]) == 2 * 2 + 1
    assert told[-2] == (
        "failed: QuorumNotMet: round 2: 1 of 2 answers needed, 0 came (a, b: ValueError: BOOM (1 restart used up))"
    )
    assert told[-1] == "to go on after 1 complete round: fedjob run job.yaml --resume"
    mended.touch()
    assert job.run("--resume").status["state"] == "Complete"
    assert "round 1 of 2 is complete already" in job.output
    assert "lost" not in job.output


def test_a_script_that_dies_before_init_says_why_wherever_people_look(new_job: Callable[..., Job]) -> None:
    job = new_job("import not_there_at_all", "a", workflow={"rounds": 1}, failurePolicy={"siteRestarts": 0})
    run = job.run(code=1)
    why = "ModuleNotFoundError: No module named 'not_there_at_all' (no restart is allowed)"
    for said in (*[line for line in job.output.splitlines() if line.startswith(("failed:", "a ended"))],
                 run.status["message"], run.site("a")["message"]):  # fmt: skip
        assert why in said
    assert "fedjob.init" not in run.status["message"], "it would not help"
    assert why in (run.folder / "report.html").read_text().replace("&#39;", "'")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--resume"], "runs: no run of job to resume; leave --resume out to start one"),
        (["--data", "scans"], "--data scans: got no NAME=PATH, e.g. --data cohort-2024=/srv/cohort"),
        (
            ["--data", "scans=.", "--data", "scans=/"],
            "--data scans=/: scans was given before, as .; its sites name scans",
        ),
        (["--data", "scan=."], "--data scan=.: job has no data scan; its sites name scans"),
        ([], "site a needs the data 'scans': say where it is, --data scans=PATH"),
        (["--data", "scans=nowhere"], "--data scans=nowhere: no such file or folder"),
    ],
)
def test_what_this_machine_cannot_do_is_one_line(
    options: list[str], line: str, new_job: Callable[..., Job], tmp_path: Any
) -> None:
    job = new_job(SCRIPT, [{"name": "a", "data": "scans"}], workflow={"rounds": 1})
    job.run(*options, code=2)
    assert line in job.output.splitlines()
    assert "Traceback" not in job.output


def test_a_script_started_by_hand_says_how_to_start_it() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDJOB_")}
    command = [sys.executable, "-c", "import fedjob; fedjob.init()"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "fedjob run job.yaml" in ended.stderr.splitlines()[-1]
