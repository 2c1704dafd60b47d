"""What counts in a round, over the wire: each refusal by its name, when a round closes, when a job ends, how it begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedjob.errors import JobFailed, StaleAttempt
from fedjob.model import FLModel, ParamsType
from fedjob.stored import write_values

if TYPE_CHECKING:
    from conftest import Hosted, Job, Puppet, Started

ZEROS = {"w": np.zeros(4, np.float32)}

# Site a does as it is told; site b does something else wrong in every round, and notes what send() returned.
SCRIPT = """
import json
import numpy as np
import fedjob

def note(name, *values):
    with open(name, "a") as f:
        f.write(json.dumps(values) + "\\n")

W = np.ones(4, np.float32)
WRONG = [
    dict(params={"w": W * np.nan}),
    dict(params={"w": np.ones(5, np.float32)}),
    dict(params={"v": W}),
    dict(params={"w": W}, params_type="DIFF"),
    dict(params={"w": W}, meta={"num_examples": 0}),
    "no data today",
]
fedjob.init({"w": np.zeros(4, np.float32)})
site = fedjob.get_site_name()
try:
    while fedjob.is_running():
        number = fedjob.receive().current_round
        wrong = WRONG[number] if site == "b" and number < len(WRONG) else dict(params={"w": W * number})
        receipt = fedjob.skip(wrong) if isinstance(wrong, str) else fedjob.send(fedjob.FLModel(**wrong))
        note(f"receipts-{site}", receipt.accepted, receipt.reason, receipt.message)
except fedjob.JobFailed as e:
    note("ends", site, e.reason, e.message)
