"""What crosses the wire is chosen by fields: real jobs, whose scripts see and send what they would anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

ADAPTER = """
import json, os
import numpy
import fedjob

base = {f"layer{i}.weight": numpy.full(20_000, i, numpy.float32) for i in range(3)}
adapter = {f"layer{i}.lora_A": numpy.zeros(500, numpy.float32) for i in range(3)}
fedjob.init({**base, **adapter} if OFFERS else None)
while fedjob.is_running():
    received = fedjob.receive()
    with open("seen.jsonl", "a") as f:
        f.write(json.dumps({n: [str(x.dtype), float(x[0])] for n, x in received.params.items()}) + "\\n")
    trained = {name: x + numpy.float32(1) for name, x in received.params.items()}
    fedjob.send(fedjob.FLModel(params={**base, **trained}, metrics={"loss": 1.0}))
"""


@pytest.fixture
def adapter(new_job: Callable[..., Any]) -> Callable[..., Any]:
    """A job of two sites that train a small part of a model. offers: whether the script brings the model."""

    def make(offers: bool, **spec: Any) -> Any:
        return new_job(f"OFFERS = {offers}\n{ADAPTER}", ["a", "b"], workflow={"rounds": 2}, **spec)

    return make


def test_only_an_adapter_travels_and_the_report_says_what_that_saves(adapter: Callable[..., Any]) -> None:
    job = adapter(True, model={"exchange": {"include": ["*.lora_A"], "dtype": "BF16", "params": "Diff"}})
    run = job.run()
    assert {k: v.tolist() for k, v in load_file(run.folder / "model.safetensors").items()} == {
        f"layer{i}.lora_A": [2.0] * 500 for i in range(3)
    }
    assert [set(seen) for seen in job.seen("seen.jsonl")] == [{f"layer{i}.lora_A" for i in range(3)}] * 4
    assert {dtype for seen in job.seen("seen.jsonl") for dtype, _ in seen.values()} == {"float32"}
    for record in run.history:
        assert record.bytes_wire < record.bytes_included < record.sites["a"].bytes_whole
        assert (record.bytes_wire, record.bytes_included) == (3 * 500 * 2, 3 * 500 * 4)
        assert record.sites["a"].bytes_whole == 3 * 20_500 * 4
        assert record.sites["a"].bytes_up < 3 * 500 * 2 + 1000
    assert "without include and dtype" in job.output
    assert "<h2>What travelled</h2>" in (run.folder / "report.html").read_text()


def test_a_model_that_a_site_offers_travels_without_what_is_excluded(adapter: Callable[..., Any]) -> None:
    run = adapter(True, model={"exchange": {"include": ["!*.weight", "layer*", "!layer2*"]}}).run()
    assert set(load_file(run.folder / "model.safetensors")) == {"layer0.lora_A", "layer1.lora_A"}


def test_what_is_not_included_stays_in_the_final_model_as_it_was(adapter: Callable[..., Any]) -> None:
    job = adapter(False, model={"initial": {"path": "full.safetensors"}, "exchange": {"include": ["*.lora_A"]}})
    rest = {f"layer{i}.weight": np.full(20_000, i + 0.5, np.float16) for i in range(3)}
    save_file({**rest, **{f"layer{i}.lora_A": np.zeros(500, np.float32) for i in range(3)}}, job / "full.safetensors")
    run = job.run()
    model = load_file(run.folder / "model.safetensors")
    assert {
        name: (x == model[name]).all() and x.dtype == model[name].dtype for name, x in rest.items()
    } == dict.fromkeys(rest, True)
    assert {name: set(model[name].tolist()) for name in model if name not in rest} == {
        f"layer{i}.lora_A": {2.0} for i in range(3)
    }


@pytest.mark.parametrize("offers", [True, False])
def test_a_pattern_that_fits_nothing_ends_the_job_by_name(adapter: Callable[..., Any], offers: bool) -> None:
    initial = {} if offers else {"initial": {"path": "full.safetensors"}}
    job = adapter(offers, model={**initial, "exchange": {"include": ["*.lora_A", "*.loraA"]}})
    save_file({"layer0.lora_A": np.zeros(500, np.float32)}, job / "full.safetensors")
    run = job.run(code=1)
    assert run.status["reason"] == "NoTensorIncluded"
    assert "spec.model.exchange.include[1] '*.loraA' fits no tensor of" in run.status["message"]
    named = run.log("a") if offers else run.status["message"]
    assert "layer0.lora_A" in named


def test_an_offer_larger_than_allowed_is_refused_before_it_travels(adapter: Callable[..., Any]) -> None:
    run = adapter(True, model={"exchange": {"maxBytes": "100k"}}).run(code=1)
    assert run.status["reason"] == "NoInitialModel"
    assert "TooLarge" in run.status["message"]
    assert "allowed: 100000 (spec.model.exchange.maxBytes)" in run.status["message"]
    assert run.status["bytes"]["in"] == 0


def test_an_initial_model_that_changed_meanwhile_is_not_published(adapter: Callable[..., Any]) -> None:
    job = adapter(False, model={"initial": {"path": "full.safetensors"}, "exchange": {"include": ["*.lora_A"]}})
    values = {f"layer{i}.lora_A": np.zeros(500, np.float32) for i in range(3)}
    save_file({"w": np.zeros(9), **values}, job / "full.safetensors")
    script = (job / "train.py").read_text()
    change = "\n    if received.current_round: open('full.safetensors', 'r+b').truncate(100)"
    (job / "train.py").write_text(script.replace("received = fedjob.receive()", "received = fedjob.receive()" + change))
    run = job.run(code=1)
    assert run.status["reason"] == "StateDamaged"
    assert "full.safetensors" in run.status["message"]


def test_a_script_that_did_not_receive_hears_that_it_must(new_job: Callable[..., Any]) -> None:
    script = """
import numpy, fedjob
fedjob.init({"w": numpy.zeros(3)})
while fedjob.is_running():
    fedjob.send(fedjob.FLModel(params={"w": numpy.ones(3)}))
"""
    job = new_job(
        script,
        ["a"],
        workflow={"rounds": 1},
        model={"exchange": {"params": "Diff"}},
        failurePolicy={"siteRestarts": 0},
    )
    run = job.run(code=1)
    assert "LocalProtocolError: the model of this round was not received: call fedjob.receive()" in run.log("a")
