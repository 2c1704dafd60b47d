"""One step of a site's script, row by row: which run of which attempt, when, at whose expense, and its end; and the pass around it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.build.site_job import site_job as assignment
from fedjob_operator.desired import job as hub
from fedjob_operator.desired.conditions import State
from fedjob_operator.desired.memory import Memory
from fedjob_operator.desired.site_job import Script, Step, desired_state, step
from fedjob_operator.observed import BatchJob, Certificate, Child, Observed, ObservedSite, Pod
from fedjob_operator.plan import NOTHING, Delete, Plan
from fedjob_operator.settings import Settings
from fedjob_operator.trust import Trust

END = datetime(2030, 1, 1, tzinfo=UTC)
LATER = END + timedelta(hours=1)
SPEC: dict[str, Any] = {"job": {"attempt": 2}, "restarts": {"allowed": 3, "forgiven": 1}, "trainer": {}}
SECOND = Script(attempt=2, run=4, restarts=2, last="words of before")
FAILED = BatchJob("c4", "uid-c4", 4, "Failed", started_at=END - timedelta(minutes=1), finished_at=END)
RUNNING = replace(FAILED, finished="", finished_at=None)
MAY_LIVE = State("False", "Restarting", "pod old may still be alive")
NOT_STARTED = State("False", "NotStarted")


def pod(run: int = 4, name: str = "p", **fields: Any) -> Pod:
    return Pod(name, f"uid-{name}", run, **{"phase": "Failed", **fields})


def alive(run: int = 4, **fields: Any) -> Pod:
    return pod(run, "old", phase="Running", **fields)


def seen(*found: BatchJob | Pod, **more: Any) -> ObservedSite:
    jobs = tuple(one for one in found if isinstance(one, BatchJob))
    return ObservedSite({}, jobs=jobs, pods=tuple(one for one in found if isinstance(one, Pod)), **more)


def after(script: Script, *found: BatchJob | Pod, now: datetime = LATER, **more: Any) -> Step:
    return step(script, seen(*found), {**SPEC, **more}, now)


# --------------------------------------------------------------------------------------------------- which run


@pytest.mark.parametrize("script", [Script(), Script(attempt=1, run=3, restarts=2, last="w")])
def test_a_new_attempt_is_a_new_run_once_the_old_one_is_gone(script: Script) -> None:
    begun = replace(script, attempt=2, run=script.run + 1)
    assert after(script) == Step(begun, NOT_STARTED, start=True)
    assert after(script, alive(9)) == Step(script, MAY_LIVE, again=5.0)


def test_a_run_that_is_not_there_is_made_once_nobody_is_alive() -> None:
    assert after(SECOND) == Step(SECOND, NOT_STARTED, start=True, again=5.0)
    assert after(SECOND, replace(FAILED, run=3)) == Step(SECOND, NOT_STARTED, start=True, again=5.0)
    assert after(SECOND, alive(1)) == Step(SECOND, MAY_LIVE, again=5.0)
    leaving = replace(RUNNING, leaving=True)
    assert after(SECOND, leaving) == Step(SECOND, NOT_STARTED, again=5.0)


def test_what_the_api_server_refuses_is_said_where_a_run_is_missing() -> None:
    troubled = seen(trouble="quota")
    assert step(SECOND, troubled, SPEC, LATER).running == State("False", "Forbidden", "quota")
    assert step(SECOND, replace(troubled, jobs=(RUNNING,)), SPEC, LATER).running == NOT_STARTED


def test_a_run_that_lives_says_what_its_own_pods_say() -> None:
    assert after(SECOND, RUNNING, alive(ready=True)) == Step(SECOND, State("True", "Running"))
    assert after(SECOND, RUNNING, alive(3, ready=True)) == Step(SECOND, NOT_STARTED)
    assert after(SECOND, RUNNING, alive()).running == State("False", "Pending", "pod old is being started")
    waiting = after(SECOND, replace(RUNNING, suspended=True), alive(ready=True)).running
    assert waiting == State("False", "WaitingForQueue", "the queue has not admitted the script's Job yet")


def test_a_script_that_ended_well_has_succeeded() -> None:
    succeeded = Step(SECOND, State("False", "Finished"), State("True", "Succeeded"))
    assert after(SECOND, replace(FAILED, finished="Complete"), pod(phase="Succeeded", exit_code=0)) == succeeded


# --------------------------------------------------------------------------------------------------- after a death


DEAD = pod(exit_code=1, words="ValueError")
WORDS = "pod p ended with exit code 1: ValueError"


def test_the_next_run_counts_and_remembers_how_the_last_one_ended() -> None:
    expected = Script(attempt=2, run=5, restarts=3, last=WORDS)
    assert after(SECOND, FAILED, DEAD) == Step(expected, State("False", "Restarting", WORDS), start=True)


def test_restarts_that_the_hub_has_forgiven_do_not_count() -> None:
    for restarts, forgiven, left in ((2, 0, True), (3, 0, False), (3, 1, True), (4, 1, False), (9, 7, True)):
        budget = {"allowed": 3, "forgiven": forgiven}
        found = after(replace(SECOND, restarts=restarts), FAILED, DEAD, restarts=budget)
        assert found.start is left
        if not left:
            why = f"3 restarts used up without a completed round; {WORDS}"
            assert found.running == State("False", "Finished")
            assert found.finished == State("True", "RestartBudgetExhausted", why)
            assert found.script.restarts == restarts


def test_a_restart_waits_for_its_pause_which_follows_from_those_that_count() -> None:
    for restarts, forgiven, pause in ((0, 0, 0.1), (1, 0, 0.2), (2, 0, 0.4), (2, 1, 0.2), (9, 9, 0.1)):
        budget = {"allowed": 3, "forgiven": forgiven}
        script = replace(SECOND, restarts=restarts)
        just = after(script, FAILED, DEAD, now=END, restarts=budget)
        assert just == Step(script, State("False", "Restarting", WORDS), again=pytest.approx(pause))
        over = END + timedelta(seconds=pause)
        assert after(script, FAILED, DEAD, now=over, restarts=budget).start


@pytest.mark.parametrize("fate", [{"exit_code": 143}, {"exit_code": 137, "disrupted": True}, {"deleted": True}])
def test_an_end_from_outside_costs_nothing_of_the_budget(fate: dict[str, Any]) -> None:
    spent = replace(SECOND, restarts=4)
    found = after(spent, FAILED, pod(**fate))
    assert found.start
    assert (found.script.run, found.script.restarts) == (5, 4)


def test_no_next_run_while_a_pod_of_any_run_may_be_alive() -> None:
    assert after(SECOND, FAILED, DEAD, alive(1)) == Step(SECOND, MAY_LIVE, again=15.0)


@pytest.mark.parametrize(
    ("action", "reason"), [("FailSite", "SiteFailedByRule"), ("FailJob", "JobFailedByRule"), ("Ignore", "")]
)
def test_a_rule_ends_the_site_or_the_job_or_excuses_the_script(action: str, reason: str) -> None:
    rule = {"name": "r", "role": "Client", "action": action, "onExitCodes": {"operator": "In", "values": [1]}}
    found = after(replace(SECOND, restarts=9), FAILED, DEAD, restarts={"allowed": 3, "forgiven": 0, "rules": [rule]})
    words = f"rule r of failurePolicy: {action}; {WORDS}"
    if reason:
        assert (found.running, found.start) == (State("False", "Finished"), False)
        assert found.finished == State("True", reason, words)
    else:
        assert (found.start, found.script.restarts, found.script.last) == (True, 9, words)


def test_a_script_that_was_killed_for_its_memory_says_what_its_limit_is() -> None:
    killed = pod(exit_code=137, out_of_memory=True)
    for trainer, limit in (
        ({"resources": {"limits": {"memory": "2Gi"}}}, "its limit is 2Gi (spec.trainer.resources.limits.memory)"),
        ({}, "spec.trainer.resources.limits.memory is not set"),
    ):
        found = after(SECOND, FAILED, killed, trainer=trainer).running
        assert found == State("False", "OOMKilled", f"pod p was killed for the memory that it used: {limit}")


def test_the_pods_of_another_run_excuse_nothing() -> None:
    spent = replace(SECOND, restarts=4)
    evicted = pod(3, "before", exit_code=137, disrupted=True)
    assert after(spent, FAILED, DEAD, evicted).finished.reason == "RestartBudgetExhausted"


# --------------------------------------------------------------------------------------------------- the whole pass


SETTINGS = Settings("system", "fedjob-runtime:1", "me")
TRUST = Trust("issuer", "bundle")
RULE = {"name": "all", "images": [{"repository": "fedjob-runtime"}], "inlineCode": "Allow", "approval": "Automatic"}
POLICY: dict[str, Any] = {"spec": {"rules": [RULE]}}


def site_job(status: dict[str, Any] | None = None, *, attempt: int = 2, suspend: bool = False) -> dict[str, Any]:
    """The SiteJob of a job's only site, as the hub makes it."""
    body = {
        "workflow": {"type": "FedAvg", "rounds": 9},
        "trainer": {"files": {"train.py": ""}},
        "sites": [{"name": "a"}],
    }
    raw = {
        "apiVersion": names.FEDERATED_JOB.api_version, "kind": "FederatedJob",
        "metadata": {"name": "j", "namespace": "n", "uid": "uid-j"}, "spec": body,
    }  # fmt: skip
    case = hub.Case(Observed(job=raw), hub.read(raw), LATER, SETTINGS, TRUST)
    of = case.of(Memory(attempt=attempt))
    made = assignment(of, "a", "n", TRUST, forgiven=0, suspend=suspend)
    metadata = {**made["metadata"], "uid": "uid-sj", "generation": 3}
    return {**made, "metadata": metadata, "status": status or {}}


