"""Status that says why: rules about deaths, memory, silence, and pods that the API server does not let be made."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.desired import job as hub
from fedjob_operator.desired import site_job as site
from fedjob_operator.names import CLIENT, SERVER
from fedjob_operator.observed import read_mount_failure, read_refusal
from fedjob_operator.settings import Settings

QUOTA = 'pods "fj-digits-0a1b-s1-x7k2p" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'


def message(world: Any, key: Any, kind: str) -> str:
    """The message of a job's condition."""
    return str(next(c for c in world.status(key)["conditions"] if c["type"] == kind)["message"])


def site_of(world: Any, key: Any, name: str) -> dict[str, Any]:
    """A site's entry in the job's status."""
    return dict(next(entry for entry in world.status(key)["sites"] if entry["name"] == name))


def rule(action: str, **fits: Any) -> dict[str, Any]:
    """A rule called r."""
    return {"name": "r", "action": action, **fits}


SETTINGS = Settings("fedjob-system", "fedjob-runtime:test", "test", hub_url="https://hub.test:8443")
BAD_DATA = {"onExitCodes": {"values": [42]}}


# -------------------------------------------------------------------------------------------------- last words


@pytest.mark.parametrize("told", ["Full", "ExitCode"])
def test_a_site_decides_whether_the_end_of_a_scripts_log_is_told(world: Any, told: str) -> None:
    secret = "KeyError: patient 4711"
    policy = world.objects[(names.SITE_POLICY.name, "team-a", "default")]["spec"]
    floor = {"exchange": {"lastWords": told}}
    world.put(names.SITE_POLICY, "team-a", "default", spec={**policy, "floor": floor})
    key = world.submit(failurePolicy={"siteRestarts": 1})
    world.up(key)
    for _ in range(2):
        world.end_pod(world.script("a"), 3, secret)
        world.next_run(timedelta(minutes=10))
    assert site_of(world, key, "a")["reason"] == "RestartBudgetExhausted"
    statuses = json.dumps([raw.get("status") for (kind, _, _), raw in world.objects.items() if kind != names.POD.name])
    assert (secret in statuses) == (told == "Full")
    assert "ended with exit code 3" in site_of(world, key, "a")["message"]


# ------------------------------------------------------------------------------------------------------- rules


def test_a_rule_ends_a_site_at_once_and_the_job_goes_on(world: Any) -> None:
    key = world.submit(failurePolicy={"siteRestarts": 3, "rules": [rule("FailSite", **BAD_DATA)]})
    world.up(key)
    world.end_pod(world.script("b"), 42, "no such column")
    world.settle()
    entry = site_of(world, key, "b")
    assert (entry["state"], entry["reason"], entry["restarts"]) == ("Failed", "SiteFailedByRule", 0)
    assert "rule r of failurePolicy: FailSite" in entry["message"]
    assert "no such column" in entry["message"]
    assert world.condition(key, "Degraded") == ("True", "SiteFailed")
    assert world.condition(key, "Failed")[0] == "False"


def test_a_rule_ends_the_whole_job_whoever_died(world: Any) -> None:
    for role, victim in (("Client", "a"), ("Server", "")):
        policy = {"onQuorumLost": "Wait", "rules": [rule("FailJob", role=role, **BAD_DATA)]}
        key = world.submit(f"job-{role.lower()}", failurePolicy=policy)
        world.up(key)
        pods = [
            p for p in world.pods(CLIENT if victim else SERVER) if p["metadata"]["labels"][names.JOB_LABEL] == key.name
        ]
        world.end_pod(pods[0], 42, "wrong cohort")
        world.settle()
        assert world.condition(key, "Failed") == ("True", "FailedByRule")
        assert "wrong cohort" in message(world, key, "Failed")


def test_what_a_rule_ignores_is_started_again_and_never_counted(world: Any) -> None:
    key = world.submit(failurePolicy={"siteRestarts": 0, "rules": [rule("Ignore", **BAD_DATA)]})
    world.up(key)
    for run in range(2, 6):
        world.end_pod(world.script("a"), 42)
        world.next_run(timedelta(seconds=40))
        assert site_of(world, key, "a")["restarts"] == 0
        assert max(int(job["metadata"]["labels"][names.RUN_LABEL]) for job in world.jobs(CLIENT)) == run


