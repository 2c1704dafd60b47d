"""What should be true of a FederatedJob.  PURE: `desired_state` is a function of its arguments.

    ended? ──► clean up, wait for the TTL
      │
    spec wrong, sites missing? ──► say so, keep what is there
      │
    suspend? ──► let the round end, then no pods
      │
    server: which run ──► sites: assignments ──► verdict? ──► conditions

A verdict is final: whatever happens to the children afterwards, a job that has ended is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fedjob.api import FederatedJob, JobFileError, validate

from .. import names
from ..build import server as build
from ..build import site_job as build_site
from ..names import FEDERATED_JOB, SITE_JOB
from ..observed import Child, Observed, Raw, SiteJob, moment
from ..plan import NOTHING, Create, Delete, Issue, Manifest, Plan
from ..settings import Settings
from ..trust import Trust
from . import certificate, server_bounds, sites
from .conditions import FALSE, TRUE, State
from .memory import Memory, ended, remember, resumed, suspended
from .server import Verdict, step
from .sites import SiteView
from .status import Facts, compose

_BOUNDARY_SLACK_SECONDS = 60.0
_UNHEARD = timedelta(minutes=1)
_STALLED_SLACK_SECONDS = 300.0  # to sum the updates up, to save the state, to report


@dataclass(frozen=True)
class Case:
    """One FederatedJob at one moment: what all steps of the decision look at."""

    seen: Observed
    job: FederatedJob
    now: datetime
    settings: Settings
    trust: Trust

    @property
    def uid(self) -> str:
        """The job's UID."""
        return str(self.seen.job["metadata"]["uid"])

    @property
    def progress(self) -> Raw:
        """What the server last reported; empty before its first report."""
        return (self.seen.job.get("status") or {}).get("progress") or {}

    @property
    def completed_rounds(self) -> int:
        """Rounds that are behind the job."""
        return int(self.progress.get("completedRounds") or 0)

    def of(self, memory: Memory) -> build.Of:
        """The job as the builders see it, with the image that it began with."""
        image = (self.seen.job.get("status") or {}).get("runtimeImage") or self.settings.runtime_image
        settings = replace(self.settings, runtime_image=image)
        return build.Of(self.job, self.uid, memory.attempt, settings, memory.storage_class)


def desired_state(seen: Observed, now: datetime, settings: Settings, trust: Trust) -> Plan:
    """What is to be done for this job, now."""
    metadata = seen.job["metadata"]
    if "deletionTimestamp" in metadata:
        return NOTHING  # its children are the garbage collector's
    try:
        job = read(seen.job)
    except JobFileError as e:
        memory = remember(seen.job, None)
        wrong = State(FALSE, "Invalid", str(e))
        return compose(Facts(seen, memory, wrong, now)) if memory.verdict is None else NOTHING
    case = Case(seen, job, now, settings, trust)
    memory = remember(seen.job, job.spec)
    if memory.verdict is not None:
        return _after_the_end(case, memory)
    problem = _objection(case)
    if memory.server.run == 0 and (problem := problem or sites.out_of_reach(job.spec, seen)) is not None:
        return compose(Facts(seen, memory, problem, now, job=job))
    accepted = problem or State(
        TRUE, "Accepted"
    )  # a job under way goes on, without the sites that it may no longer use
    if job.spec.suspend:
        return _suspend(case, suspended(memory, now), accepted)
    if turn := _turn(case, memory):
        return compose(Facts(seen, memory, accepted, now, job=job, admitted=turn))
    present = seen.run(memory.server.run)
    active = present is not None and not present.finished and not present.leaving
    return _run(case, resumed(memory, now, active=active), accepted)


def read(raw: Raw) -> FederatedJob:
    """The job in a resource as the API server has it. Raises JobFileError."""
    metadata = {key: raw["metadata"][key] for key in ("name", "namespace")}
    return validate(
        {**{key: raw.get(key) for key in ("apiVersion", "kind", "spec")}, "metadata": metadata}, metadata["name"]
    )