def told(attempt: int = 2, run: int = 4, **found: tuple[str, str]) -> dict[str, Any]:
    """A status with these conditions."""
    at = "2030-01-01T00:00:00Z"
    conditions = [
        {"type": k, "status": s, "reason": r, "message": "", "lastTransitionTime": at} for k, (s, r) in found.items()
    ]
    return {"attempt": attempt, "run": run, "restarts": 1, "lastTermination": "w", "conditions": conditions}


def identity() -> str:
    return names.spiffe("fedjob.local", "uid-j", "a")


CERTIFICATE = Certificate(LATER, LATER + timedelta(days=7), (), identity(), TRUST.issuer, TRUST.digest)


def look(raw: dict[str, Any], *found: BatchJob | Pod, now: datetime = LATER, **more: Any) -> Plan:
    """A pass over a SiteJob; more: of what it sees."""
    base = replace(seen(*found), site_job=raw, policy=POLICY, assigned=True, certificate=CERTIFICATE)
    return desired_state(replace(base, **more), now, SETTINGS, TRUST)


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    assert plan.status is not None
    return {c["type"]: (c["status"], c["reason"]) for c in plan.status["conditions"]}


def test_an_assignment_that_is_accepted_runs() -> None:
    plan = look(site_job(), certificate=None)
    assert conditions(plan) == {
        "Accepted": ("True", "Accepted"), "Running": ("False", "NotStarted"), "Finished": ("False", "NotFinished"),
    }  # fmt: skip
    assert plan.status is not None
    assert {key: plan.status[key] for key in ("observedGeneration", "attempt", "run", "restarts", "lastTermination")} == {
        "observedGeneration": 3, "attempt": 2, "run": 1, "restarts": 0, "lastTermination": "",
    }  # fmt: skip
    assert [(issue.job_uid, issue.site, issue.dns_names) for issue in plan.issue] == [("uid-j", "a", ())]
    assert {m["kind"] for m in plan.apply} == {"ConfigMap", "NetworkPolicy"}
    (made,) = plan.create
    assert made.manifest["metadata"]["labels"][names.RUN_LABEL] == "1"
    assert made.alone is None, "the first run of all"
    assert plan.again == 1.0