def test_a_script_that_always_ends_so_does_not_spin(world: Any) -> None:
    """Its runs come slower and slower, although none is counted."""
    key = world.submit(failurePolicy={"rules": [rule("Ignore", **BAD_DATA)]})
    world.up(key)
    world.always_end(400.0, 42)
    assert 10 < max(int(job["metadata"]["labels"][names.RUN_LABEL]) for job in world.jobs(CLIENT)) < 30


def test_an_eviction_counts_if_a_rule_says_so(world: Any) -> None:
    counted = rule("Restart", role="Server", onReasons=["Disrupted"])
    key = world.submit(failurePolicy={"serverRestarts": 0, "rules": [counted]})
    world.up(key)
    world.end_pod(world.pods(SERVER)[0], 137, disrupted=True)
    world.settle()
    assert world.condition(key, "Failed") == ("True", "RestartBudgetExhausted")


def test_only_the_rules_for_scripts_travel_to_the_sites(world: Any) -> None:
    mine, other = rule("FailSite", **BAD_DATA), {"name": "s", "role": "Server", "action": "FailJob", **BAD_DATA}
    world.submit(failurePolicy={"rules": [mine, other]})
    world.settle()
    assigned = [raw for (kind, _, _), raw in world.objects.items() if kind == names.SITE_JOB.name]
    assert [[r["name"] for r in raw["spec"]["restarts"]["rules"]] for raw in assigned] == [["r"], ["r"]]


# ------------------------------------------------------------------------------------------------------ memory


def kill_for_memory(world: Any, pod: Any) -> None:
    """The kernel kills the pod's process."""
    world.end_pod(pod, 137)
    raw = world.objects[(names.POD.name, "team-a", pod["metadata"]["name"])]
    status = json.loads(json.dumps(raw["status"]))
    status["containerStatuses"][0]["state"]["terminated"] = {"exitCode": 137, "reason": "OOMKilled"}
    world.put(names.POD, "team-a", pod["metadata"]["name"], status=status)


def test_a_script_that_used_too_much_memory_says_so_with_its_limit(world: Any) -> None:
    resources = {"limits": {"memory": "2Gi"}}
    key = world.submit(trainer={"files": {"train.py": ""}, "resources": resources}, failurePolicy={"siteRestarts": 0})
    world.up(key)
    kill_for_memory(world, world.script("a"))
    world.settle()
    said = site_of(world, key, "a")["message"]
    assert "killed for the memory that it used: its limit is 2Gi (spec.trainer.resources.limits.memory)" in said


def test_a_server_that_used_too_much_memory_waits_under_that_reason(world: Any) -> None:
    key = world.submit(failurePolicy={"serverRestarts": 5})
    world.up(key)
    kill_for_memory(world, world.pods(SERVER)[0])
    world.one_pass(key)
    assert world.condition(key, "ServerReady") == ("False", "OOMKilled")
    assert world.status(key)["state"] == "OOMKilled"
    assert "spec.server.resources.limits.memory is not set" in message(world, key, "ServerReady")


# ----------------------------------------------------------------------------------------------------- silence


def test_a_server_that_reports_no_round_for_longer_than_one_may_take_is_stalled(world: Any) -> None:
    key = world.submit(workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    world.up(key)
    world.now += timedelta(seconds=399)
    world.settle()
    assert world.condition(key, "Progressing") == ("True", "Training")
    plan = world.plan(key)
    world.now += timedelta(seconds=plan.again)
    world.settle()
    assert world.condition(key, "Progressing") == ("False", "Stalled")
    assert world.status(key)["state"] == "Stalled"
    assert "a round may take 100 s" in message(world, key, "Progressing")
    world.report(key, completed=1)
    world.settle()
    assert world.condition(key, "Progressing") == ("True", "Training")


def test_a_job_that_waits_for_its_quorum_is_not_stalled(world: Any) -> None:
    policy = {"onQuorumLost": "Wait", "quorumTimeoutSeconds": 1000}
    key = world.submit(workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100}, failurePolicy=policy)
    world.up(key)
    world.now += timedelta(seconds=1300)
    world.settle()
    assert world.condition(key, "Progressing") == ("True", "Training")


