"""What a job file becomes when it is sent to a cluster: the user's own fields, and code, but never data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedjob.api import JobFileError, load, loads, validate
from fedjob.cluster.submission import Refused, addressed, code_text, left_behind, one_file, parsed

JOB = """apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata: {name: digits}
spec:
  workflow: {rounds: 10}
  trainer: {command: [python, train.py, --config, config.json, --cohort, patients.csv]}
  sites: [{name: a}, {name: b}]
"""
TREE = {
    "train.py": "import net",
    "net.py": "x = 1",
    "lib/layers.py": "y = 2",
    "config.json": "{}",
    "patients.csv": "name,age",
    "runs/digits-01/trainer/train.py": "old",
    ".git/hook.py": "no",
    "__pycache__/train.py": "no",
    "env/pyvenv.cfg": "",
    "env/lib/site.py": "no",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a data scientist has it."""
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def sent(
    folder: Path, before: str = "", after: str = "", patterns: tuple[str, ...] = (), **asked: Any
) -> dict[str, Any]:
    """What is sent for the job file, changed by a replacement."""
    (folder / "job.yaml").write_text(JOB.replace(before, after) if before else JOB)
    return addressed(parsed(folder / "job.yaml", patterns), asked.get("namespace"), "from-context")


def test_the_code_goes_along_and_nothing_that_may_be_data(folder: Path) -> None:
    files = sent(folder)["spec"]["trainer"]["files"]
    assert files == {name: TREE[name] for name in ("train.py", "net.py", "lib/layers.py", "config.json")}


def test_more_goes_along_if_it_is_asked_for_and_then_nothing_else(folder: Path) -> None:
    files = sent(folder, patterns=("*.csv", "train.py"))["spec"]["trainer"]["files"]
    assert set(files) == {"patients.csv", "train.py"}


def test_only_what_the_user_wrote_is_sent(folder: Path) -> None:
    document = sent(folder)
    assert document["spec"].keys() == {"workflow", "trainer", "sites"}
    assert document["spec"]["workflow"] == {"rounds": 10}
    assert document["metadata"] == {"name": "digits", "namespace": "from-context"}
    assert validate(document).spec.trainer.files


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("{command:", "{image: registry.example/digits:1, command:", "in the image registry.example/digits:1"),
        (
            "{command: [python, train.py, --config, config.json, --cohort, patients.csv]}",
            "{files: {train.py: pass}}",
            "train.py (0.0 KiB)",
        ),
    ],
)
def test_a_job_that_has_its_code_is_sent_as_it_is(folder: Path, before: str, after: str, code: str) -> None:
    document = sent(folder, before, after)
    assert document["spec"]["trainer"].get("files", {}) in ({}, {"train.py": "pass"})
    assert code_text(document) == code


def test_one_file_holds_job_code_and_image_and_is_read_as_it_was_written(folder: Path) -> None:
    (folder / "net.py").write_text(
        '"""é \\t"""\n\nx = 1  # a line that is longer than the width of the printed page, ' + "x" * 99 + "\n"
    )
    source = parsed(folder / "job.yaml", ())
    path = folder / "elsewhere" / "cluster.yaml"
    path.parent.mkdir()
    path.write_text(one_file(source, "registry.example/digits:1"))
    job = load(path)
    assert job.spec.trainer.files == source.code
    assert job.spec.trainer.files["net.py"] == (folder / "net.py").read_text()
    assert job.spec.trainer.image == "registry.example/digits:1"
    assert "namespace" not in job.metadata.model_fields_set, "kubectl -n says where"
    assert addressed(parsed(path, ()), None, "n")["spec"]["trainer"]["files"] == source.code
    with pytest.raises(JobFileError, match=r'spec\.trainer\.image: got "no image"'):
        one_file(source, "no image")


