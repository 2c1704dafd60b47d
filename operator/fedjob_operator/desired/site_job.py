"""What should be true of a SiteJob: the site's side of an assignment.  PURE

    the policy's word ──► no: no pods, and why
          │ yes
    suspend? ──► no pods
          │
    which run of the script ──► conditions, restarts

The site's restarts are counted here for ever; the hub says how many of them it has forgiven, because only the hub knows that
rounds went by. So a site goes on restarting its script while the hub is away, until its budget is used up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from fedjob.api import FailureRule

from .. import names
from ..build import client as build
from ..observed import BatchJob, ObservedSite, Raw, condition, stamp
from ..plan import NOTHING, Create, Delete, Issue, Plan
from ..settings import Settings
from ..trust import Trust
from . import certificate
from .conditions import FALSE, TRUE, State, settle, transitions
from .job import differing
from .policy import authorities, judge, pods, scrape_from, words_stay
from .runs import blocked, death, limit_text, living, pause_seconds

_BAD_WHEN_TRUE = frozenset({"Finished"})
_QUIET = frozenset({"Accepted", "NotStarted", "NotFinished", "Pending", "Suspended", "Finished", "Succeeded"})
_KEYS = ("observedGeneration", "attempt", "run", "restarts", "lastTermination", "certificateNotAfter", "conditions")
_UNFINISHED = State(FALSE, "NotFinished")
_FOREIGN = State(
    FALSE, "NotAssigned", "spec.job, spec.site: no such job of the hub places this site here; it gets no certificate"
)
_FOREIGN_SECONDS = 5.0  # the job may be heard of later than its assignment


@dataclass(frozen=True)
class Script:
    """The script as status remembers it: run of its present Job, attempt of the job that this run belongs to."""

    attempt: int = 0
    run: int = 0
    restarts: int = 0
    last: str = ""


@dataclass(frozen=True)
class Step:
    """script: from now on. start: its Job is to be made now. finished: it will not run again."""

    script: Script
    running: State
    finished: State = _UNFINISHED
    start: bool = False
    again: float | None = None


def desired_state(seen: ObservedSite, now: datetime, settings: Settings, trust: Trust) -> Plan:
    """What is to be done for this SiteJob, now."""
    raw = seen.site_job
    if "deletionTimestamp" in raw["metadata"]:
        return NOTHING
    spec, script = raw["spec"], _remember(raw)
    accepted, data = judge(seen.policy, raw, now)
    policy = seen.policy
    at = build.At(raw, settings, data, authorities(policy), pods(policy), scrape_from(policy))
    if accepted.status != TRUE or spec.get("suspend"):
        return _without_pods(seen, script, accepted, now)
    if condition(raw, "Finished")[0] == TRUE and script.attempt == spec["job"]["attempt"]:
        return NOTHING
    issue, renewal = _certificate(at, seen, now, trust)
    if issue and not seen.assigned:
        return replace(_told(seen, Step(script, State(FALSE, "NotStarted")), _FOREIGN, now), again=_FOREIGN_SECONDS)
    found = step(script, _speechless(seen) if words_stay(policy) else seen, spec, now)
    told = _told(seen, found, accepted, now)
    create = (_run_of(at, found.script.run, first=script.run == 0),) if found.start else ()
    soon = [s for s in (1.0 if issue else renewal, found.again) if s is not None]
    return replace(
        told,
        issue=issue,
        apply=tuple(differing(build.surroundings(at), seen.children)),
        create=create,
        delete=tuple(_old_runs(seen, found.script, spec["job"]["attempt"])),
        again=min(soon, default=None),
    )


def _speechless(seen: ObservedSite) -> ObservedSite:
    """Without the last words of scripts: what the cluster says of their pods stays, and the exit codes."""
    return replace(seen, pods=tuple(replace(p, words="") if p.exit_code is not None else p for p in seen.pods))


def _run_of(at: build.At, number: int, *, first: bool) -> Create:
    made = build.job(at, number)
    return made.the_first() if first else made


def step(script: Script, seen: ObservedSite, spec: Raw, now: datetime) -> Step:
    """What becomes of the script of a SiteJob that should run."""
    stands = blocked(seen.pods)
    attempt = spec["job"]["attempt"]
    if script.attempt != attempt:  # the hub has begun anew: a run of its own, once the old one is gone
        if stands:
            return Step(script, stands, again=5.0)
        return Step(replace(script, attempt=attempt, run=script.run + 1), State(FALSE, "NotStarted"), start=True)
    job = next((job for job in seen.jobs if job.run == script.run), None)
    if job is None or job.leaving:
        running = stands or State(FALSE, "NotStarted")
        if seen.trouble:
            running = State(FALSE, "Forbidden", seen.trouble)
        return Step(script, running, start=job is None and stands is None, again=5.0)
    if job.finished == "":
        return Step(script, _running(job, seen, script.run))
    if job.finished == "Complete":
        return Step(script, State(FALSE, "Finished"), State(TRUE, "Succeeded"))
    return _after_death(script, job, seen, spec, now)


def _after_death(script: Script, job: BatchJob, seen: ObservedSite, spec: Raw, now: datetime) -> Step:
    pods, budget = [pod for pod in seen.pods if pod.run == script.run], spec["restarts"]
    rules = [FailureRule.model_validate(rule) for rule in budget.get("rules") or ()]
    limits = (spec["trainer"].get("resources") or {}).get("limits")
    end = death(job, pods, "Client", rules, limit_text(limits, "spec.trainer.resources"))
    used, over = script.restarts - budget["forgiven"], State(FALSE, "Finished")
    if end.action in ("FailSite", "FailJob"):
        reason = "SiteFailedByRule" if end.action == "FailSite" else "JobFailedByRule"
        return Step(script, over, State(TRUE, reason, end.words))
    counts = end.action == "Restart"
    if counts and used >= budget["allowed"]:
        why = f"{budget['allowed']} restarts used up without a completed round; {end.words}"
        return Step(script, over, State(TRUE, "RestartBudgetExhausted", why))
    if stands := blocked(seen.pods):
        return Step(script, stands, again=15.0)
    left = pause_seconds(end, job, used + 1, now)
    if left > 0:
        return Step(script, State(FALSE, end.reason, end.words), again=left)
    script = replace(script, run=script.run + 1, restarts=script.restarts + counts, last=end.words)
    return Step(script, State(FALSE, end.reason, end.words), start=True)


def _running(job: BatchJob, seen: ObservedSite, run: int) -> State:
    if job.suspended:
        return State(FALSE, "WaitingForQueue", "the queue has not admitted the script's Job yet")
    return living(job, [pod for pod in seen.pods if pod.run == run], State(TRUE, "Running"))


def _without_pods(seen: ObservedSite, script: Script, accepted: State, now: datetime) -> Plan:
    running = State(FALSE, "Suspended") if accepted.status == TRUE else State(FALSE, "NotStarted")
    status, reason, message = condition(seen.site_job, "Finished")
    finished = State(TRUE, reason, message) if status == TRUE else _UNFINISHED
    told = _told(seen, Step(script, running, finished), accepted, now)
    return replace(told, delete=tuple(_delete(seen, job) for job in seen.jobs if not job.finished and not job.leaving))


def _certificate(
    at: build.At, seen: ObservedSite, now: datetime, trust: Trust
) -> tuple[tuple[Issue, ...], float | None]:
    issue = build.certificate(at)
    key = f"{at.owner.namespace}/{at.name}"
    identity = names.spiffe(at.spec["trustDomain"], issue.job_uid, issue.site)
    wanted = certificate.Wanted(key, identity, (), trust.issuer, trust.digest)
    if certificate.violation(wanted, seen.certificate, now) or seen.certificate is None:
        return (issue,), None
    return (), certificate.seconds_left(seen.certificate, key, now)


def _old_runs(seen: ObservedSite, script: Script, attempt: int) -> list[Delete]:
    """Jobs that should not be: of long ago, or still active though their run or their whole attempt is over."""
    over = {job.run for job in seen.jobs if not job.finished and (job.run != script.run or script.attempt != attempt)}
    old = [job for job in seen.jobs if job.run in over or job.run not in (script.run, script.run - 1)]
    return [_delete(seen, job) for job in old if not job.leaving]


def _delete(seen: ObservedSite, job: BatchJob) -> Delete:
    return Delete(names.JOB.name, seen.site_job["metadata"]["namespace"], job.name, job.uid)


def _remember(raw: Raw) -> Script:
    status: Raw = raw.get("status") or {}
    return Script(
        attempt=int(status.get("attempt") or 0),
        run=int(status.get("run") or 0),
        restarts=int(status.get("restarts") or 0),
        last=str(status.get("lastTermination") or ""),
    )


def _told(seen: ObservedSite, found: Step, accepted: State, now: datetime) -> Plan:
    """The status, if it differs from what is there, and what has changed."""
    raw, script = seen.site_job, found.script
    before: Raw = raw.get("status") or {}
    states = {"Accepted": accepted, "Running": found.running, "Finished": found.finished}
    known = before.get("conditions") or ()
    conditions = settle(known, states, raw["metadata"]["generation"], now)
    status = {
        "observedGeneration": raw["metadata"]["generation"],
        "attempt": script.attempt,
        "run": script.run,
        "restarts": script.restarts,
        "lastTermination": script.last,
        "certificateNotAfter": stamp(seen.certificate.not_after)
        if seen.certificate
        else before.get("certificateNotAfter"),
        "conditions": conditions,
    }
    status = {key: value for key, value in status.items() if value is not None}
    if all(status.get(key) == before.get(key) for key in _KEYS):
        return NOTHING
    return Plan(status=status, events=transitions(known, conditions, _BAD_WHEN_TRUE, _QUIET))