def test_a_later_run_is_made_only_while_no_pod_of_another_is_alive() -> None:
    (made,) = look(site_job(told())).create
    assert made.alone == {names.UID_LABEL: "uid-j", names.ROLE_LABEL: names.CLIENT, names.SITE_LABEL: "a"}
    assert made.manifest["metadata"]["labels"][names.RUN_LABEL] == "4"


def test_a_certificate_that_will_do_is_looked_at_when_it_is_due() -> None:
    plan = look(site_job(told()), RUNNING, alive(ready=True))
    assert plan.issue == ()
    assert plan.again == pytest.approx(7 * 86_400 * 2 / 3, rel=0.16)
    assert plan.status is not None
    assert plan.status["certificateNotAfter"] == "2030-01-08T01:00:00Z"
    pausing = look(site_job(told()), FAILED, DEAD, now=END)
    assert pausing.again == pytest.approx(0.2), "what comes first"


@pytest.mark.parametrize(
    "present",
    [
        None,
        replace(CERTIFICATE, identity=names.spiffe("fedjob.local", "uid-j", "b")),
        replace(CERTIFICATE, identity=names.spiffe("fedjob.local", "uid-k", "a")),
        replace(CERTIFICATE, names=("x",)),
        replace(CERTIFICATE, issuer="x"),
        replace(CERTIFICATE, bundle="x"),
        replace(CERTIFICATE, not_before=LATER - timedelta(days=700)),
    ],
)
def test_a_certificate_of_anybody_else_is_issued_anew_for_a_site_that_was_assigned(present: Certificate | None) -> None:
    raw = site_job(told())
    assert len(look(raw, RUNNING, certificate=present).issue) == 1
    assert look(raw, RUNNING, certificate=present).again == 1.0
    foreign = look(raw, RUNNING, certificate=present, assigned=False)
    assert (foreign.issue, foreign.apply, foreign.create, foreign.again) == ((), (), (), 5.0)
    assert conditions(foreign) == {
        "Accepted": ("False", "NotAssigned"), "Running": ("False", "NotStarted"), "Finished": ("False", "NotFinished"),
    }  # fmt: skip