"""
REASONS = ["NotFinite", "WrongShape", "WrongShape", "WrongParamsType", "BadWeight", "Declined"]


@pytest.fixture(scope="module")
def refusing(shared_job: Callable[..., Job]) -> Started:
    return shared_job(SCRIPT, "ab", workflow={"rounds": 7}).run()


def test_the_script_is_told_by_name_why_its_update_does_not_count(refusing: Started) -> None:
    receipts = refusing.job.seen("receipts-b")
    assert [reason for _, reason, _ in receipts] == [*REASONS, ""]
    assert [accepted for accepted, _, _ in receipts] == [False] * 5 + [True, True]
    for number, words in enumerate(["'w'", "[5]", "'w'", "FULL", "num_examples is 0", "no data today"]):
        assert words in receipts[number][2]


def test_a_round_goes_on_without_a_refused_site_and_says_so(refusing: Started) -> None:
    assert [refusing.missing(number) for number in range(7)] == [{"b": reason} for reason in REASONS] + [{}]
    assert [r.contributors for r in refusing.history] == [("a",)] * 6 + [("a", "b")]
    assert refusing.history[5].missing[0].message == "no data today"
    assert all(reason in refusing.log("server") for reason in REASONS)


def test_without_its_quorum_the_job_fails_and_every_script_hears_it(new_job: Callable[..., Job]) -> None:
    job = new_job(SCRIPT, "ab", workflow={"rounds": 7, "quorum": 2})
    run = job.run(code=1)
    assert (run.status["state"], run.status["reason"]) == ("Failed", "QuorumNotMet")
    assert "b: NotFinite" in run.status["message"]
    assert sorted(end[:2] for end in job.seen("ends")) == [["a", "QuorumNotMet"], ["b", "QuorumNotMet"]]
    assert "failed: QuorumNotMet: round 1: 2 of 2 answers needed" in job.output
    assert "Traceback" not in job.output


# ------------------------------------------------------------------------------------------ sites played by the test


def update(number: float = 1.0, **facts: Any) -> FLModel:
    """An update whose every element is `number`."""
    return FLModel(params={"w": np.full(4, number, np.float32)}, **facts)


def answer(number: int, *puppets: Puppet, **facts: Any) -> None:
    """Each site trains, and its update is accepted."""
    for puppet in puppets:
        task = puppet.task("Train", number)
        puppet.fetch(task)
        assert puppet.answer(task, update(**facts)).accepted


def assert_over(*puppets: Puppet) -> None:
    """Each site hears that the job has ended well."""
    assert [puppet.uplink.next_task(30) for puppet in puppets] == [None] * len(puppets)


def test_an_update_after_the_deadline_is_refused_and_the_next_round_takes_the_site_again(
    host: Callable[..., Hosted], until: Callable[..., Any], tmp_path: Path
) -> None:
    """In each round one site answers and the other does not: a round waits for its first answer, however long that takes."""
    (tmp_path / "hosted").mkdir()
    write_values(tmp_path / "hosted" / "start.safetensors", ZEROS)
    run = host(
        "ab",
        workflow={"rounds": 2, "quorum": 1, "roundTimeoutSeconds": 1},
        failurePolicy={"onQuorumLost": "Wait"},
        model={"initial": {"path": "start.safetensors"}},
    )
    a, b = run.puppet("a"), run.puppet("b")
    late = b.task("Train", 0)
    b.fetch(late)
    answer(0, a)
    until(lambda: b.uplink.is_over(late.key))
    verdict = b.answer(late, update())
    assert (verdict.accepted, verdict.reason) == (False, "PastRound")
    silent = a.task("Train", 1)
    answer(1, b)
    until(lambda: a.uplink.is_over(silent.key))
    assert_over(a, b)
    assert run.wait() == 0
    assert [run.missing(0), run.missing(1)] == [{"b": "DeadlineExceeded"}, {"a": "DeadlineExceeded"}]


def test_one_answer_of_one_process_of_one_attempt_counts(host: Callable[..., Hosted]) -> None:
    run = host("ab", workflow={"rounds": 2}, model={"exchange": {"params": "Diff"}})
    a, b = run.puppet("a"), run.puppet("b")
    a.offer(ZEROS)
    first = a.task("Train", 0)
    a.fetch(first)
    verdict = a.answer(first, update(params_type=ParamsType.DIFF), base="0" * 64)
    assert verdict.reason == "StaleBase"
    b.fetch(b.task("Train", 0))
    answer(0, b, params_type=ParamsType.DIFF)

    stale = run.puppet("a", attempt=7)
    with pytest.raises(StaleAttempt, match="attempt 7, the job is at attempt 1"):
        stale.uplink.next_task(30)
    second = a.task("Train", 1)  # nothing of this has disturbed the process that belongs here
    assert a.answer(first, update(5.0, params_type=ParamsType.DIFF)).reason == "PastRound"
    a.fetch(second)
    assert stale.answer(second, update(params_type=ParamsType.DIFF)).reason == "StaleAttempt"
    b.fetch(b.task("Train", 1))
    assert b.answer(b.task("Train", 1), update(), params_type="FULL").reason == "WrongParamsType"
    assert a.answer(second, update(params_type=ParamsType.DIFF)).accepted
    assert_over(a, b)
    assert run.wait() == 0
    assert [run.missing(0), run.missing(1)] == [{"a": "StaleBase"}, {"b": "WrongParamsType"}]
    assert "StaleAttempt" in run.log("server")


def test_a_second_answer_to_an_open_round_is_refused(host: Callable[..., Hosted]) -> None:
    run = host("ab", workflow={"rounds": 1})
    a, b = run.puppet("a"), run.puppet("b")
    a.offer(ZEROS)
    task = a.task("Train")
    assert a.answer(task, update(2.0)).accepted
    assert a.answer(task, update(9.0)).reason == "AlreadyAnswered"
    assert b.answer(b.task("Train"), update(2.0)).accepted
    assert_over(a, b)
    assert run.wait() == 0
    assert run.history[0].contributors == ("a", "b")
    assert run.model.endswith(update(2.0).params["w"].tobytes())


def test_with_over_sampling_a_round_closes_at_its_quorum(
    host: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    run = host("abc", workflow={"rounds": 1, "quorum": 2, "close": "Quorum"})
    a, b, c = (run.puppet(name) for name in "abc")
    a.offer(ZEROS)
    slow = c.task("Train")
    answer(0, a, b)
    until(lambda: c.uplink.is_over(slow.key))
    assert_over(a, b, c)
    assert run.wait() == 0
    assert run.history[0].contributors == ("a", "b")
    assert list(run.missing(0)) == ["c"]


@pytest.mark.parametrize(
    ("rule", "scores", "reason"),
    [
        pytest.param({"value": 0.9}, [0.5, 0.95], "score is 0.95, at least 0.9", id="at a value"),
        pytest.param(
            {"goal": "Minimize", "patienceRounds": 2},
            [3.0, 2.0, 2.0, 2.5],
            "score has not improved on 2 for 2 rounds",
            id="when patience ends",
        ),
    ],
)
def test_a_job_ends_early_and_still_evaluates(
    rule: dict[str, Any], scores: list[float], reason: str, host: Callable[..., Hosted]
) -> None:
    workflow = {"rounds": 9, "stopWhen": {"metric": "score", **rule}, "options": {"evaluate": True}}
    run = host("a", workflow=workflow)
    a = run.puppet("a")
    a.offer(ZEROS)
    for number, score in enumerate(scores):
        answer(number, a, metrics={"score": score})
    task = a.task("Evaluate", len(scores))
    assert a.fetch(task)["w"].tolist() == [1.0] * 4
    assert a.answer(task, FLModel(metrics={"score": 7.0})).accepted
    assert_over(a)
    assert run.wait() == 0
    assert run.status["state"] == "Complete"
    assert run.status["reason"] == reason
    assert [r.kind for r in run.history] == ["Train"] * len(scores) + ["Evaluate"]
    assert [r.metrics["score"] for r in run.history] == [*scores, 7.0]


def test_a_stop_metric_that_no_site_sends_is_a_condition_with_those_that_they_send(
    host: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    run = host("a", workflow={"rounds": 2, "stopWhen": {"metric": "acuracy", "patienceRounds": 1}})
    a = run.puppet("a")
    a.offer(ZEROS)
    answer(0, a, metrics={"accuracy": 0.5})
    until(lambda: run.status.get("conditions"))
    (condition,) = run.status["conditions"]
    assert (condition["type"], condition["reason"]) == ("StopMetricMissing", "NotSent")
    assert "accuracy" in condition["message"]
    answer(1, a, metrics={"accuracy": 0.5})
    assert_over(a)
    assert run.wait() == 0


def test_each_round_asks_as_many_sites_as_the_job_says(host: Callable[..., Hosted]) -> None:
    run = host("abcd", workflow={"rounds": 6, "clientsPerRound": 2, "quorum": 2, "seed": 3})
    puppets = {name: run.puppet(name) for name in "abcd"}
    puppets["a"].offer(ZEROS)
    asked = [sample(number, puppets) for number in range(6)]
    assert_over(*puppets.values())
    assert run.wait() == 0
    assert [r.contributors for r in run.history] == asked
    assert all(len(names) == 2 for names in asked)
    assert set("".join(map("".join, asked))) == set("abcd")
    assert all(r.missing == () for r in run.history)


def sample(number: int, puppets: dict[str, Puppet]) -> tuple[str, ...]:
    """The sites that are asked in a round; they answer. The server's choice depends on seed, round and names alone."""
    from fedjob.sampling import sample

    names = sample(list(puppets), 2, 3, number)
    answer(number, *(puppets[name] for name in names))
    return tuple(names)