def _objection(case: Case) -> State | None:
    """Why the job cannot run as it is."""
    initial = case.job.spec.model.initial
    if initial is not None and initial.path is not None:
        why = (
            "spec.model.initial.path: a cluster does not see this file, allowed: object, or a model that a site offers"
        )
        return State(FALSE, "Unsupported", why)
    exposure = case.job.spec.server.exposure
    if exposure.type != "ClusterIP":
        why = f"spec.server.exposure.type: got {exposure.type}, allowed: ClusterIP, as every site is in this cluster"
        return State(FALSE, "Unsupported", why)
    if foreign := [child for child in case.seen.children if not child.owned]:
        return State(FALSE, "NameConflict", f"{foreign[0].kind} {foreign[0].name} belongs to another owner")
    return sites.admission(case.job.spec, case.job.metadata.namespace, case.seen.sites)


def _refused(case: Case, memory: Memory) -> State | None:
    """Why no server may start as the job asks for it; one that runs, runs on, as its spec was judged when it began."""
    run = case.seen.run(memory.server.run)
    if run is not None and not run.finished and not run.leaving:
        return None
    settings = case.of(memory).settings
    against = "; ".join(server_bounds.objections(case.job.spec, settings.bounds, settings.runtime_image))
    return State(FALSE, "ServerNotAllowed", against) if against else None


def _turn(case: Case, memory: Memory) -> State | None:
    """Why the job does not get pods yet; None for one that has begun, and was not paused since: it is never sent back."""
    limit, begun = case.settings.jobs_at_once, memory.server.run > 0 and memory.suspended_since is None
    if not limit or begun or case.seen.ahead < limit:
        return None
    which = "one job of a namespace runs" if limit == 1 else f"{limit} jobs of a namespace run"
    return State(FALSE, "WaitingForTurn", f"{which} at a time (jobsAtOnce of the hub), and older ones come first")


# ----------------------------------------------------------------------------------------------------- running


def _run(case: Case, memory: Memory, accepted: State) -> Plan:
    server = step(memory.server, case.seen, case.job.spec, case.completed_rounds, case.now)
    if server.verdict is None and (refused := _refused(case, memory)) is not None:
        return compose(Facts(case.seen, memory, refused, case.now, job=case.job))
    if memory.started_at is None:
        wanted_class = case.job.spec.server.storage.storage_class_name or case.settings.storage_class
        memory = replace(memory, started_at=case.now, storage_class=wanted_class)
    memory = replace(memory, image=memory.image or case.settings.runtime_image)
    if memory.running_at is None and case.progress.get("state") == "Running":
        memory = replace(memory, running_at=case.now)
    issue, certified = _certificate(case, memory)
    first = memory.server.run == 0
    memory = replace(memory, server=server.server, released=memory.released or server.ready.status == TRUE)
    views, of = sites.views(case.job.spec, case.seen, case.completed_rounds), case.of(memory)
    assigned = _assignments(case, of, views, suspend=lambda _: not memory.released)
    views = sites.unjudged(views, {m["spec"]["site"] for m in differing(assigned, case.seen.children)})
    verdict = server.verdict or _hopeless(case, views) or _late(case, memory, server.ready)
    if verdict is not None:
        return _finish(case, ended(memory, verdict, case.now))
    silent = _stalled_seconds(case, memory) if server.ready.status == TRUE else None
    unheard = _unheard(case, memory, server.ready)
    facts = Facts(
        case.seen, memory, accepted, case.now,
        job=case.job, certified=certified, server=server.ready, views=views,
        stalled=_silence(case, memory, server.ready) or _stalled(case, silent),
    )  # fmt: skip
    wanted = [*build.surroundings(of), *assigned]
    create = (_run_of(of, memory.server.run, first=first),) if server.start else ()
    again = _soonest(1.0 if issue else _renewal(case), server.again, *_deadlines(case, memory),
                     -silent if silent is not None and silent < 0 else None,
                     _UNHEARD.total_seconds() if unheard else None)  # fmt: skip
    return _plan(case, facts, wanted, issue, create, _old_runs(case, memory), again)


