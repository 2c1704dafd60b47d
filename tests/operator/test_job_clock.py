"""The clocks of a FederatedJob, to the second: deadlines, pauses, silence, the grace and the clean-up at the end; and what each pass makes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fedjob_operator import names, pki
from fedjob_operator.desired.job import desired_state, differing
from fedjob_operator.names import CLIENT, SERVER
from fedjob_operator.observed import BatchJob, Child
from fedjob_operator.plan import NOTHING, Delete

COMPLETE = json.dumps({"reason": "RoundsCompleted", "message": ""})
SLOW = {"startDeadlineSeconds": 10_000_000, "activeDeadlineSeconds": 10_000_000}


def message(world: Any, key: Any, kind: str) -> str:
    """The message of a job's condition."""
    return str(next(c for c in world.status(key)["conditions"] if c["type"] == kind)["message"])


def wait(world: Any, seconds: float) -> None:
    """Time passes, and passes are made."""
    world.now += timedelta(seconds=seconds)
    world.settle()


def ahead(world: Any, key: Any) -> float:
    """Seconds until the next pass that the job's own plan asks for."""
    again = world.plan(key).again
    assert again is not None
    return float(again)


def scripts(world: Any) -> int:
    """Jobs of scripts that have not ended."""
    return sum(not world.finished(job) for job in world.jobs(CLIENT))


def up(world: Any, **spec: Any) -> Any:
    """A job whose server runs, whose sites train, from which a report has come."""
    key = world.submit(**{**SLOW, **spec})
    world.up(key)
    return key


def end(world: Any, code: int = 0, words: str = COMPLETE) -> None:
    """The server ends."""
    (alive,) = (pod for pod in world.pods(SERVER) if pod["status"]["phase"] == "Running")
    world.end_pod(alive, code, words)
    world.settle()


# ------------------------------------------------------------------------------------------------------ deadlines


def test_the_start_deadline_is_kept_to_the_second_and_looked_at_when_it_comes(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=600)
    world.settle()
    assert ahead(world, key) == 600.0
    wait(world, 599)
    assert world.condition(key, "Failed")[0] == "False"
    assert ahead(world, key) == 1.0
    wait(world, 1)
    assert world.condition(key, "Failed") == ("True", "StartDeadlineExceeded")
    said = "not running after 600 s (spec.startDeadlineSeconds); the server: NotStarted"
    assert message(world, key, "Failed") == said


def test_the_start_deadline_is_nothing_to_a_job_that_runs_and_the_last_deadline_is_their_sum(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=600, activeDeadlineSeconds=1000)
    world.up(key)
    assert world.status(key)["runningTime"] == "2030-01-01T00:00:00Z"
    assert ahead(world, key) == 1600.0
    wait(world, 1599)
    assert world.condition(key, "Failed")[0] == "False"
    wait(world, 1)
    assert world.condition(key, "Failed") == ("True", "DeadlineExceeded")
    said = "not finished 1600 s after its start (spec.startDeadlineSeconds + spec.activeDeadlineSeconds)"
    assert message(world, key, "Failed") == said


def test_the_time_of_a_pause_counts_for_no_deadline(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=600, activeDeadlineSeconds=1000)
    world.up(key)
    wait(world, 100)
    world.edit(key, suspend=True)
    end(world, 143, "")
    wait(world, 5000)
    world.edit(key, suspend=False)
    wait(world, 0)
    assert world.status(key)["suspendedSeconds"] == 5000
    assert ahead(world, key) <= 1500.0
    wait(world, 1499)
    assert world.condition(key, "Failed")[0] == "False"
    wait(world, 1)
    assert world.condition(key, "Failed") == ("True", "DeadlineExceeded")


# ------------------------------------------------------------------------------------------------------- silence


def test_a_server_that_is_ready_and_silent_is_said_to_be_so_after_a_minute(world: Any) -> None:
    key = world.submit(**SLOW)
    world.settle()
    world.start_pods()
    world.settle()
    assert ahead(world, key) == 60.0
    wait(world, 59)
    assert world.condition(key, "Progressing") == ("False", "Waiting")
    wait(world, 1)
    assert world.condition(key, "Progressing") == ("False", "NotReported")
    said = (
        "the server is ready, and no report of it has come; "
        "the server reports to https://hub.test:8443: see its log, and the network between them"
    )
    assert message(world, key, "Progressing") == said
    world.settings = replace(world.settings, hub_url="")
    wait(world, 1)
    assert message(world, key, "Progressing").endswith("no report of it has come; the hub has no --hub-url")
    world.report(key)
    wait(world, 1)
    assert world.condition(key, "Progressing") == ("True", "Training")


