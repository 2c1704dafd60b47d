"""The `fedjob` command from outside: help, validate, schema, report, and their exit codes. Running jobs: tests/process."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedjob.cli.commands import _again
from fedjob.records import HISTORY_FILE, RoundRecord, append

LOCAL = ("run", "validate", "schema", "report", "manifest")
COMMANDS = (*LOCAL, "submit", "get", "status", "logs", "suspend", "resume", "download", "cancel")
JOB = """apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata: {name: digits}
spec:
  workflow: {rounds: 10}
  trainer: {command: [python, train.py]}
  sites: [{name: a}, {name: b}]
"""


def fedjob(*arguments: str | Path, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command, with a terminal's width but without a terminal."""
    environment = {**os.environ, "COLUMNS": "200", **variables}
    command = [sys.executable, "-m", "fedjob.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def plain(text: str) -> str:
    """The words of a help page, without its frames."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_and_the_exit_codes(command: str) -> None:
    shown = fedjob(command, "--help")
    assert shown.returncode == 0
    words = plain(shown.stdout)
    assert f"Example: fedjob {command}" in words
    assert "Exit codes: 0" in words


def test_the_command_alone_says_what_there_is() -> None:
    words = plain(fedjob("--help").stdout)
    assert "Exit codes: 0 the job is complete, 1 it failed, 2 the job file or an option is wrong, 130" in words
    assert all(f" {command} " in words for command in COMMANDS)
    assert words.index("On a cluster") < words.index(" submit ")
    version = fedjob("--version")
    assert version.returncode == 0
    assert re.fullmatch(r"fedjob \d+\.\d+\.\d+\S*\n", version.stdout)


def test_a_valid_job_is_one_line_and_exit_code_0(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    checked = fedjob("validate", "job.yaml", folder=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "job.yaml: digits: 2 sites, 10 rounds, valid\n")
    (tmp_path / "one.yaml").write_text(JOB.replace("rounds: 10", "rounds: 1"))
    assert "1 round, valid" in fedjob("validate", "one.yaml", folder=tmp_path).stdout


def test_a_file_and_a_folder_that_were_not_meant_are_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    missing = fedjob("validate", "job.yml", folder=tmp_path)
    assert missing.stderr.rstrip().endswith("No such file or directory; did you mean job.yaml?")
    unnamed = fedjob("run", "job.yaml", "--runs", "", folder=tmp_path)
    assert (unnamed.returncode, unnamed.stderr) == (2, "--runs '': no name of a folder; the current one is --runs .\n")


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        pytest.param("10", "ten", 'job.yaml:5: spec.workflow.rounds: got "ten", allowed: a whole number', id="a type"),
        pytest.param(
            "10", "0", "job.yaml:5: spec.workflow.rounds: got 0, allowed: a whole number from 1", id="a bound"
        ),
        pytest.param("10", "10, quorun: 1", "job.yaml:5: spec.workflow.quorun: .*did you mean quorum", id="a slip"),
        pytest.param(
            "name: b", "name: a", r"job.yaml:7: spec.sites\[1\].name: .*each site once", id="a name given twice"
        ),
        pytest.param("{rounds: 10}", "{rounds: 10", "job.yaml:.*not valid YAML: ", id="no YAML"),
    ],
)
def test_a_wrong_job_is_one_line_with_the_field_and_what_is_allowed(
    before: str, after: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace(before, after))
    for command in ("validate", "run"):
        checked = fedjob(command, "job.yaml", folder=tmp_path)
        assert checked.returncode == 2
        assert checked.stdout == ""
        assert len(checked.stderr.splitlines()) == 1, checked.stderr
        assert re.match(line, checked.stderr), checked.stderr
    assert not (tmp_path / "runs").exists()


def test_a_job_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    checked = fedjob("validate", "nothing.yaml", folder=tmp_path)
    assert checked.returncode == 2
    assert len(checked.stderr.splitlines()) == 1
    assert checked.stderr.startswith("nothing.yaml: ")


def test_the_schema_is_json_that_names_every_field_of_a_job() -> None:
    printed = fedjob("schema")
    assert printed.returncode == 0
    schema = json.loads(printed.stdout)
    assert {"apiVersion", "kind", "metadata", "spec"} <= set(schema["properties"])


def test_a_report_is_built_from_a_run_folder_and_its_path_printed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digits-01"
    folder.mkdir(parents=True)
    append(folder / HISTORY_FILE, RoundRecord(0, contributors=("a",), metrics={"loss": 1.0}))
    built = fedjob("report", "runs/digits-01", folder=tmp_path)
    assert (built.returncode, built.stdout) == (0, "runs/digits-01/report.html\n")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_a_folder_that_is_no_run_gets_no_report(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("kind: FederatedJob\n")
    refused = fedjob("report", ".", folder=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == ".: not a run's folder, which holds history.jsonl; name one such as runs/mnist-01\n"
    assert [each.name for each in tmp_path.iterdir()] == ["job.yaml"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("runs/digits-09", "not a run's folder, which holds history.jsonl; name one such as runs/mnist-01"),
        ("job.yaml", "not a run's folder, which holds history.jsonl; name one such as runs/digits-01"),
        ("other.yaml", "not a run's folder, which holds history.jsonl; name one such as runs/mnist-01"),
        ("digits-01", "not a run's folder; there is runs/digits-01: fedjob report runs/digits-01"),
        ("Digits", "not a run's folder, which holds history.jsonl; name one such as runs/mnist-01"),
        ("x" * 300, "not a run's folder, which holds history.jsonl; name one such as runs/mnist-01"),
    ],
)
def test_a_report_of_no_run_is_one_line_and_asks_no_cluster(given: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    state = tmp_path / "runs" / "digits-01" / "state"
    state.mkdir(parents=True)
    (state / "run.json").write_text('{"format": 1, "job": "digits", "uid": "u", "attempt": 1}')
    refused = fedjob("report", given, folder=tmp_path, KUBECONFIG="nowhere")
    assert (refused.returncode, refused.stderr) == (2, f"{given}: {said}\n")


def test_a_cluster_is_asked_for_a_report_only_of_what_can_be_a_job_and_that_is_said(tmp_path: Path) -> None:
    refused = fedjob("report", "digits", folder=tmp_path, KUBECONFIG="nowhere")
    assert refused.returncode == 3
    first, second = refused.stderr.splitlines()
    assert first == "digits: no run's folder here: the cluster is asked for a job of this name"
    assert second.startswith("no cluster: nowhere cannot be used")


KUBECONFIG = """apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: here, context: {cluster: c, user: u, namespace: team-a}}]
"""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["get", "--kubeconfig", "nowhere"], 3, "no cluster: nowhere cannot be used", id="no kubeconfig"),
        pytest.param(
            ["get", "--kubeconfig", "broken"], 3, "no cluster: broken cannot be used", id="a broken kubeconfig"
        ),
        pytest.param(
            ["get", "--kubeconfig", "good", "--context", "there"], 3, "no context there in good", id="no context"
        ),
        pytest.param(["get", "--kubeconfig", "good"], 3, "no answer from http://127.0.0.1:9", id="nobody there"),
        pytest.param(
            ["logs", "d", "--kubeconfig", "good", "--since", "soon"], 2, "--since: got soon, allowed:", id="a time"
        ),
        pytest.param(
            ["status", "d", "--timeout", "1m"], 2, "--timeout: allowed with --watch or --wait", id="an option alone"
        ),
        pytest.param(["cancel", "d", "--kubeconfig", "good"], 2, "--yes deletes the job without", id="nobody to ask"),
        pytest.param(["get", "d", "-A"], 2, "-A lists all jobs of all namespaces", id="one of all"),
        pytest.param(["submit", "job.yaml"], 2, "job.yaml: cannot be read", id="no job file"),
        pytest.param(["manifest", "job.yaml"], 2, "job.yaml: cannot be read", id="no job file to print"),
    ],
)
def test_a_command_for_a_cluster_that_cannot_work_is_one_line(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "good").write_text(KUBECONFIG)
    (tmp_path / "broken").write_text("a: [")
    refused = fedjob(*arguments, folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert words in refused.stderr


def test_a_local_command_loads_nothing_that_speaks_to_a_cluster() -> None:
    code = "import sys, fedjob.cli.commands; print([m for m in ('kubernetes', 'aiohttp', 'yarl', 'numpy', 'rich.live') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


LONG = "x" * 300


@pytest.mark.parametrize(
    ("before", "after", "options", "line"),
    [
        pytest.param(
            "name: b", "name: b, data: d", ["--data", f"d={LONG}"], "--data d=x+: File name too long", id="data"
        ),
        pytest.param(
            "  trainer:",
            f"  model: {{initial: {{path: {LONG}/m.safetensors}}}}\n  trainer:",
            [],
            "spec.model.initial.path: x+/m.safetensors: File name too long",
            id="first model",
        ),
        pytest.param("", "", ["--runs", "job.yaml"], "--runs .*job.yaml: Not a directory", id="runs: a file"),
        pytest.param("", "", ["--runs", LONG], "--runs x+: File name too long", id="runs: too long"),
        pytest.param("", "", ["--runs", "/proc/runs"], "--runs /proc/runs: No such file", id="runs: none can be made"),
    ],
)
def test_a_path_that_the_system_refuses_is_one_line(
    before: str, after: str, options: list[str], line: str, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace(before, after, 1))
    refused = fedjob("run", "job.yaml", *options, folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    last = refused.stderr.splitlines()[-1]
    assert re.match(line, last), refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_the_command_that_goes_on_with_a_run_is_whole_and_fit_for_a_shell() -> None:
    again = _again(Path("my job.yaml"), Path("else where"), ["scans=/data/a b", "my-data=~/d"], metrics=True)
    assert shlex.split(again) == [
        "fedjob", "run", "my job.yaml", "--resume", "--runs", "else where", "--data", "scans=/data/a b",
        "--data", "my-data=~/d", "--metrics",
    ]  # fmt: skip
    assert _again(Path("job.yaml"), Path("runs"), [], metrics=False) == "fedjob run job.yaml --resume"


def test_a_tilde_that_the_shell_has_left_alone_is_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("name: b", "name: b, data: d"))
    refused = fedjob("run", "job.yaml", "--runs=~/r", "--data", "d=~/no/such", folder=tmp_path, HOME=str(tmp_path))
    assert f"--data d={tmp_path}/no/such: no such file or folder" in refused.stderr.splitlines()
    assert list((tmp_path / "r").iterdir()) == [], "what was refused leaves no folder"


def test_resuming_a_job_that_never_ran_touches_no_run_of_another(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    folder = tmp_path / "runs" / "digits-big-01"
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "run.json").write_text('{"format": 1, "job": "digits-big", "uid": "u", "attempt": 1}')
    refused = fedjob("run", "job.yaml", "--resume", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "runs: no run of digits to resume; leave --resume out to start one\n"
    assert [p.name for p in folder.rglob("*")] == ["state", "run.json"]


@pytest.mark.parametrize(
    "words", [["validate", "job.yaml"], ["schema"], ["manifest", "job.yaml"], ["digest", "job.yaml"], ["--help"], ["--version"],
              ["report", "run"], ["run", "--help"]], ids=" ".join,
)  # fmt: skip
def test_an_output_that_takes_no_more_is_one_line(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "train.py").write_text("")
    (tmp_path / "run").mkdir()
    append(tmp_path / "run" / HISTORY_FILE, RoundRecord(0, contributors=("a",), metrics={"loss": 1.0}))
    command = [sys.executable, "-m", "fedjob.cli.main", *words]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "stdout: No space left on device\n")


# A finder that stands for slow imports: it waits where the commands would be loaded, until it is interrupted.
SLOW = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "fedjob.cli.commands":
            print("loading", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from fedjob.cli.main import main
main()
"""
HELD = """
import sys, time
from fedjob.cli import commands, main
def load(path):
    print("loading", flush=True)
    time.sleep(60)
commands.load = load
sys.argv = ["fedjob", "run", "job.yaml"]
main.main()
"""


@pytest.mark.parametrize("program", [SLOW, HELD], ids=["while it loads", "before there is a run"])
def test_ctrl_c_is_one_line_from_the_beginning(program: str, tmp_path: Path) -> None:
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # where the tests run behind `&`
    started = subprocess.Popen(
        [sys.executable, "-c", f"{heed}\n{program}"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline() == "loading\n"
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=30)[1]
    assert (started.returncode, said) == (130, "interrupted\n")


def test_the_entry_point_loads_nothing_slow() -> None:
    """Before it can say that it was interrupted, Python tells it with a traceback."""
    code = "import sys, fedjob.cli.main; print([m for m in ('typer', 'pydantic', 'yaml', 'rich', 'fedjob.api') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