def test_a_site_that_has_a_certificate_goes_on_though_its_job_is_not_heard_of() -> None:
    plan = look(site_job(told()), RUNNING, alive(ready=True), assigned=False)
    assert conditions(plan)["Running"] == ("True", "Running")


def test_a_site_that_finished_stays_so_for_its_attempt_and_begins_anew_with_the_next() -> None:
    ended = told(Finished=("True", "Succeeded"))
    assert look(site_job(ended)) == NOTHING
    plan = look(site_job(ended, attempt=3))
    assert conditions(plan)["Finished"] == ("False", "NotFinished")
    assert [made.manifest["metadata"]["labels"][names.RUN_LABEL] for made in plan.create] == ["5"]


def test_a_pause_takes_what_runs_and_keeps_what_is_over() -> None:
    over = replace(FAILED, name="c3", uid="uid-c3", run=3)
    leaving = replace(RUNNING, name="c2", uid="uid-c2", run=2, leaving=True)
    plan = look(site_job(told(), suspend=True), RUNNING, over, leaving, alive(ready=True))
    assert plan.delete == (Delete("Job", "n", "c4", "uid-c4"),)
    assert conditions(plan)["Running"] == ("False", "Suspended")
    assert (plan.create, plan.apply, plan.issue, plan.again) == ((), (), (), None)


@pytest.mark.parametrize(
    ("policy", "accepted"),
    [
        (None, ("Unknown", "NoPolicy")),
        ({"spec": {"rules": [RULE], "suspend": True}}, ("False", "SiteSuspended")),
        ({"spec": {"rules": []}}, ("False", "Refused")),
        ({"spec": {"rules": [{**RULE, "approval": "Manual"}]}}, ("Unknown", "NeedsApproval")),
    ],
)
@pytest.mark.parametrize("suspend", [False, True])
def test_without_a_yes_what_runs_is_taken_and_nothing_is_made(
    policy: Any, accepted: tuple[str, str], suspend: bool
) -> None:
    plan = look(site_job(told(), suspend=suspend), RUNNING, alive(ready=True), policy=policy, certificate=None)
    assert plan.delete == (Delete("Job", "n", "c4", "uid-c4"),)
    assert (plan.create, plan.apply, plan.issue) == ((), (), ())
    assert conditions(plan)["Accepted"] == accepted
    assert conditions(plan)["Running"] == ("False", "NotStarted")


def test_an_end_stays_known_while_there_are_no_pods() -> None:
    ended = told(Finished=("True", "RestartBudgetExhausted"))
    for policy in (POLICY, None):
        plan = look(site_job(ended, suspend=True), policy=policy)
        assert conditions(plan)["Finished"] == ("True", "RestartBudgetExhausted")
    going = told(Finished=("False", "NotFinished"))
    assert conditions(look(site_job(going, suspend=True)))["Finished"] == ("False", "NotFinished")