def test_a_report_of_an_attempt_before_is_none_of_this_one(world: Any) -> None:
    key = up(world)
    world.report(key, attempt=1)
    wait(world, 100)
    assert world.condition(key, "Progressing") == ("True", "Training")
    world.report(key, attempt=7)
    wait(world, 100)
    assert world.condition(key, "Progressing") == ("False", "NotReported")


@pytest.mark.parametrize(
    ("policy", "patience"), [({}, 100), ({"onQuorumLost": "Wait", "quorumTimeoutSeconds": 50}, 150)]
)
def test_no_round_for_longer_than_one_may_take_and_five_minutes_is_a_stall(
    world: Any, policy: dict[str, Any], patience: int
) -> None:
    workflow = {"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100}
    key = up(world, workflow=workflow, failurePolicy=policy)
    assert ahead(world, key) == patience + 300.0
    wait(world, patience + 299)
    assert world.condition(key, "Progressing") == ("True", "Training")
    wait(world, 1)
    assert world.condition(key, "Progressing") == ("False", "Stalled")
    said = f"0 of 3 rounds reported, and none since; a round may take {patience} s"
    assert message(world, key, "Progressing") == said
    world.report(key, completed=1)
    wait(world, patience + 299)
    assert world.condition(key, "Progressing") == ("True", "Training")
    wait(world, 1)
    assert message(world, key, "Progressing").startswith("1 of 3 rounds")


def test_a_server_that_is_being_started_again_is_not_stalled(world: Any) -> None:
    key = up(world, workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    end(world, 137, "")
    wait(world, 1000)
    assert world.condition(key, "ServerReady")[0] == "False"
    assert world.condition(key, "Progressing") == ("False", "Waiting")


def test_a_server_that_is_not_at_work_is_not_stalled(world: Any) -> None:
    key = up(world, workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    world.report(key, state="Waiting")
    wait(world, 10_000)
    assert world.condition(key, "Progressing") == ("False", "Waiting")


# ------------------------------------------------------------------------------------------------------- the pause


def test_a_round_has_its_own_time_and_a_minute_before_a_pause(world: Any) -> None:
    key = up(world, workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    world.edit(key, suspend=True)
    world.settle()
    assert ahead(world, key) == 160.0
    wait(world, 159)
    assert world.condition(key, "Admitted") == ("False", "Suspending")
    assert world.condition(key, "ServerReady") == ("True", "Ready")
    assert (len(world.live_servers()), scripts(world)) == (1, 2)
    wait(world, 1)
    assert world.condition(key, "Admitted") == ("False", "Suspended")
    assert message(world, key, "Admitted") == "spec.suspend is true"
    assert world.condition(key, "ServerReady") == ("False", "NotStarted")
    assert (world.jobs(SERVER), scripts(world)) == ([], 0)
    assert world.plan(key).again is None


@pytest.mark.parametrize("state", ["Waiting", "Complete"])
def test_a_job_between_rounds_is_paused_at_once(world: Any, state: str) -> None:
    key = up(world)
    world.report(key, state=state)
    world.edit(key, suspend=True)
    world.settle()
    assert world.condition(key, "Admitted") == ("False", "Suspended")
    assert world.jobs(SERVER) == []


def test_a_job_that_waits_for_its_quorum_is_given_that_time_too(world: Any) -> None:
    policy = {"onQuorumLost": "Wait", "quorumTimeoutSeconds": 50}
    key = up(world, workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100}, failurePolicy=policy)
    world.edit(key, suspend=True)
    world.settle()
    assert ahead(world, key) == 210.0


def test_a_certificate_is_not_asked_for_once_the_pods_are_gone(world: Any) -> None:
    key = up(world)
    world.edit(key, suspend=True)
    end(world, 143, "")
    world.store.certificates.clear()
    world.writes.clear()
    wait(world, 86_400 * 30)
    assert "issue" not in world.writes


# ---------------------------------------------------------------------------------------------- no hope, and quorum


@pytest.mark.parametrize(
    ("policy", "verdict"), [("Fail", ("True", "QuorumUnreachable")), ("Wait", ("False", "NotFinished"))]
)
def test_a_quorum_that_is_out_of_reach_ends_the_job_unless_it_is_to_wait(
    world: Any, policy: str, verdict: tuple[str, str]
) -> None:
    both = {"type": "FedAvg", "rounds": 3, "quorum": 2}
    key = up(world, workflow=both, failurePolicy={"siteRestarts": 0, "onQuorumLost": policy})
    world.end_pod(world.script("b"), 1, "ValueError")
    wait(world, 1)
    assert world.condition(key, "Failed") == verdict


def test_a_rule_ends_a_job_that_would_wait_for_its_quorum(world: Any) -> None:
    rule = {"name": "r", "action": "FailJob", "onExitCodes": {"values": [42]}}
    key = up(world, failurePolicy={"onQuorumLost": "Wait", "rules": [rule]})
    world.end_pod(world.script("b"), 42)
    wait(world, 1)
    assert world.condition(key, "Failed") == ("True", "FailedByRule")


# --------------------------------------------------------------------------------------------------------- the end


def test_the_scripts_of_a_complete_job_have_a_minute_to_end_by_themselves(world: Any) -> None:
    key = up(world)
    end(world)
    assert world.condition(key, "Complete")[0] == "True"
    assert scripts(world) == 2
    assert ahead(world, key) == 60.0
    wait(world, 59)
    assert scripts(world) == 2
    wait(world, 1)
    assert scripts(world) == 0
    assert len(world.jobs(SERVER)) == 1, "a Job that is over keeps the log of its pod"
    assert world.plan(key).again is None


def test_the_scripts_of_a_failed_job_end_at_once(world: Any) -> None:
    key = up(world)
    end(world, 1, json.dumps({"reason": "QuorumNotMet", "message": "w"}))
    assert world.condition(key, "Failed") == ("True", "QuorumNotMet")
    assert scripts(world) == 0


@pytest.mark.parametrize(
    ("policy", "servers", "assigned", "running"), [("None", 1, 2, 2), ("Running", 0, 2, 0), ("All", 0, 0, 0)]
)
def test_what_is_cleaned_up_is_what_was_asked_for(
    world: Any, policy: str, servers: int, assigned: int, running: int
) -> None:
    key = world.submit(cleanPodPolicy=policy, startDeadlineSeconds=60, activeDeadlineSeconds=600)
    world.up(key)
    wait(world, 700)
    assert world.condition(key, "Failed") == ("True", "DeadlineExceeded")
    kinds = [kind for kind, *_ in world.objects]
    assert (len(world.jobs(SERVER)), kinds.count(names.SITE_JOB.name), scripts(world)) == (servers, assigned, running)


def test_all_is_cleaned_up_of_a_complete_job_but_its_scripts_not_before_their_minute(world: Any) -> None:
    key = up(world, cleanPodPolicy="All")
    end(world)
    assert (world.jobs(SERVER), scripts(world)) == ([], 2)
    wait(world, 20)
    assert ahead(world, key) == 40.0
    world.now += timedelta(seconds=40)
    assert [target.kind for target in world.plan(key).delete] == [names.SITE_JOB.name] * 2, "each once"
    wait(world, 0)
    assert scripts(world) == 0
    assert world.condition(key, "Complete")[0] == "True"


def test_a_script_that_waits_to_be_started_again_is_not_started_after_the_end(world: Any) -> None:
    up(world, cleanPodPolicy="None")
    world.end_pod(world.script("a"), 1)
    world.settle()
    end(world)
    before = {job["metadata"]["name"] for job in world.jobs(CLIENT)}
    wait(world, 120)
    wait(world, 3600)
    assert {job["metadata"]["name"] for job in world.jobs(CLIENT)} == before
    assert scripts(world) == 1, "what runs may run on"


def test_a_job_that_is_over_is_deleted_to_the_second(world: Any) -> None:
    key = up(world, ttlSecondsAfterFinished=100)
    end(world)
    assert ahead(world, key) == 60.0
    wait(world, 60)
    assert ahead(world, key) == 40.0
    wait(world, 39)
    assert world.status(key)
    world.now += timedelta(seconds=1)
    uid = world.objects[(names.FEDERATED_JOB.name, "team-a", "digits")]["metadata"]["uid"]
    assert world.plan(key).delete == (Delete(names.FEDERATED_JOB.name, "team-a", "digits", uid),)
    assert world.plan(key).status is None


def test_the_pass_that_finds_the_end_writes_it_and_the_next_one_follows_at_once(world: Any) -> None:
    key = up(world)
    (alive,) = world.pods(SERVER)
    world.end_pod(alive, 0, COMPLETE)
    plan = world.plan(key)
    assert (plan.again, plan.delete, plan.apply, plan.create) == (0.0, (), (), ())
    assert plan.status is not None
    assert plan.status["completionTime"] == "2030-01-01T00:00:00Z"


# ---------------------------------------------------------------------------------------------- what a pass makes


def test_scripts_are_kept_back_until_the_server_was_ready_once_and_not_again_afterwards(world: Any) -> None:
    key = world.submit(**SLOW)
    world.settle()
    assigned = [raw for (kind, *_), raw in world.objects.items() if kind == names.SITE_JOB.name]
    assert [raw["spec"]["suspend"] for raw in assigned] == [True, True]
    assert world.status(key)["runtimeImage"] == "fedjob-runtime:test"
    assert world.status(key)["server"]["released"] is False
    world.up(key)
    assert world.status(key)["server"]["released"] is True
    end(world, 137, "")
    assigned = [raw for (kind, *_), raw in world.objects.items() if kind == names.SITE_JOB.name]
    assert [raw["spec"]["suspend"] for raw in assigned] == [False, False], "they wait for the next server"


def test_the_first_run_is_made_without_asking_who_is_alive_and_no_other(world: Any) -> None:
    key = world.submit(**SLOW)
    (first,) = world.plan(key).create
    assert first.alone is None
    world.up(key)
    end(world, 137, "")
    world.now += timedelta(seconds=1)
    (second,) = world.plan(key).create
    uid = world.objects[(names.FEDERATED_JOB.name, "team-a", "digits")]["metadata"]["uid"]
    assert second.alone == {names.UID_LABEL: uid, names.ROLE_LABEL: SERVER}
    assert second.manifest["metadata"]["labels"][names.RUN_LABEL] == "2"


def test_every_run_is_of_the_image_that_the_job_began_with(world: Any) -> None:
    key = up(world)
    world.upgrade_the_hub("fedjob-runtime:newer")
    end(world, 137, "")
    world.now += timedelta(seconds=1)
    (second,) = world.plan(key).create
    assert second.manifest["spec"]["template"]["spec"]["containers"][0]["image"] == "fedjob-runtime:test"


def test_runs_before_the_last_one_but_one_are_deleted(world: Any) -> None:
    key = up(world, failurePolicy={"serverRestarts": 9})
    for run in (1, 2, 3):
        end(world, 137, "")
        wait(world, 60)
        world.start_pods()
        world.settle()
        numbers = sorted(int(job["metadata"]["labels"][names.RUN_LABEL]) for job in world.jobs(SERVER))
        assert numbers == [run, run + 1]
    assert world.status(key)["server"]["run"] == 4


def test_a_certificate_is_told_of_to_the_second(world: Any) -> None:
    key = world.submit(**SLOW)
    plan = world.plan(key)
    (issue,) = plan.issue
    assert (issue.site, plan.again) == (None, 1.0)
    assert issue.dns_names[0].startswith("fj-digits-")
    world.up(key)
    assert message(world, key, "CertificatesReady") == "valid until 2030-01-08T00:00:00Z"
    wait(world, 7 * 86_400 * 0.55)
    assert world.plan(key).issue == ()
    assert 0 < ahead(world, key) < 7 * 86_400 * 0.25, "the renewal comes next"


@pytest.mark.parametrize("change", [{"identity": "spiffe://fedjob.local/job/other/server"}, {"not_after": None}])
def test_a_certificate_of_another_job_or_one_that_has_ended_is_none(world: Any, change: dict[str, Any]) -> None:
    key = up(world)
    uid = world.objects[(names.FEDERATED_JOB.name, "team-a", "digits")]["metadata"]["uid"]
    place = ("team-a", names.base("digits", uid))
    present = world.store.certificates[place]
    world.store.certificates[place] = replace(present, **{k: v or world.now for k, v in change.items()})
    assert len(world.plan(key).issue) == 1
    told = {c["type"]: c for c in world.plan(key).status["conditions"]}["CertificatesReady"]
    assert (told["status"], told["reason"]) == ("False", "Issuing")


def test_a_certificate_that_another_authority_signed_is_renewed_and_still_valid(world: Any) -> None:
    key = up(world)
    world.authority = pki.introduce(world.authority, world.now, timedelta(days=3650))
    assert len(world.plan(key).issue) == 1
    assert world.condition(key, "CertificatesReady") == ("True", "Issued")


def test_a_name_that_belongs_to_somebody_else_is_told(world: Any) -> None:
    key = world.submit()
    raw = {"metadata": {"name": "fj-digits", "namespace": "team-a", "uid": "theirs"}}
    world.store.stranger(key, names.SERVICE.name, raw)
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "NameConflict")
    assert message(world, key, "Accepted") == "Service fj-digits belongs to another owner"


def test_a_job_that_cannot_run_any_more_goes_on_and_says_why(world: Any) -> None:
    key = up(world)
    world.add_site("b", approved=False)
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "SiteNotApproved")
    assert len(world.live_servers()) == 1
    assert scripts(world) == 1, "without the site that it may not use any more"


def test_an_assignment_in_a_namespace_that_lets_nobody_in_is_not_touched(world: Any) -> None:
    world.add_site("c", namespace="far")
    world.allow_all("far")
    key = up(world, sites=[{"name": "a"}, {"name": "c"}])
    world.store.forbidden["far"] = "no"
    world.edit(key, sites=[{"name": "a"}])
    assert [target.namespace for target in world.plan(key).delete] == []
    world.store.forbidden.clear()
    assert [target.namespace for target in world.plan(key).delete] == ["far"]


def test_a_child_is_written_if_it_is_missing_or_was_made_from_something_else_or_was_changed() -> None:
    notes = {names.HASH_ANNOTATION: "d"}
    wanted = {"kind": "Service", "metadata": {"namespace": "n", "name": "x", "annotations": notes}}
    child = Child("Service", "n", "x", "u", "d", owned=True)
    assert differing([wanted], [child]) == []
    others = [replace(child, **change) for change in ({"kind": "Pod"}, {"namespace": "m"}, {"name": "y"}, {"digest": "e"}, {"drifted": True})]  # fmt: skip
    for other in others:
        assert differing([wanted], [other]) == [wanted]
    assert differing([wanted], []) == [wanted]


def test_a_job_that_waits_for_its_turn_says_how_many_may_run(world: Any) -> None:
    world.store.jobs_at_once = 1
    world.settings = replace(world.settings, jobs_at_once=1)
    for name, second in (("one", 1), ("two", 2)):
        key = world.submit(name)
        at = {"creationTimestamp": f"2030-01-01T00:00:0{second}Z"}
        world.put(names.FEDERATED_JOB, key.namespace, key.name, metadata=at)
    world.settle()
    said = "one job of a namespace runs at a time (jobsAtOnce of the hub), and older ones come first"
    assert (world.condition(key, "Admitted"), message(world, key, "Admitted")) == (("False", "WaitingForTurn"), said)


def test_a_job_of_before_the_verdict_is_left_alone_once_its_spec_cannot_be_read(world: Any) -> None:
    key = up(world)
    end(world)
    wait(world, 120)
    world.edit(key, startDeadlineSeconds=-1)
    assert world.plan(key) == NOTHING
    assert world.condition(key, "Complete")[0] == "True"


def test_a_job_of_the_server_that_is_leaving_is_not_deleted_twice(world: Any) -> None:
    key = up(world, cleanPodPolicy="All")
    end(world)
    seen = world.store.job(key)
    jobs = (BatchJob("x", "u", 1, finished="Complete", leaving=True), BatchJob("y", "v", 1, finished="Complete"))
    plan = desired_state(replace(seen, server_jobs=jobs), world.now, world.settings, world.trust)
    assert [target.name for target in plan.delete] == ["y"]


def test_a_file_of_the_users_machine_is_refused_with_what_is_allowed(world: Any) -> None:
    key = world.submit(model={"initial": {"path": "model.safetensors"}})
    world.settle()
    said = "spec.model.initial.path: a cluster does not see this file, allowed: object, or a model that a site offers"
    assert (world.condition(key, "Accepted"), message(world, key, "Accepted")) == (("False", "Unsupported"), said)


def test_a_stall_that_has_come_is_no_reason_to_look_again_at_once(world: Any) -> None:
    key = up(world, workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    wait(world, 400)
    assert world.condition(key, "Progressing") == ("False", "Stalled")
    assert ahead(world, key) > 1000.0


def test_what_becomes_of_the_sites_after_the_end_is_still_told(world: Any) -> None:
    key = up(world, failurePolicy={"refillOnRounds": 1})
    world.end_pod(world.script("a"), 1)
    world.next_run(timedelta(seconds=5))
    world.report(key, completed=2)
    end(world)
    assert world.status(key)["siteSummary"]["text"] == "2/2"
    wait(world, 60)
    told = {site["name"]: site for site in world.status(key)["sites"]}
    assert (told["a"]["state"], told["a"]["restarts"], told["a"]["forgiven"]) == ("Starting", 1, 1)
    assert world.status(key)["siteSummary"]["text"] == "0/2"
    assert world.condition(key, "Complete") == ("True", "RoundsCompleted")