def _run_of(of: build.Of, number: int, *, first: bool) -> Create:
    made = build.job(of, number)
    return made.the_first() if first else made


def _certificate(case: Case, memory: Memory) -> tuple[tuple[Issue, ...], State]:
    of, present = case.of(memory), case.seen.certificate
    issue = build.certificate(of)
    identity = names.spiffe(case.settings.trust_domain, case.uid, None)
    wanted = certificate.Wanted(_key(issue.manifest), identity, issue.dns_names, case.trust.issuer, case.trust.digest)
    why = certificate.violation(wanted, present, case.now)
    if present is None or present.identity != identity or case.now >= present.not_after:
        return (issue,), State(FALSE, "Issuing", why)
    valid = State(TRUE, "Issued", f"valid until {present.not_after:%Y-%m-%dT%H:%M:%SZ}")  # also while it is renewed
    return ((issue,) if why else ()), valid


def _key(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def _renewal(case: Case) -> float | None:
    present = case.seen.certificate
    key = _key(build.certificate(case.of(Memory())).manifest)
    return certificate.seconds_left(present, key, case.now) if present else None


def _assignments(
    case: Case, of: build.Of, views: Iterable[SiteView], *, suspend: Callable[[SiteView], bool]
) -> list[Manifest]:
    """The SiteJobs of the sites that the job may use. suspend: of which no pod may run."""
    here = case.job.metadata.namespace
    places = {name: site.place(here) for name, site in case.seen.sites.items() if sites.open_to(site, here)}
    return [
        build_site.site_job(of, view.name, places[view.name], case.trust, forgiven=view.forgiven, suspend=suspend(view))
        for view in views
        if view.name in places and places[view.name] not in case.seen.forbidden
    ]


def _hopeless(case: Case, views: Sequence[SiteView]) -> Verdict | None:
    if by_rule := sites.ended_by_rule(views):
        return by_rule
    if case.job.spec.failure_policy.on_quorum_lost == "Wait":
        return None
    return sites.hopeless(case.job.spec, views)


def _late(case: Case, memory: Memory, ready: State) -> Verdict | None:
    """The stages' deadlines, by the operator's clock: they catch what the server, which counts for itself, cannot.

    A server that is ready and not heard of may be at work, and ends by itself if it does not begin in time.
    """
    spec, elapsed = case.job.spec, memory.active_seconds(case.now)
    if memory.running_at is None and elapsed >= spec.start_deadline_seconds and not _unheard(case, memory, ready):
        why = f"not running after {spec.start_deadline_seconds} s (spec.startDeadlineSeconds)"
        return Verdict(False, "StartDeadlineExceeded", f"{why}; the server: {ready.reason} {ready.message}".rstrip())
    limit = spec.start_deadline_seconds + spec.active_deadline_seconds
    if elapsed >= limit:
        why = f"not finished {limit} s after its start (spec.startDeadlineSeconds + spec.activeDeadlineSeconds)"
        return Verdict(False, "DeadlineExceeded", why)
    return None


def _unheard(case: Case, memory: Memory, ready: State) -> bool:
    """Whether the server is up, and no report of this attempt has come."""
    told = case.progress
    return ready.status == TRUE and (not told or int(told.get("attempt") or memory.attempt) != memory.attempt)


def _silence(case: Case, memory: Memory, ready: State) -> State | None:
    """That no report comes, once one should have; rounds may be completed all the same."""
    since = _ready_since(case)
    if not _unheard(case, memory, ready) or since is None or case.now - since < _UNHEARD:
        return None
    where = case.settings.hub_url
    how = (
        f"the server reports to {where}: see its log, and the network between them"
        if where
        else "the hub has no --hub-url"
    )
    return State(FALSE, "NotReported", f"the server is ready, and no report of it has come; {how}")


def _ready_since(case: Case) -> datetime | None:
    known = (case.seen.job.get("status") or {}).get("conditions") or ()
    ready = (c["lastTransitionTime"] for c in known if c["type"] == "ServerReady" and c["status"] == TRUE)
    return moment(next(ready, None))


def _deadlines(case: Case, memory: Memory) -> list[float | None]:
    spec, elapsed = case.job.spec, memory.active_seconds(case.now)
    start = spec.start_deadline_seconds - elapsed if memory.running_at is None else 0.0
    return [start if start > 0 else None, spec.start_deadline_seconds + spec.active_deadline_seconds - elapsed]


def _round_seconds(case: Case) -> float:
    """How long a round may take."""
    spec = case.job.spec
    waits = spec.failure_policy.on_quorum_lost == "Wait"
    return spec.workflow.round_timeout_seconds + (spec.failure_policy.quorum_timeout_seconds if waits else 0)


def _stalled_seconds(case: Case, memory: Memory) -> float | None:
    """Seconds since a round should have been reported at the latest, negative before; None if none is to be expected.

    Counted from what came last: the round before, the first report, or the server's readiness after a restart or a pause.
    """
    if case.progress.get("state") != "Running":
        return None
    times = [memory.running_at, moment(case.progress.get("lastRoundTime")), _ready_since(case)]
    last = max((time for time in times if time is not None), default=case.now)
    return (case.now - last) / timedelta(seconds=1) - _round_seconds(case) - _STALLED_SLACK_SECONDS


def _stalled(case: Case, silent: float | None) -> State | None:
    if silent is None or silent < 0:
        return None
    seconds = round(_round_seconds(case))
    rounds = f"{case.completed_rounds} of {case.job.spec.workflow.rounds} rounds"
    return State(FALSE, "Stalled", f"{rounds} reported, and none since; a round may take {seconds} s")


def _old_runs(case: Case, memory: Memory) -> list[Delete]:
    """Jobs of runs before the last one: their pods have ended, their words are in status."""
    keep = {memory.server.run, memory.server.run - 1}
    return [_gone(case, job.name, job.uid) for job in case.seen.server_jobs if job.run not in keep and not job.leaving]


# ------------------------------------------------------------------------------------------------ pausing, ending


def _suspend(case: Case, memory: Memory, accepted: State) -> Plan:
    views = sites.views(case.job.spec, case.seen, case.completed_rounds)
    active = [job for job in case.seen.server_jobs if not job.finished and not job.leaving]
    ready = any(pod.ready and pod.run == memory.server.run for pod in case.seen.pods)  # else nobody hears of the pause
    left = _boundary_seconds(case, memory) if active and ready else 0.0
    of = case.of(memory)
    wanted = _assignments(case, of, views, suspend=lambda _: left <= 0) if case.seen.site_jobs else []
    if any(child.kind == names.VOLUME_CLAIM.name for child in case.seen.children):
        wanted.append(build.volume_claim(of))  # it may grow meanwhile
    # While the server runs: a round may last longer than its certificate.
    issue, certified = _certificate(case, memory) if left > 0 else ((), None)
    reason = "Suspending" if left > 0 else "Suspended"
    facts = Facts(
        case.seen, memory, accepted, case.now, job=case.job, views=views, certified=certified,
        admitted=State(FALSE, reason, "spec.suspend is true"),
        server=State(TRUE, "Ready") if left > 0 else State(FALSE, "NotStarted"),
    )  # fmt: skip
    delete = [] if left > 0 else [_gone(case, job.name, job.uid) for job in active]
    again = _soonest(left, 1.0 if issue else _renewal(case)) if left > 0 else None
    return _plan(case, facts, wanted, issue, (), delete, again)


def _boundary_seconds(case: Case, memory: Memory) -> float:
    """How long the running round may still take: the server stops by itself once it hears that it should."""
    assert memory.suspended_since is not None
    if case.progress.get("state") != "Running":
        return 0.0
    patience = _round_seconds(case) + _BOUNDARY_SLACK_SECONDS
    return max(patience - (case.now - memory.suspended_since) / timedelta(seconds=1), 0.0)


def _finish(case: Case, memory: Memory) -> Plan:
    """The pass that finds the verdict writes it down; what follows from it is the next pass's."""
    views = sites.views(case.job.spec, case.seen, case.completed_rounds)
    facts = Facts(case.seen, memory, State(TRUE, "Accepted"), case.now, job=case.job, views=views)
    return replace(compose(facts), again=0.0)


def _after_the_end(case: Case, memory: Memory) -> Plan:
    spec, ended_at = case.job.spec, memory.ended_at or case.now
    passed = (case.now - ended_at) / timedelta(seconds=1)
    ttl = spec.ttl_seconds_after_finished
    if ttl is not None and passed >= ttl:
        metadata = case.job.metadata
        return Plan(delete=(Delete(FEDERATED_JOB.name, metadata.namespace, metadata.name, case.uid),))
    delete: list[Delete] = []
    views = sites.views(spec, case.seen, case.completed_rounds)
    wanted: list[Manifest] = []
    grace = case.settings.finish_grace_seconds if memory.verdict and memory.verdict.complete else 0.0
    over = passed >= grace
    if spec.clean_pod_policy != "None":
        everything = spec.clean_pod_policy == "All"
        delete += [
            _gone(case, job.name, job.uid)
            for job in case.seen.server_jobs
            if not job.leaving and (everything or not job.finished)
        ]
    if over and spec.clean_pod_policy == "All":
        delete += [_site_gone(s.namespace, s.name, s.uid) for s in _within_reach(case)]
    elif over and case.seen.site_jobs:
        stays = {"Running"} if spec.clean_pod_policy == "None" else set()  # what runs may run on; nothing starts again
        wanted = _assignments(case, case.of(memory), views, suspend=lambda view: view.state not in stays)
    facts = Facts(case.seen, memory, State(TRUE, "Accepted"), case.now, job=case.job, views=views)
    again = _soonest(None if over else grace - passed, None if ttl is None else ttl - passed)
    return _plan(case, facts, wanted, (), (), delete, again, strays=bool(over and spec.clean_pod_policy != "All"))


# ------------------------------------------------------------------------------------------------------ the plan


def _plan(
    case: Case,
    facts: Facts,
    wanted: Sequence[Manifest],
    issue: tuple[Issue, ...],
    create: tuple[Create, ...],
    delete: Sequence[Delete],
    again: float | None,
    *,
    strays: bool = True,
) -> Plan:
    """Only what differs: a pass over a job that is as it should be plans no write at all."""
    told = compose(facts)
    assigned = {(m["metadata"]["namespace"], m["metadata"]["name"]) for m in wanted if m["kind"] == SITE_JOB.name}
    if strays:
        delete = [
            *delete,
            *(
                _site_gone(s.namespace, s.name, s.uid)
                for s in _within_reach(case)
                if (s.namespace, s.name) not in assigned
            ),
        ]
    return replace(
        told,
        issue=issue,
        apply=tuple(differing(wanted, case.seen.children)),
        create=create,
        delete=tuple(delete),
        again=again,
    )


def _within_reach(case: Case) -> list[SiteJob]:
    """Assignments in namespaces that let us in."""
    return [found for found in case.seen.site_jobs if found.namespace not in case.seen.forbidden]


def differing(wanted: Iterable[Manifest], children: Iterable[Child]) -> list[Manifest]:
    """Those of the wanted objects that are missing, made from something else, or changed by someone else."""
    there = {(child.kind, child.namespace, child.name): child for child in children}
    found = []
    for manifest in wanted:
        metadata = manifest["metadata"]
        child = there.get((manifest["kind"], metadata["namespace"], metadata["name"]))
        if child is None or child.drifted or child.digest != metadata["annotations"][names.HASH_ANNOTATION]:
            found.append(manifest)
    return found


def _soonest(*seconds: float | None) -> float | None:
    given = [max(value, 0.1) for value in seconds if value is not None]
    return min(given) if given else None


def _gone(case: Case, name: str, uid: str) -> Delete:
    return Delete(names.JOB.name, case.job.metadata.namespace, name, uid)


def _site_gone(namespace: str, name: str, uid: str) -> Delete:
    return Delete(SITE_JOB.name, namespace, name, uid)
