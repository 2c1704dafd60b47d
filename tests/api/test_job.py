"""The resource: what a short job means, and which rules between fields hold."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedjob.api import JobFileError, cluster_only, loads, reason, validate

HERE = Path(__file__).parent
TEN_LINES = (HERE / "ten-lines.yaml").read_text()


def full_document() -> dict[str, Any]:
    return yaml.safe_load((HERE / "full.yaml").read_text())  # type: ignore[no-any-return]


def change(path: str, value: Any) -> dict[str, Any]:
    """The full document with the value at a dotted path replaced; list positions are numbers."""
    document: Any = full_document()
    *parents, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place = document
    for step in parents:
        place = place[step]
    place[last] = value
    return document  # type: ignore[no-any-return]


def problem(document: dict[str, Any]) -> str:
    with pytest.raises(JobFileError) as error:
        validate(document)
    return str(error.value)


def test_ten_lines_are_enough_and_every_other_field_has_its_default() -> None:
    assert len(TEN_LINES.splitlines()) <= 10
    job = loads(TEN_LINES)
    assert job.metadata.namespace == "default"
    assert (job.spec.workflow.type, job.spec.workflow.rounds, job.spec.workflow.close) == ("FedAvg", 10, "Deadline")
    assert (job.spec.effective_quorum, job.spec.required_sites) == (1, ())
    assert job.spec.trainer.command == ("python", "train.py")
    assert [site.name for site in job.spec.sites] == ["hospital-a", "hospital-b"]
    assert job.spec.server.storage.size == "20Gi"


def test_a_job_cannot_be_changed() -> None:
    job = loads(TEN_LINES)
    with pytest.raises(ValueError, match="frozen"):
        job.spec.workflow.rounds = 3


def test_the_quorum_defaults_to_the_number_of_required_sites() -> None:
    text = TEN_LINES.replace("name: hospital-a", "{name: hospital-a, required: true}").replace(
        "name: hospital-b", "{name: hospital-b, required: true}"
    )
    assert loads(text).spec.effective_quorum == 2


def test_a_job_that_carries_train_py_needs_no_command() -> None:
    job = loads(TEN_LINES.replace("{command: [python, train.py]}", "{files: {train.py: pass}}"))
    assert job.spec.trainer.command == ("python", "train.py")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param(
            change("spec/workflow/quorum", 3),
            "spec.workflow.quorum: got 3, allowed: at most 2, the number of sites",
            id="a quorum has at most as many results as there are sites",
        ),
        pytest.param(
            change("spec/sites/1", {"name": "hospital-b", "required": True}),
            "spec.workflow.quorum: got 1, allowed: at least 2, the number of required sites",
            id="a quorum counts every required site",
        ),
        pytest.param(
            change("spec/workflow/clientsPerRound", 3),
            "spec.workflow.clientsPerRound: got 3, allowed: at most 2, the number of sites, or 0 for all",
            id="a round asks at most all sites",
        ),
        pytest.param(
            change("spec/workflow", {"rounds": 1, "quorum": 2, "clientsPerRound": 1}),
            "spec.workflow.clientsPerRound: got 1, allowed: at least 2, the quorum, or 0 for all sites",
            id="a round asks at least a quorum",
        ),
        pytest.param(
            change("spec/workflow", {"rounds": 1, "quorum": 2, "close": "Quorum"}),
            'spec.workflow.close: got "Quorum", allowed: Deadline; Quorum needs a quorum below the number of sites '
            "asked, and both are 2",
            id="closing at the quorum needs more sites asked than the quorum",
        ),
        pytest.param(
            change("spec/workflow/stopWhen", {"metric": "loss"}),
            "spec.workflow.stopWhen.value: missing, allowed: value or patienceRounds, or both",
            id="a stop condition has a value or a patience",
        ),
        pytest.param(
            change("spec/trainer/command", ["bash", "train.sh"]),
            'spec.trainer.command[0]: got "bash", allowed: python or python3, as processesPerNode is above 1 and the '
            "command is started under torchrun",
            id="several processes need a command that torchrun can start",
        ),
        pytest.param(
            change("spec/trainer", {"command": ["bash"], "nodes": 2}),
            'spec.trainer.command[0]: got "bash", allowed: python or python3, as nodes is above 1 and the command is '
            "started under torchrun",
            id="several nodes need a command that torchrun can start",
        ),
        pytest.param(
            change("spec/scheduling/tolerations", [{"value": "a"}]),
            'spec.scheduling.tolerations[0].operator: got "Equal", allowed: Exists, as there is no key',
            id="a toleration of every taint is not of one value",
        ),
        pytest.param(
            change("spec/scheduling/tolerations", [{"key": "a", "operator": "Exists", "value": "b"}]),
            'spec.scheduling.tolerations[0].value: got "b", allowed: no value, as operator is Exists',
            id="a toleration of every value has none",
        ),
        pytest.param(
            change("spec/trainer", {"files": {"main.py": ""}}),
            "spec.trainer.command: missing, allowed: a list of 1 to 64 strings, or a file train.py in files",
            id="a trainer without train.py needs a command",
        ),
        pytest.param(
            change("spec/trainer/files", {"train.py": "é" * 100_000, "b": "x" * 62_145}),
            'spec.trainer.files: got "262145 bytes", allowed: at most 262144 bytes in all; larger code belongs in the image',
            id="files are bounded by their bytes, not by their characters",
        ),
        pytest.param(
            change("spec/trainer/files", {"train.py": "", "lib": "", "lib/net.py": ""}),
            'spec.trainer.files["lib/net.py"]: got "lib/net.py", allowed: another folder, as lib is a file',
            id="a file is not a folder",
        ),
        pytest.param(
            change("spec/trainer/files", {"train.py": "", "../net.py": ""}),
            'spec.trainer.files["../net.py"]: got "../net.py", allowed: a relative file name of letters, digits, '
            "'_', '-', '.' and '/', without '..' (at most 253 characters)",
            id="a file stays in its folder",
        ),
        pytest.param(
            change("spec/trainer/env", [{"name": "FEDJOB_DATA", "value": ""}]),
            'spec.trainer.env[0].name: got "FEDJOB_DATA", allowed: a name that does not begin with FEDJOB_',
            id="our own variables cannot be set",
        ),
        pytest.param(
            change("spec/sites/0/env", [{"name": "A", "value": ""}, {"name": "A", "value": ""}]),
            'spec.sites[0].env[1].name: got "A", allowed: each variable once; env[0] has this name already',
            id="a variable is set once",
        ),
        pytest.param(
            change("spec/sites/1/name", "hospital-a"),
            'spec.sites[1].name: got "hospital-a", allowed: each site once; sites[0] has this name already',
            id="a site is listed once",
        ),
        pytest.param(
            change("spec/sites/1/name", "server"),
            'spec.sites[1].name: got "server", allowed: a name other than server, which is the job\'s own server',
            id="a site cannot take the server's name",
        ),
        pytest.param(
            change("spec/model/initial", {"path": "a.safetensors", "object": "a:b"}),
            'spec.model.initial.path: got "a.safetensors", allowed: exactly one of path and object',
            id="the first model has one source",
        ),
        pytest.param(
            change("spec/model/initial", {}),
            "spec.model.initial.path: missing, allowed: exactly one of path and object",
            id="the first model has a source",
        ),
        pytest.param(
            change("spec/failurePolicy/rules", [{"name": "r", "action": "FailJob"}]),
            "spec.failurePolicy.rules[0].onExitCodes: missing, allowed: exactly one of onExitCodes and onReasons",
            id="a rule fits something",
        ),
        pytest.param(
            change(
                "spec/failurePolicy/rules",
                [{"name": "r", "role": "Server", "onReasons": ["OOMKilled"], "action": "FailSite"}],
            ),
            'spec.failurePolicy.rules[0].action: got "FailSite", allowed: Restart, Ignore or FailJob, as role is Server',
            id="a server is no site",
        ),
        pytest.param(
            change("spec/failurePolicy/rules", [{"name": "r", "onReasons": ["OOMKilled"], "action": "Restart"}] * 2),
            'spec.failurePolicy.rules[1].name: got "r", allowed: each rule once; rules[0] has this name already',
            id="a rule has a name of its own",
        ),
        pytest.param(
            change("spec/privacy", {}),
            "spec.privacy: unknown field, allowed: workflow, trainer, sites, model, server, failurePolicy, "
            "startDeadlineSeconds, activeDeadlineSeconds, suspend, ttlSecondsAfterFinished, cleanPodPolicy, scheduling",
            id="a field without a meaning is refused",
        ),
    ],
)
def test_a_rule_that_does_not_hold_is_one_line(document: dict[str, Any], message: str) -> None:
    assert problem(document) == f"job: {message}"


@pytest.mark.parametrize("name", ["a/../b", "..", ".", "/etc/passwd", "a//b", "a/", "", "a b", "..a"])
def test_a_file_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    assert "allowed: a relative file name" in problem(change("spec/trainer/files", {name: "", "train.py": ""}))


def test_a_local_run_can_tell_which_fields_only_a_cluster_uses() -> None:
    assert cluster_only(loads(TEN_LINES)) == []
    paths = cluster_only(validate(full_document()))
    assert paths == [
        "metadata.namespace",
        "metadata.labels",
        "metadata.annotations",
        "spec.trainer.image",
        "spec.trainer.resources",
        "spec.sites[0].resources",
        "spec.server.resources",
        "spec.server.scheduling",
        "spec.server.storage",
        "spec.server.exposure",
        "spec.trainer.nodes",
        "spec.trainer.sharedMemory",
        "spec.failurePolicy.rules[1].onReasons",
        "spec.suspend",
        "spec.ttlSecondsAfterFinished",
        "spec.cleanPodPolicy",
        "spec.scheduling",
    ]
    assert all(reason(path) for path in paths)