def test_jobs_of_other_runs_and_attempts_that_are_active_go_and_old_ones_as_well() -> None:
    jobs = {
        "before": replace(FAILED, name="before", uid="b", run=3),
        "old": replace(FAILED, name="old", uid="o", run=2),
        "active": replace(RUNNING, name="active", uid="a", run=5),
        "leaving": replace(RUNNING, name="leaving", uid="l", run=1, leaving=True),
    }
    plan = look(site_job(told()), RUNNING, alive(ready=True), *jobs.values())
    assert {target.name for target in plan.delete} == {"old", "active"}
    next_attempt = look(site_job(told(), attempt=3), RUNNING, alive(ready=True), jobs["before"])
    assert {target.name for target in next_attempt.delete} == {"c4"}, "the attempt of before is over"
    assert next_attempt.create == ()


def test_a_site_that_keeps_words_to_itself_tells_exit_codes_alone() -> None:
    silent = {"spec": {**POLICY["spec"], "floor": {"exchange": {"lastWords": "ExitCode"}}}}
    for policy, words in ((POLICY, WORDS), (silent, "pod p ended with exit code 1")):
        plan = look(site_job(told()), FAILED, DEAD, policy=policy)
        assert plan.status is not None
        assert plan.status["lastTermination"] == words
    waiting = alive(problem="ImagePull", words="no such image")
    plan = look(site_job(told()), RUNNING, waiting, policy=silent)
    assert plan.status is not None
    assert plan.status["conditions"][1]["message"] == "pod old: no such image", "what the cluster says is told"


def test_only_what_differs_is_applied_and_a_status_that_is_right_is_not_written() -> None:
    raw = site_job(told())
    first = look(raw, RUNNING, alive(ready=True))
    assert [m["kind"] for m in first.apply] == ["ConfigMap", "NetworkPolicy"]
    assert first.status is not None
    hashes = [m["metadata"]["annotations"][names.HASH_ANNOTATION] for m in first.apply]
    children = tuple(
        Child(m["kind"], "n", m["metadata"]["name"], "u", mark, owned=True)
        for m, mark in zip(first.apply, hashes, strict=True)
    )
    settled = look({**raw, "status": first.status}, RUNNING, alive(ready=True), children=children)
    assert settled == Plan(again=settled.again)
    by_hand = (replace(children[0], drifted=True), children[1])
    drifted = look({**raw, "status": first.status}, RUNNING, alive(ready=True), children=by_hand)
    assert [m["kind"] for m in drifted.apply] == ["ConfigMap"]


def test_an_event_tells_of_what_changed_for_the_worse() -> None:
    exhausted = look(site_job({**told(), "restarts": 3}), FAILED, DEAD)
    assert [(e.reason, e.warning) for e in exhausted.events] == [("RestartBudgetExhausted", True)]
    started = look(site_job(told(Running=("False", "NotStarted"))), RUNNING, alive(ready=True))
    assert [(e.reason, e.warning) for e in started.events] == [("Running", False)]


def test_a_certificate_that_is_not_known_any_more_is_still_told_of() -> None:
    raw = site_job({**told(), "certificateNotAfter": "2030-01-05T00:00:00Z"}, suspend=True)
    for present, says in ((None, "2030-01-05T00:00:00Z"), (CERTIFICATE, "2030-01-08T01:00:00Z")):
        plan = look(raw, certificate=present)
        assert plan.status is not None
        assert plan.status["certificateNotAfter"] == says


def test_what_is_being_deleted_is_left_alone() -> None:
    raw = site_job(told())
    raw["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert look(raw, RUNNING, policy=None) == NOTHING


def test_what_the_policy_decides_of_pods_reaches_them() -> None:
    spec = {
        **POLICY["spec"],
        "caBundle": {"configMap": "company"},
        "pods": {"runtimeClassName": "gvisor"},
        "metrics": {"scrapeFrom": ["monitoring"]},
        "data": [{"name": "xrays", "claim": "x-2030"}],
    }
    raw = site_job(told())
    raw = {**raw, "spec": {**raw["spec"], "data": "xrays"}}
    plan = look(raw, policy={"spec": spec})
    (made,) = plan.create
    pod_spec = made.manifest["spec"]["template"]["spec"]
    assert pod_spec["runtimeClassName"] == "gvisor"
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod_spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == ["x-2030"]
    assert "company" in str(pod_spec["volumes"])
    assert names.METRICS_LABEL in made.manifest["spec"]["template"]["metadata"]["labels"]
    (network,) = [m for m in plan.apply if m["kind"] == "NetworkPolicy"]
    assert "monitoring" in str(network["spec"]["ingress"])
    bare = look(site_job(told()))
    assert not any(word in str(bare.create) for word in ("gvisor", "company", names.METRICS_LABEL))