def test_a_server_whose_disk_is_full_says_so_instead_of_stalled_until_it_has_room(world: Any) -> None:
    key = world.submit(workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    world.up(key)
    full = {"type": "DiskFull", "reason": "NoSpace", "message": "/state: No space left on device"}
    world.report(key, conditions=[full])
    world.settle()
    assert world.condition(key, "Progressing") == ("False", "DiskFull")
    assert world.status(key)["state"] == "DiskFull"
    assert message(world, key, "Progressing") == full["message"]
    world.now += timedelta(seconds=1000)
    world.settle()
    assert world.condition(key, "Progressing") == ("False", "DiskFull")
    world.end_pod(world.pods(SERVER)[0], 137)
    world.one_pass(key)
    assert world.condition(key, "Progressing") == ("False", "Waiting"), "what a dead server said is over"
    world.now += timedelta(seconds=100)
    world.up(key)
    assert world.condition(key, "Progressing") == ("True", "Training")


def test_a_server_that_is_up_and_not_heard_of_is_left_to_its_own_clock_until_the_last_deadline(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=100, activeDeadlineSeconds=1000)
    for _ in range(2):
        world.settle()
        world.start_pods()
    world.settle()
    assert world.condition(key, "Progressing") == ("False", "Waiting")
    assert world.plan(key).again <= 60
    world.now += timedelta(seconds=60)
    world.settle()
    assert (world.condition(key, "Progressing"), world.status(key)["state"]) == (
        ("False", "NotReported"),
        "NotReported",
    )
    assert "the server reports to https://hub.test:8443" in message(world, key, "Progressing")
    world.now += timedelta(seconds=200)
    world.settle()
    assert world.condition(key, "Failed")[0] == "False"
    world.report(key, attempt=1)
    world.settle()
    assert world.condition(key, "Progressing") == ("True", "Training")
    other = world.submit("other", startDeadlineSeconds=100, activeDeadlineSeconds=1000)
    for _ in range(2):
        world.settle()
        world.start_pods()
    world.now += timedelta(seconds=1100)
    world.settle()
    assert world.condition(other, "Failed") == ("True", "DeadlineExceeded")


def test_a_server_that_reports_and_does_not_begin_misses_the_start_deadline(world: Any) -> None:
    key = world.submit(startDeadlineSeconds=100)
    for _ in range(2):
        world.settle()
        world.start_pods()
    world.report(key, state="Starting", attempt=1)
    world.now += timedelta(seconds=100)
    world.settle()
    assert world.condition(key, "Failed") == ("True", "StartDeadlineExceeded")


def test_the_clock_begins_again_with_a_server_that_was_started_again(world: Any) -> None:
    key = world.submit(workflow={"type": "FedAvg", "rounds": 3, "roundTimeoutSeconds": 100})
    world.up(key)
    world.now += timedelta(seconds=350)
    world.end_pod(world.pods(SERVER)[0], 137)
    world.next_run(timedelta(seconds=100))
    assert world.condition(key, "Progressing") == ("True", "Training")


# --------------------------------------------------------------------------------- pods that cannot be made


REFUSALS = [
    (f"Error creating: {QUOTA}", "QuotaExceeded", "exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2"),
    (f"(combined from similar events): Error creating: {QUOTA}", "QuotaExceeded", "exceeded quota: small"),
    ('Error creating: pods "a-b" is forbidden: violates PodSecurity "restricted:latest": x', "PodSecurity", "violates PodSec"),
    ('Error creating: admission webhook "scan.example" denied the request: no', "WebhookDenied", 'admission webhook "scan'),
    ('Error creating: pods "a-b" is forbidden: no PriorityClass with name low was found', "PodRefused", "no PriorityClass"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "reason", "shown"), REFUSALS)
def test_a_pod_that_the_api_server_refuses_is_a_reason_with_its_words(
    world: Any, said: str, reason: str, shown: str
) -> None:
    refused = read_refusal([{"message": said, "lastTimestamp": "2030-01-01T00:00:00Z"}])
    assert refused.startswith(shown)
    key = world.submit()
    world.settle()
    seen = world.store.job(key)
    jobs = tuple(replace(job, refused=refused) for job in seen.server_jobs)
    plan = hub.desired_state(replace(seen, server_jobs=jobs), world.now, SETTINGS, world.trust)
    ready = next(c for c in plan.status["conditions"] if c["type"] == "ServerReady")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert ready["message"].startswith(shown)
    assert plan.status["state"] == reason
    assert [event.reason for event in plan.events] == [reason]


def test_a_site_whose_pods_are_refused_says_so_and_the_job_names_it(world: Any) -> None:
    key = world.submit()
    world.settle()
    world.start_pods()
    world.settle()
    for one in world.store.all_keys():
        seen = world.store.site_job(one) if one.controller == "site" else None
        if seen is None:
            continue
        jobs = tuple(replace(job, refused="exceeded quota: small") for job in seen.jobs)
        plan = site.desired_state(replace(seen, jobs=jobs), world.now, SETTINGS, world.trust)
        world.put(names.SITE_JOB, one.namespace, one.name, status=plan.status)
    world.one_pass(key)
    assert site_of(world, key, "a")["reason"] == "QuotaExceeded"
    assert "a (QuotaExceeded: exceeded quota: small)" in message(world, key, "QuorumReached")


def test_the_newest_event_counts_and_none_is_no_refusal() -> None:
    old = {"message": "Error creating: old", "lastTimestamp": "2030-01-01T00:00:00Z"}
    new = {"message": "Error creating: new", "eventTime": "2030-01-01T00:00:09.000000Z", "lastTimestamp": None}
    assert read_refusal([old, new]) == read_refusal([new, old]) == "new"
    assert read_refusal([]) == ""


def test_a_refusal_is_news_once_to_the_passes_that_it_concerns(world: Any) -> None:
    key = world.submit()
    world.settle()
    store = world.store
    uid = world.jobs(SERVER)[0]["metadata"]["uid"]
    assert store.has_unborn
    assert store.refusals({uid: "exceeded quota: a"}) == (key,)
    assert store.refusals({uid: "exceeded quota: a"}) == ()
    assert [job.refused for job in store.job(key).server_jobs] == ["exceeded quota: a"]
    assert store.refusals({}) == (key,)
    assert [job.refused for job in store.job(key).server_jobs] == [""]


# ------------------------------------------------------------------------------- pods whose volumes are not there


def mount_event(at: str, words: str) -> dict[str, str]:
    return {"message": words, "lastTimestamp": f"2030-01-01T00:00:{at}Z"}


def test_the_words_about_a_volume_are_the_newest_that_tell_more_than_that_time_has_passed() -> None:
    first = mount_event("01", 'MountVolume.SetUp failed for volume "ca-bundle" : configmap "company" not found')
    second = mount_event(
        "05", 'MountVolume.SetUp failed for volume "ca-bundle" : references non-existent config key: ca.crt'
    )
    late = mount_event(
        "09", "Unable to attach or mount volumes: unmounted volumes=[ca-bundle]: context deadline exceeded"
    )
    assert read_mount_failure([second, late, first]) == second["message"]
    assert read_mount_failure([late]) == late["message"]
    assert read_mount_failure([]) == ""


def test_a_pod_whose_volume_cannot_be_mounted_says_why_until_it_runs(world: Any) -> None:
    key = world.submit()
    world.settle()
    waits = {"phase": "Pending", "conditions": [{"type": "PodReadyToStartContainers", "status": "False"}]}
    world.add_pod(world.jobs(SERVER)[0], waits)
    metadata = world.pods(SERVER)[0]["metadata"]
    uid, words = metadata["uid"], 'MountVolume.SetUp failed for volume "ca-bundle" : configmap "company" not found'
    assert world.store.mounting == {uid}
    assert world.store.refusals({uid: words}) == (key,)
    assert world.store.refusals({uid: words}) == ()
    world.one_pass(key)
    assert world.condition(key, "ServerReady") == ("False", "MountFailed")
    assert message(world, key, "ServerReady") == f"pod {metadata['name']}: {words}"
    runs = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    world.put(names.POD, metadata["namespace"], metadata["name"], status=runs)
    assert world.store.mounting == frozenset()
    world.one_pass(key)
    assert world.condition(key, "ServerReady") == ("True", "Ready")


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({}, {"active": 1}),
        ({}, {"failed": 1}),
        ({"suspend": True}, {}),
        ({}, {"conditions": [{"type": "Failed", "status": "True"}]}),
    ],
)
def test_only_a_job_that_should_have_a_pod_and_has_none_is_asked_about(
    world: Any, spec: dict[str, Any], status: dict[str, Any]
) -> None:
    key = world.submit()
    world.settle()
    name = world.jobs(SERVER)[0]["metadata"]["name"]
    world.put(names.JOB, key.namespace, name, spec=spec, status=status)
    assert not world.store.has_unborn
    world.put(names.JOB, key.namespace, name, spec={}, status={})
    assert world.store.has_unborn
    world.remove((names.JOB.name, key.namespace, name))
    assert not world.store.has_unborn
