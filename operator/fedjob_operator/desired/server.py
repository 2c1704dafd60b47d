"""The server of a job: which run of it should be alive.  PURE

Each start of the server is a Job of its own, numbered by `run`. Run n + 1 begins only when no pod of an earlier run can be
alive: the state on its volume has one writer. A run that was ended from outside (eviction, preemption, a lost node, a deletion)
does not count; one that died counts, and the count begins again after `refillOnRounds` newly completed rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from fedjob.api import JobSpec
from fedjob.api.reasons import FAILURES, SUCCESSES
from fedjob.restarts import Budget, spend

from ..observed import BatchJob, Observed, Pod
from .conditions import FALSE, TRUE, State
from .runs import blocked, death, limit_text, living, pause_seconds

_FAILED, _UNUSABLE = 1, 2  # exit codes of the server process
_NO_BUDGET = Budget(allowed=0, refill_rounds=1)
_NO_POD = State(FALSE, "NotStarted")


@dataclass(frozen=True)
class Verdict:
    """How a job ended. reason: of the condition Complete or Failed."""

    complete: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Server:
    """The server as status remembers it. run: number of the present Job, 0 before the first. last: how the one before ended."""

    run: int = 0
    restarts: int = 0
    budget: Budget = _NO_BUDGET
    last: str = ""


NEVER_STARTED = Server()


@dataclass(frozen=True)
class Step:
    """server: from now on. start: its Job is to be made now. again: seconds until the next look."""

    server: Server
    ready: State
    start: bool = False
    again: float | None = None
    verdict: Verdict | None = None


def step(server: Server, seen: Observed, spec: JobSpec, completed_rounds: int, now: datetime) -> Step:
    """What becomes of the server of a job that should run."""
    if server.run == 0:
        return _first(server, seen)
    job = seen.run(server.run)
    pods = [pod for pod in seen.pods if pod.run == server.run]
    if job is None or job.leaving:  # not made yet, or somebody deleted it: the same run once more, alone
        stands = blocked(seen.pods)
        return Step(server, stands or _NO_POD, start=job is None and stands is None, again=5.0)
    if job.finished == "":
        return Step(server, living(job, pods, State(TRUE, "Ready")))
    verdict = _verdict(job, _last(pods))
    if verdict is not None:
        return Step(server, State(FALSE, "Finished"), verdict=verdict)
    return _after_death(server, job, seen, spec, completed_rounds, now)


def next_run(server: Server) -> Server:
    """The server's next run, at nobody's expense: after a suspension."""
    return replace(server, run=server.run + 1) if server.run else server


def _first(server: Server, seen: Observed) -> Step:
    if stands := blocked(seen.pods):
        return Step(server, stands, again=5.0)
    return Step(replace(server, run=1), _NO_POD, start=True)


def _after_death(
    server: Server, job: BatchJob, seen: Observed, spec: JobSpec, completed_rounds: int, now: datetime
) -> Step:
    pods = [pod for pod in seen.pods if pod.run == server.run]
    memory = limit_text(spec.server.resources.limits, "spec.server.resources")
    end = death(job, pods, "Server", spec.failure_policy.rules, memory)
    if end.action == "FailJob":
        return Step(
            server, State(FALSE, "Finished"), verdict=Verdict(False, "FailedByRule", f"the server: {end.words}")
        )
    budget = spend(server.budget, completed_rounds) if end.action == "Restart" else server.budget
    if budget is None:
        return Step(server, State(FALSE, "Finished"), verdict=_exhausted(server, end.words))
    if stands := blocked(seen.pods):
        return Step(server, stands, again=15.0)
    left = pause_seconds(end, job, budget.used, now)
    if left > 0:
        return Step(server, State(FALSE, end.reason, end.words), again=left)
    server = Server(server.run + 1, server.restarts + 1, budget, end.words)
    return Step(server, State(FALSE, end.reason, end.words), start=True)


def _exhausted(server: Server, words: str) -> Verdict:
    allowed = server.budget.allowed
    return Verdict(False, "RestartBudgetExhausted", f"{allowed} restarts used up without progress; {words}")


def _verdict(job: BatchJob, pod: Pod | None) -> Verdict | None:
    """What the server itself said; None if it died and may be started again, which finds on its disk what it had concluded."""
    code, reason, message = (pod.exit_code, pod.verdict, pod.words) if pod is not None else (None, "", "")
    if job.finished == "Complete":
        if reason in SUCCESSES or not reason:
            return Verdict(True, reason or "RoundsCompleted", message)
        return Verdict(True, "EarlyStopped", reason)  # the stop condition, in the server's words
    if code == _FAILED and reason:
        return Verdict(False, reason if reason in FAILURES else "ServerFailed", message)
    if code == _UNUSABLE:
        return Verdict(False, "ServerFailed", message or "the server cannot use its configuration")
    return None


def _last(pods: Sequence[Pod]) -> Pod | None:
    """The pod that tells how a run ended: one with an exit code, if any has."""
    return max(pods, key=lambda pod: (pod.exit_code is not None, pod.name), default=None)
