"""What comes after the last round costs nobody the trained model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjob import wire_pb2 as wire
from fedjob.model import FLModel

if TYPE_CHECKING:
    from conftest import Hosted, Puppet

ZEROS = {"w": np.zeros(4, np.float32)}
EVALUATED = {"rounds": 1, "options": {"evaluate": True}, "roundTimeoutSeconds": 120}


def trained(host: Callable[..., Hosted], **spec: Any) -> tuple[Hosted, Puppet, Puppet]:
    """A job of two sites, both required, that has trained its one round."""
    hosted = host([{"name": n, "required": True} for n in "ab"], workflow=EVALUATED, **spec)
    a, b = hosted.puppet("a"), hosted.puppet("b")
    assert a.offer(ZEROS).accepted
    for site in (a, b):
        assert site.answer(site.task("Train"), FLModel(params=ZEROS)).accepted
    return hosted, a, b


def ended(hosted: Hosted) -> tuple[str, str, str]:
    status = hosted.status
    return status["state"], status["reason"], status["message"]


def test_a_site_whose_scores_are_refused_is_named_and_the_job_is_complete(host: Callable[..., Hosted]) -> None:
    hosted, a, b = trained(host)
    task = b.task("Evaluate")
    assert (hosted.folder / "model.safetensors").exists()  # before anybody has evaluated it
    assert b.answer(task, FLModel(metrics={"loss": 1.0}), num_examples=0).reason == "BadWeight"
    assert a.answer(a.task("Evaluate"), FLModel(metrics={"loss": 2.0})).accepted
    assert hosted.wait() == 0
    state, reason, message = ended(hosted)
    assert (state, reason) == ("Complete", "EvaluationIncomplete")
    assert message.startswith("the final model is not evaluated by b: BadWeight: num_examples is 0")
    assert hosted.status["metrics"] == {"loss": 2.0}
    hosted.serve_again()  # as `--resume` does
    assert hosted.wait() == 0
    assert ended(hosted) == (state, reason, message)


def test_a_job_that_no_site_evaluates_is_complete(host: Callable[..., Hosted]) -> None:
    hosted, a, b = trained(host, failurePolicy={"siteLostSeconds": 5})
    for site in (a, b):
        site.task("Evaluate")
        site.uplink.close(wire.Farewell(reason="ScriptFailed", message="ValueError: no validation data"))
    assert hosted.wait() == 0
    state, reason, message = ended(hosted)
    assert (state, reason) == ("Complete", "EvaluationIncomplete")
    assert (
        message == "the final model is not evaluated by a, b: ValueError: no validation data (no live process for 5 s)"
    )
    assert hosted.history[-1].metrics == {}


def test_a_job_whose_time_is_over_while_it_is_evaluated_is_complete(host: Callable[..., Hosted]) -> None:
    hosted, a, _ = trained(host, activeDeadlineSeconds=20)
    a.task("Evaluate")
    assert hosted.wait() == 0
    state, reason, message = ended(hosted)
    assert (state, reason) == ("Complete", "EvaluationIncomplete")
    assert message.startswith("the final model is not evaluated: DeadlineExceeded: ")


def test_a_status_that_cannot_be_written_decides_nothing(host: Callable[..., Hosted]) -> None:
    hosted, a, b = trained(host, prepare=lambda run: (run.folder / "status.json").mkdir(parents=True))
    for site in (a, b):
        assert site.answer(site.task("Evaluate"), FLModel(metrics={"loss": 2.0})).accepted
    assert hosted.wait() == 0
    assert (hosted.folder / "model.safetensors").exists()
    assert hosted.log("server").count("the last status cannot be written") == 1
    assert "Traceback" not in hosted.log("server")


def test_a_server_without_descriptors_has_not_failed_the_job(host: Callable[..., Hosted], tmp_path: Path) -> None:
    """Exit code 1 would be taken for the job's verdict; any other starts it again."""
    code = "import resource, sys; 'fedjob.server' in sys.orig_argv and resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))"
    (tmp_path / "sitecustomize.py").write_text(code)
    hosted = host(["a"], workflow={"rounds": 1}, environment={"PYTHONPATH": str(tmp_path)})
    assert hosted.wait() not in (0, 1, 2)  # 70, or gRPC's own end