# ------------------------------------------------------------------------------------------ the first model


def test_the_first_required_site_is_asked_for_the_initial_model(host: Callable[..., Hosted]) -> None:
    run = host(["a", {"name": "b", "required": True}], workflow={"rounds": 1, "quorum": 2})
    a, b = run.puppet("a"), run.puppet("b")
    b.offer({"w": np.full(4, 3.0, np.float32)})
    assert a.fetch(a.task("Train"))["w"].tolist() == [3.0] * 4
    answer(0, a, b)
    assert_over(a, b)


def test_sites_are_asked_one_after_the_other_until_one_offers_a_model(host: Callable[..., Hosted]) -> None:
    run = host("ab", workflow={"rounds": 1})
    a, b = run.puppet("a"), run.puppet("b")
    assert a.offer(None).reason == "Declined"
    b.offer(ZEROS)
    answer(0, a, b)
    assert_over(a, b)


def test_a_site_that_does_not_answer_costs_no_other_its_time(host: Callable[..., Hosted]) -> None:
    run = host("ab", workflow={"rounds": 1, "roundTimeoutSeconds": 2})
    a, b = run.puppet("a"), run.puppet("b")
    a.task("Offer")
    b.offer(ZEROS)  # after a's time is up
    answer(0, b)
    assert_over(b)
    assert run.wait() == 0
    assert run.missing(0) == {"a": "DeadlineExceeded"}