@pytest.mark.parametrize(
    "text",
    [
        "a\r\nb\r\n",
        "a\rb",
        "\ufeffa\n",
        "  a\n b \n\n",
        "---\na\n...\n",
        "\n\n",
        "",
        "a\x85b\u2028c\n",
        "\ta\n",
        "x = 'é\U0001f642'",
    ],
)
def test_a_file_keeps_every_byte_on_its_way_into_one_file_and_out_of_it(folder: Path, text: str) -> None:
    (folder / "net.py").write_bytes(text.encode())
    source = parsed(folder / "job.yaml", ())
    assert source.code["net.py"] == text
    assert loads(one_file(source, None)).spec.trainer.files["net.py"] == text


@pytest.mark.parametrize(
    "value",
    [
        "1e3",
        "0o17",
        "0x1F",
        "1_000",
        "no",
        "~",
        "007",
        "2026-01-01",
        "12:30",
        " a ",
        "#",
        "$(A)",
        "null",
        "-",
        "pa$$word",
    ],
)
def test_a_variable_is_still_text_in_one_file(folder: Path, value: str) -> None:
    job = JOB.replace("{command:", f"{{env: [{{name: V, value: {json.dumps(value)}}}], command:")
    (folder / "job.yaml").write_text(job)
    written = one_file(parsed(folder / "job.yaml", ()), None)
    assert loads(written).spec.trainer.env[0].value == value


def test_a_script_that_an_image_keeps_here_is_named(folder: Path) -> None:
    assert left_behind(parsed(folder / "job.yaml", ())) == ""
    (folder / "job.yaml").write_text(JOB.replace("{command:", "{image: digits, command:"))
    assert left_behind(parsed(folder / "job.yaml", ())) == "train.py"
    assert left_behind(parsed(folder / "job.yaml", ("*.py",))) == ""
    (folder / "job.yaml").write_text(
        JOB.replace("{command: [python, train.py", "{image: digits, command: [python, /app/train.py")
    )
    (folder / "config.json").unlink()
    assert left_behind(parsed(folder / "job.yaml", ())) == ""


@pytest.mark.parametrize(
    ("written", "asked", "namespace"),
    [("", None, "from-context"), ("", "n", "n"), (", namespace: m", None, "m"), (", namespace: m", "m", "m")],
)
def test_the_namespace_is_the_files_else_the_command_lines_else_the_contexts(
    folder: Path, written: str, asked: str | None, namespace: str
) -> None:
    document = sent(folder, "name: digits}", f"name: digits{written}}}", namespace=asked)
    assert document["metadata"]["namespace"] == namespace


@pytest.mark.parametrize(
    ("before", "after", "options", "message"),
    [
        pytest.param("name: digits}", "name: digits, namespace: m}", {"namespace": "n"},
                     r"metadata\.namespace: got m, and -n says n", id="two namespaces"),
        pytest.param("train.py", "trian.py", {}, r"spec\.trainer\.command: trian\.py is not in ", id="no such script"),
        pytest.param("spec:", "spec:\n  model: {initial: {path: m.safetensors}}", {},
                     r"spec\.model\.initial\.path: a cluster does not see this file", id="a file of this machine"),
        pytest.param("", "", {"patterns": ("*.txt",)}, r"--files \*\.txt: fits no file in ", id="no such file"),
        pytest.param("", "", {"patterns": ("../*",)}, r"--files \.\./\*: allowed: a pattern within", id="outside"),
    ],
)  # fmt: skip
def test_what_a_cluster_could_not_run_is_refused_with_exit_code_2(
    folder: Path, before: str, after: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused, match=message) as refused:
        sent(folder, before, after, **options)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_code_that_is_too_much_says_how_much_it_is(folder: Path) -> None:
    (folder / "big.py").write_text("#" * 262_144)
    with pytest.raises(
        Refused, match=r"5 files of 2621\d\d bytes, at most 64 of 262144: choose with --files, or build an image"
    ):
        sent(folder)


def test_a_file_that_no_job_can_hold_is_one_line(folder: Path) -> None:
    (folder / "my net.py").write_text("")
    with pytest.raises(JobFileError, match="a relative file name"):
        sent(folder)
    (folder / "my net.py").unlink()
    (folder / "net.py").write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match=r"net\.py: cannot be sent along"):
        sent(folder)
