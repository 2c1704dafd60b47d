"""What a training script sees: what comes back is what was sent, and every call out of turn has an error of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedjob.codec import Inflow

if TYPE_CHECKING:
    from conftest import Job, Started

# Site a looks at the API and notes what it sees. Site b fails in round 1, and is late in round 0. Site c leaves after round 0.
SCRIPT = """
import json, os, time
from pathlib import Path
import numpy as np
import fedjob

def note(name, value):
    with open(name, "a") as f:
        f.write(json.dumps(value) + "\\n")

def error_of(call):
    try:
        call()
    except Exception as e:
        return [type(e).__name__, str(e)]

def form(value):
    if isinstance(value, dict):
        return {str(k): form(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return [type(value).__name__, str(value.dtype), value.tolist()]
    return [type(value).__name__, value if not isinstance(value, np.generic) else value.item()]

def forked(call):
    "What a child process gets from `call`."
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, json.dumps(error_of(call)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return json.loads(os.read(reader, 10_000))

MODEL = {
    "layer": {"weight": np.arange(6, dtype=np.float64).reshape(2, 3), "bias": np.zeros(2, np.float16)},
    "empty": np.zeros((0, 3), np.float32),
    "step": np.int64(41),
    "epoch": 7,
    "rate": 0.1,
    "mask": np.array([True, False]),
    "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
}
if (site := Path(os.environ["FEDJOB_CONFIG"]).stem) == "a":
    note("before", error_of(fedjob.receive))
with fedjob.init(MODEL):
    while fedjob.is_running():
        model = fedjob.receive()
        number = model.current_round
        if site == "a":
            note("received", form(model.params))
            note("optimizer", form(model.optimizer_params))
            note("facts", [number, model.total_rounds, model.meta, fedjob.system_info(), fedjob.get_config()])
            note("again", fedjob.receive() is model)
            note("tasks", [fedjob.get_task_name(), fedjob.is_train(), fedjob.is_evaluate()])
            fedjob.log("loss", 0.5, global_step=number)
        if site == "b" and number == 0:
            while not Path("timed-out").exists():
                time.sleep(0.002)
        if site == "b" and number == 1 and not Path("failed").exists():
            Path("failed").touch()
            raise ArithmeticError("the loss is not a number")
        if fedjob.is_evaluate():
            fedjob.send(fedjob.FLModel(metrics={"accuracy": 0.75}))
            continue
        share = {"a": 1.0, "b": 3.0}.get(site, 5.0)
        state = {"state": {0: {"exp_avg": np.full(2, share)}}, "param_groups": [{"lr": share}]}
        sent = fedjob.FLModel(params=model.params, optimizer_params=state, metrics={"accuracy": 0.5})
        if site == "a" and number == 0:
            note("forked", forked(lambda: fedjob.send(sent)))
            note("forked", forked(fedjob.is_running))
        fedjob.send(sent)
        if site == "a" and number == 0:
            note("kept", model.params is sent.params and form(model.params)["step"])
            note("after", error_of(lambda: fedjob.send(sent)))
            note("after", error_of(lambda: fedjob.skip("why")))
            note("timeout", error_of(lambda: fedjob.receive(timeout=0.05)))
            Path("timed-out").touch()
        if site == "c":
            break
"""


@pytest.fixture(scope="module")
def run(shared_job: Callable[..., Job]) -> Started:
    workflow = {"rounds": 3, "quorum": 2, "options": {"evaluate": True}}
    return shared_job(SCRIPT, "abc", workflow=workflow).run()


def test_numpy_trees_come_back_as_they_were_sent(run: Started) -> None:
    expected = {
        "layer": {
            "weight": ["ndarray", "float64", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]],
            "bias": ["ndarray", "float16", [0.0, 0.0]],
        },
        "empty": ["ndarray", "float32", []],
        "step": ["int64", 41],
        "epoch": ["int", 7],
        "rate": ["float", 0.1],
        "mask": ["ndarray", "bool", [True, False]],
        "transposed": ["ndarray", "int32", [[0, 3], [1, 4], [2, 5]]],
    }
    received = run.job.seen("received")
    assert received == [expected] * 4
    assert list(received[0]) == list(expected)


def test_optimizer_params_arrive_averaged(run: Started) -> None:
    first, second, third, evaluation = run.job.seen("optimizer")
    assert first == ["NoneType", None]
    assert second["state"]["0"]["exp_avg"][2] == [3.0, 3.0]  # of 1, 3 and 5; site c then leaves
    assert third["state"]["0"]["exp_avg"][2] == [2.0, 2.0]
    assert evaluation == ["NoneType", None]
    assert third["param_groups"] == ["list", [{"lr": 2.0}]]


def test_receive_gives_the_same_object_until_send_which_keeps_it(run: Started) -> None:
    assert run.job.seen("again") == [True] * 4
    assert run.job.seen("kept") == [["int64", 41]]


def test_the_model_says_which_round_and_job_it_is_of(run: Started) -> None:
    facts = run.job.seen("facts")
    assert [number for number, *_ in facts] == [0, 1, 2, 3]
    assert {total for _, total, *_ in facts} == {3}
    number, total, meta, who, settings = facts[0]
    assert (meta["site_name"], meta["current_round"], meta["total_rounds"]) == ("a", number, total)
    assert who == {"job_id": run.status["job"]["uid"], "site_name": "a", "rank": 0, "world_size": 1}
    assert settings["sites"] == ["a", "b", "c"]
    assert settings["workflow"]["options"] == {"evaluate": True, "weighting": "Examples"}
    assert run.job.seen("tasks") == [["train", True, False]] * 3 + [["validate", False, True]]


def test_calls_out_of_turn_have_an_error_of_their_own(run: Started) -> None:
    assert run.job.seen("before") == [["LocalProtocolError", "call fedjob.init() first"]]
    assert [name for name, _ in run.job.seen("after")] == ["LocalProtocolError"] * 2
    ((name, text),) = run.job.seen("timeout")
    assert name == "ReceiveTimeout"
    assert "0.05 s" in text


def test_a_forked_child_is_refused_by_name_and_does_no_harm(run: Started) -> None:
    for name, text in run.job.seen("forked"):
        assert name == "LocalProtocolError"
        assert "forked after fedjob.init()" in text


def test_a_script_that_raises_is_reported_and_started_again(run: Started) -> None:
    assert "site b: ScriptFailed: ArithmeticError: the loss is not a number" in run.log("server")
    assert run.log("b").count("ArithmeticError: the loss is not a number") == 1, "its own log has the traceback, once"
    assert run.site("b")["restarts"] == 1
    assert "b" in run.history[1].contributors


def test_a_round_does_not_wait_for_a_script_that_has_ended(run: Started) -> None:
    assert run.history[0].contributors == ("a", "b", "c")
    assert [run.missing(number) for number in (1, 2)] == [{"c": "PeerLost"}] * 2
    assert (
        "ScriptEnded: the script ended by itself before the job: receive and send in `while fedjob.is_running()`"
        in run.history[1].missing[0].message
    )
    assert run.site("c")["restarts"] == 0


def test_the_final_model_is_scored_and_what_a_script_logs_is_kept(run: Started) -> None:
    evaluation = run.history[3]
    assert (evaluation.kind, evaluation.metrics, evaluation.contributors) == (
        "Evaluate",
        {"accuracy": 0.75},
        ("a", "b"),
    )
    logged = (run.folder / "metrics.jsonl").read_text()
    assert re.findall(r'"step":(\d),"key":"loss","value":0.5', logged) == ["0", "1", "2", "3"]


# ------------------------------------------------------------------------------------------ torch, several processes

TORCH_SCRIPT = """
import json, os
import torch
import fedjob

def note(name, value):
    with open(name, "a") as f:
        f.write(json.dumps(value) + "\\n")

def form(value):
    if isinstance(value, dict):
        return {str(k): form(v) for k, v in value.items()}
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    return [type(value).__name__, value]

rank = int(os.environ["RANK"])
MODEL = {
    "layer": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([0.1], dtype=torch.bfloat16)},
    "batches": torch.tensor(3),
    "rate": 0.1,
}
fedjob.init(MODEL if rank == 0 else None)
while fedjob.is_running():
    model = fedjob.receive()
    note(f"rank-{rank}", [model.current_round, form(model.params), form(model.optimizer_params)])
    params = {**model.params, "layer": {k: v * 2 for k, v in model.params["layer"].items()}}
    optimizer = {"state": {0: {"exp_avg": torch.full((2,), 1.0 + rank)}}}
    receipt = fedjob.send(fedjob.FLModel(params=params, optimizer_params=optimizer, metrics={"loss": 1.0}))
    note(f"receipts-{rank}", receipt.accepted)
note("ended", rank)
"""


def test_all_processes_of_a_site_get_the_same_torch_model(new_job: Callable[..., Job]) -> None:
    trainer = {"command": ["python", "train.py"], "processesPerNode": 2}
    job = new_job(TORCH_SCRIPT, "a", workflow={"rounds": 2}, trainer=trainer)
    run = job.run()
    bias = 0.10009765625  # 0.1 in bfloat16
    layer = {
        "weight": ["torch.float32", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]],
        "bias": ["torch.bfloat16", [bias]],
    }
    doubled = {
        "weight": ["torch.float32", [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]]],
        "bias": ["torch.bfloat16", [2 * bias]],
    }
    rest = {"batches": ["torch.int64", 3], "rate": ["float", 0.1]}
    optimizer = {"state": {"0": {"exp_avg": ["torch.float32", [1.0, 1.0]]}}}  # rank 0 speaks for the site
    expected = [[0, {"layer": layer, **rest}, ["NoneType", None]], [1, {"layer": doubled, **rest}, optimizer]]
    assert job.seen("rank-0") == expected, run.story()
    assert job.seen("rank-1") == expected
    assert job.seen("receipts-0") == job.seen("receipts-1") == [True, True]
    assert sorted(job.seen("ended")) == [0, 1]
    assert run.log("a") == "", "both processes end without a word"


# ------------------------------------------------------------------------------------------ differences

DIFF_SCRIPT = """
import numpy as np
import fedjob

fedjob.init({"w": np.ones(1000, np.float32), "steps": np.int64(0)})
site = ord(fedjob.get_site_name())
while fedjob.is_running():
    model = fedjob.receive()
    noise = np.random.default_rng([model.current_round, site]).standard_normal(1000, np.float32)
    params = {"w": np.float32(0.9) * model.params["w"] + noise, "steps": model.params["steps"] + 1}
    fedjob.send(fedjob.FLModel(params=params, meta={"num_examples": site}))
"""


def test_exchanging_differences_gives_the_same_model_up_to_rounding(new_job: Callable[..., Job]) -> None:
    models = []
    for exchange in ("Full", "Diff"):
        run = new_job(DIFF_SCRIPT, "ab", workflow={"rounds": 3}, model={"exchange": {"params": exchange}}).run()
        assert all(not r.missing for r in run.history)
        models.append(tree(run.model))
    full, diff = models
    assert full["steps"] == diff["steps"] == 3
    np.testing.assert_allclose(diff["w"], full["w"], rtol=1e-6, atol=1e-6)
    assert np.abs(full["w"]).max() > 1


def tree(data: bytes) -> Any:
    """The tensors of a file."""
    inflow = Inflow()
    inflow.write(data)
    return inflow.tree()
