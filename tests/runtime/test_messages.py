"""Messages name the true cause, the thing and the next step."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed

import fedjob
from fedjob.api import JobFileError, loads
from fedjob.client import _in_collective
from fedjob.cluster.submission import needs_server_side
from fedjob.conditions import STOP_METRIC, Conditions
from fedjob.config import Ranks
from fedjob.errors import ConfigError, LocalProtocolError
from fedjob.gang import Gang
from fedjob.initial import evaluate
from fedjob.model import holds_tensors
from fedjob.outcome import Outcome, _site_outcome
from fedjob.records import JobRef, RoundRecord, SiteRound, SiteStatus, Status
from fedjob.report import render
from fedjob.server import _look_for_stop_metric


@pytest.mark.parametrize("model", [{}, {"a": {}}, {"a": [{}, ()]}, OrderedDict()])
def test_a_model_without_tensors_is_refused_where_it_is_offered(model: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"init\(model\): the state dict holds no tensors"):
        fedjob.init(model)
    assert not holds_tensors(model)


def test_a_model_with_a_tensor_of_no_elements_is_a_model() -> None:
    assert holds_tensors({"a": {"b": torch.empty(0)}})


def test_an_initial_object_without_tensors_is_refused() -> None:
    with pytest.raises(ConfigError, match="without tensors"):
        evaluate("collections:Counter")


def test_a_stop_metric_that_nobody_sends_is_a_condition_until_it_comes() -> None:
    text = """{"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": {"name": "j"}, "spec": {
      "workflow": {"rounds": 4, "stopWhen": {"metric": "acuracy", "value": 0.1}},
      "trainer": {"command": ["python", "t.py"]}, "sites": [{"name": "a"}]}}"""
    config, session = SimpleNamespace(job=loads(text, "j.json")), SimpleNamespace(conditions=Conditions())
    for number in (0, 1):
        _look_for_stop_metric(config, session, RoundRecord(number, metrics={"accuracy": 1.0}))  # type: ignore[arg-type]
    (found,) = session.conditions.now()
    assert found.type == STOP_METRIC
    assert "did you mean accuracy?" in found.message
    _look_for_stop_metric(config, session, RoundRecord(2, metrics={"acuracy": 1.0}))  # type: ignore[arg-type]
    assert session.conditions.now() == ()


def test_ranks_out_of_step_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(Ranks(rank=1, world_size=2))
    for said in (b"\x80\x05pickled", b"{not json"):
        monkeypatch.setattr(
            gang,
            "_bytes",
            lambda _, size, said=said: (
                said[:size].ljust(size, b"\x00") if size > 8 else len(said).to_bytes(8, "little")
            ),
        )
        with pytest.raises(LocalProtocolError, match="every rank calls"):
            gang.share_task(lambda _: None, None)
    monkeypatch.setattr(gang, "_bytes", lambda *_: b"\xff" * 8)
    with pytest.raises(LocalProtocolError, match="every rank calls"):
        gang.share_task(lambda _: None, None)


def test_an_error_out_of_a_collective_of_torch_is_known() -> None:
    with pytest.raises((RuntimeError, ValueError)) as error:
        distributed.broadcast_object_list([None], src=0)
    assert _in_collective(error.value.__traceback__)
    with pytest.raises(JobFileError) as other:
        loads("", "j.yaml")
    assert not _in_collective(other.value.__traceback__)


def test_code_that_a_plain_kubectl_apply_would_refuse_is_told() -> None:
    assert not needs_server_side("a: " + "x" * 200_000)
    assert needs_server_side("a: " + "x" * 262_144)
    assert needs_server_side("a: '" + "<" * 50_000 + "'")  # Go writes each in six bytes


def test_the_page_shows_so_many_names_and_counts_the_rest(tmp_path: Path) -> None:
    names = {f"x{i:04d}": 1.0 for i in range(2000)}
    sites = {"evil": SiteRound(1, names), "a": SiteRound(3, {"accuracy": 0.5}), "b": SiteRound(0, {"accuracy": 0.5})}
    record = RoundRecord(round=0, contributors=tuple(sites), sites=sites, metrics={**names, "accuracy": 0.5})
    found = Outcome(
        Status(job=JobRef("j"), state="Complete"), (record,), None, (),
        tuple(_site_outcome(SiteStatus(n), [record], {}) for n in sites),
    )  # fmt: skip
    ours, _, _ = render(found).partition("<script>/*")
    assert len(ours) < 500_000
    assert "1,969 further names that fewer sites sent: in history.jsonl." in ours
    assert "accuracy" in ours
    assert ">75 %<" in ours  # the share of examples of site a
