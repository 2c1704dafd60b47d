"""One step of the server, row by row: which run, when, at whose expense, and the verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedjob.api import JobSpec
from fedjob.api.reasons import FAILURES, SUCCESSES
from fedjob.restarts import Budget
from fedjob_operator.desired.conditions import State
from fedjob_operator.desired.job import read
from fedjob_operator.desired.server import NEVER_STARTED, Server, Step, Verdict, next_run, step
from fedjob_operator.observed import BatchJob, Observed, Pod

END = datetime(2030, 1, 1, tzinfo=UTC)
BUDGET = Budget(allowed=3, refill_rounds=5, used=1, at_round=2)
SECOND = Server(run=2, restarts=1, budget=BUDGET, last="the first one's words")
FAILED = BatchJob("s2", "uid-s2", 2, "Failed", started_at=END - timedelta(minutes=1), finished_at=END)
COMPLETE = replace(FAILED, finished="Complete")
RUNNING = replace(FAILED, finished="", finished_at=None)


def spec(**policy: Any) -> JobSpec:
    """A spec with this failure policy."""
    body = {
        "workflow": {"type": "FedAvg", "rounds": 9},
        "trainer": {"files": {"train.py": ""}},
        "sites": [{"name": "a"}],
        "server": {"resources": {"limits": {"memory": "3Gi"}}},
        "failurePolicy": policy,
    }
    metadata = {"name": "j", "namespace": "n"}
    return read({"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": metadata, "spec": body}).spec


SPEC = spec()


def seen(*found: BatchJob | Pod) -> Observed:
    jobs = tuple(one for one in found if isinstance(one, BatchJob))
    return Observed(job={}, server_jobs=jobs, pods=tuple(one for one in found if isinstance(one, Pod)))


def pod(run: int = 2, name: str = "p", **fields: Any) -> Pod:
    return Pod(name, f"uid-{name}", run, **{"phase": "Failed", **fields})


def alive(run: int = 2, **fields: Any) -> Pod:
    return pod(run, "old", phase="Running", **fields)


def after(server: Server, *found: BatchJob | Pod, now: datetime = END + timedelta(hours=1), **more: Any) -> Step:
    return step(server, seen(*found), more.get("spec", SPEC), more.get("rounds", 3), now)


MAY_LIVE = State("False", "Restarting", "pod old may still be alive")


# --------------------------------------------------------------------------------------------------- the first run


def test_the_first_run_begins_when_no_pod_may_be_alive() -> None:
    assert after(NEVER_STARTED) == Step(replace(NEVER_STARTED, run=1), State("False", "NotStarted"), start=True)
    assert after(NEVER_STARTED, pod(0)).start, "one that has ended"
    assert after(NEVER_STARTED, alive(7)) == Step(NEVER_STARTED, MAY_LIVE, again=5.0)


def test_the_next_run_after_a_pause_is_at_nobodys_expense() -> None:
    assert next_run(SECOND) == replace(SECOND, run=3)
    assert next_run(NEVER_STARTED) == NEVER_STARTED


# --------------------------------------------------------------------------------------------------- a run that is there


def test_a_run_that_is_not_made_yet_is_made_once_nobody_is_alive() -> None:
    assert after(SECOND) == Step(SECOND, State("False", "NotStarted"), start=True, again=5.0)
    assert after(SECOND, alive(1)) == Step(SECOND, MAY_LIVE, start=False, again=5.0)
    first = replace(FAILED, name="s1", run=1)
    assert after(SECOND, first, pod(1)).start, "what is left of the run before is none of it"


def test_a_run_that_somebody_deletes_is_the_same_run_once_more() -> None:
    leaving = replace(RUNNING, leaving=True)
    assert after(SECOND, leaving) == Step(SECOND, State("False", "NotStarted"), start=False, again=5.0)
    assert after(SECOND, leaving, alive()) == Step(SECOND, MAY_LIVE, start=False, again=5.0)


def test_a_run_that_lives_says_what_its_own_pods_say() -> None:
    assert after(SECOND, RUNNING, alive(ready=True)) == Step(SECOND, State("True", "Ready"))
    assert after(SECOND, RUNNING, alive(1, ready=True)).ready == State("False", "NotStarted")
    starting = after(SECOND, RUNNING, alive())
    assert starting.ready == State("False", "Pending", "pod old is being started")
    assert (starting.start, starting.verdict) == (False, None)


# --------------------------------------------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("job", "last", "verdict"),
    [
        (COMPLETE, {"exit_code": 0, "verdict": "RoundsCompleted", "words": "w"}, (True, "RoundsCompleted", "w")),
        (COMPLETE, {"exit_code": 0, "verdict": "EarlyStopped", "words": "w"}, (True, "EarlyStopped", "w")),
        (COMPLETE, {"exit_code": 0}, (True, "RoundsCompleted", "")),
        (COMPLETE, {"exit_code": 0, "verdict": "loss is 0.1", "words": "w"}, (True, "EarlyStopped", "loss is 0.1")),
        (COMPLETE, None, (True, "RoundsCompleted", "")),
        (FAILED, {"exit_code": 1, "verdict": "QuorumNotMet", "words": "w"}, (False, "QuorumNotMet", "w")),
        (FAILED, {"exit_code": 1, "verdict": "something", "words": "w"}, (False, "ServerFailed", "w")),
        (FAILED, {"exit_code": 2, "words": "no such field"}, (False, "ServerFailed", "no such field")),
        (FAILED, {"exit_code": 2}, (False, "ServerFailed", "the server cannot use its configuration")),
    ],
)
def test_the_servers_own_word_is_final(job: BatchJob, last: dict[str, Any] | None, verdict: Any) -> None:
    pods = [pod(**last)] if last is not None else []
    found = after(SECOND, job, *pods, now=END)
    assert found == Step(SECOND, State("False", "Finished"), verdict=Verdict(*verdict))


def test_the_rows_above_use_words_of_both_tables() -> None:
    assert {"RoundsCompleted", "EarlyStopped"} <= set(SUCCESSES)
    assert "QuorumNotMet" in FAILURES


def test_the_pod_with_an_exit_code_tells_and_of_this_run_alone() -> None:
    silent, told = pod(name="z"), pod(name="a", exit_code=2, words="of this run")
    before = pod(1, name="y", exit_code=1, verdict="QuorumNotMet", words="of the run before")
    assert after(SECOND, FAILED, silent, told, before).verdict == Verdict(False, "ServerFailed", "of this run")
    assert after(SECOND, FAILED, silent, before).verdict is None


@pytest.mark.parametrize("code", [1, 3, 70, 137, 139])
def test_an_end_without_a_verdict_is_a_death(code: int) -> None:
    found = after(SECOND, FAILED, pod(exit_code=code, words="out of luck"))
    assert found.verdict is None
    assert found.start


# --------------------------------------------------------------------------------------------------- after a death


WORDS = "pod p ended with exit code 70: out of luck"
DEAD = pod(exit_code=70, words="out of luck")


def test_the_next_run_counts_and_remembers_how_the_last_one_ended() -> None:
    budget = replace(BUDGET, used=2, at_round=3)
    expected = Server(run=3, restarts=2, budget=budget, last=WORDS)
    assert after(SECOND, FAILED, DEAD) == Step(expected, State("False", "Restarting", WORDS), start=True)


def test_a_restart_waits_for_its_pause_which_doubles() -> None:
    for used, pause in ((0, 0.1), (1, 0.2), (2, 0.4)):
        server = replace(SECOND, budget=replace(BUDGET, used=used))
        just = after(server, FAILED, DEAD, now=END)
        assert just == Step(server, State("False", "Restarting", WORDS), again=pytest.approx(pause))
        nearly = after(server, FAILED, DEAD, now=END + timedelta(seconds=pause - 0.01))
        assert (nearly.start, nearly.again) == (False, pytest.approx(0.01))
        assert after(server, FAILED, DEAD, now=END + timedelta(seconds=pause)).start


def test_rounds_that_were_completed_since_give_the_budget_back() -> None:
    server = replace(SECOND, budget=replace(BUDGET, used=3))
    assert after(server, FAILED, DEAD, rounds=6).verdict == Verdict(
        False, "RestartBudgetExhausted", f"3 restarts used up without progress; {WORDS}"
    )
    refilled = after(server, FAILED, DEAD, rounds=7)
    assert refilled.server.budget == replace(BUDGET, used=1, at_round=7)
    assert refilled.start


def test_the_last_restart_of_the_budget_is_given() -> None:
    server = replace(SECOND, budget=replace(BUDGET, used=2))
    assert after(server, FAILED, DEAD).server.budget.used == 3
    spent = replace(SECOND, budget=replace(BUDGET, used=3))
    assert after(spent, FAILED, DEAD).ready == State("False", "Finished")
    assert after(spent, FAILED, DEAD).server == spent


@pytest.mark.parametrize("fate", [{"exit_code": 143}, {"exit_code": 137, "disrupted": True}, {"deleted": True}])
def test_an_end_from_outside_costs_nothing_of_the_budget(fate: dict[str, Any]) -> None:
    spent = replace(SECOND, budget=replace(BUDGET, used=3))
    found = after(spent, FAILED, pod(**fate))
    assert found.start
    assert (found.server.run, found.server.restarts, found.server.budget) == (3, 2, spent.budget)


def test_no_next_run_while_a_pod_of_any_run_may_be_alive() -> None:
    found = after(SECOND, FAILED, DEAD, alive(1))
    assert found == Step(SECOND, MAY_LIVE, again=15.0)


def test_a_rule_ends_the_job_or_excuses_the_server() -> None:
    rule: dict[str, Any] = {"name": "r", "role": "Server", "onExitCodes": {"operator": "In", "values": [70]}}
    ends = after(SECOND, FAILED, DEAD, spec=spec(rules=[{**rule, "action": "FailJob"}]))
    words = f"the server: rule r of failurePolicy: FailJob; {WORDS}"
    assert ends == Step(SECOND, State("False", "Finished"), verdict=Verdict(False, "FailedByRule", words))
    excused = after(
        replace(SECOND, budget=replace(BUDGET, used=3)),
        FAILED, DEAD, spec=spec(rules=[{**rule, "action": "Ignore"}]),
    )  # fmt: skip
    assert excused.start
    clients = after(SECOND, FAILED, DEAD, spec=spec(rules=[{**rule, "role": "Client", "action": "FailJob"}]))
    assert clients.start, "a rule for clients is none for the server"


def test_a_server_that_was_killed_for_its_memory_says_what_its_limit_is() -> None:
    found = after(SECOND, FAILED, pod(exit_code=137, out_of_memory=True))
    assert found.ready == State(
        "False",
        "OOMKilled",
        "pod p was killed for the memory that it used: its limit is 3Gi (spec.server.resources.limits.memory)",
    )


def test_the_pods_of_another_run_excuse_nothing() -> None:
    spent = replace(SECOND, budget=replace(BUDGET, used=3))
    evicted = pod(1, "before", exit_code=137, disrupted=True)
    assert after(spent, FAILED, DEAD, evicted).verdict is not None