def test_a_lost_site_is_waited_for_if_the_job_says_so(host: Callable[..., Hosted], until: Callable[..., Any]) -> None:
    policy = {"onQuorumLost": "Wait", "siteLostSeconds": 1}
    run = host("ab", workflow={"rounds": 1, "quorum": 2}, failurePolicy=policy)
    a, b = run.puppet("a"), run.puppet("b")
    a.offer(ZEROS)
    b.task("Train", 0)
    b.uplink.close()
    until(lambda: run.site("b")["state"] == "Lost")
    answer(0, a)
    since = run.status["progress"]["roundElapsedSeconds"]
    until(lambda: run.status["progress"]["roundElapsedSeconds"] > since + 1.2)
    assert run.popen.poll() is None, run.story()
    again = run.puppet("b")
    answer(0, again)
    assert_over(a, again)
    assert run.wait() == 0


def test_a_server_that_is_told_to_stop_takes_its_round_up_again(host: Callable[..., Hosted]) -> None:
    """SIGTERM, as when a node is drained: nobody hears that the round is over, for it is not."""
    run = host("ab", workflow={"rounds": 2, "quorum": 2})
    a, b = run.puppet("a"), run.puppet("b")
    a.offer(ZEROS)
    answer(0, a, b)
    answer(1, a)
    task = b.task("Train", 1)
    run.popen.terminate()
    run.serve_again()
    assert not b.uplink.is_over(task.key)
    answer(1, b)
    assert_over(a, b)
    assert run.wait() == 0
    assert run.missing(1) == {}


def test_without_any_initial_model_the_job_fails_by_name(host: Callable[..., Hosted]) -> None:
    run = host("a", workflow={"rounds": 1})
    a = run.puppet("a")
    a.offer(None)
    with pytest.raises(JobFailed, match=r"NoInitialModel: a: Declined: .*; so no site offered an initial model"):
        a.uplink.next_task(30)
    assert run.wait() == 1
    assert run.status["reason"] == "NoInitialModel"


def test_an_initial_model_without_tensors_fails_the_job_by_name(host: Callable[..., Hosted]) -> None:
    run = host("a", workflow={"rounds": 1})
    a = run.puppet("a")
    a.offer({})
    with pytest.raises(
        JobFailed, match="EmptyModel: the model that a offers has no tensors: there is nothing to train"
    ):
        a.uplink.next_task(30)
    assert run.wait() == 1
    assert run.status["reason"] == "EmptyModel"


@pytest.mark.parametrize("initial", [{"path": "start.safetensors"}, {"object": "train:Start.state"}])
def test_the_job_may_name_the_initial_model(
    initial: dict[str, str], host: Callable[..., Hosted], tmp_path: Path
) -> None:
    (tmp_path / "hosted").mkdir()
    write_values(tmp_path / "hosted" / "start.safetensors", {"w": np.full(4, 8.0, np.float32)})
    script = "import numpy as np\nclass Start:\n    state = staticmethod(lambda: {'w': np.full(4, 8.0, np.float32)})\n"
    run = host("a", script=script, workflow={"rounds": 1}, model={"initial": initial})
    a = run.puppet("a")
    assert a.fetch(a.task("Train"))["w"].tolist() == [8.0] * 4
    answer(0, a)
    assert_over(a)
