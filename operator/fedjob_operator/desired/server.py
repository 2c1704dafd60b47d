"""The server of a job: which run of it should be alive.  PURE

Each start of the server is a Job of its own, numbered by `run`. Run n + 1 begins only when no pod of an earlier run can be
alive: the state on its volume has one writer. A run that was ended from outside (eviction, preemption, a lost node, a deletion)
does not count; one that died counts, and the count begins again after `refillOnRounds` newly completed rounds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fedjob.restarts import Budget, delay_seconds, spend

from ..observed import BatchJob, Observed, Pod
from ..reasons import FAILURES, SUCCESSES
from .conditions import FALSE, TRUE, State

_COMPLETE, _FAILED, _UNUSABLE, _STOPPED = 0, 1, 2, 143  # exit codes of the server process
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


def step(server: Server, seen: Observed, completed_rounds: int, now: datetime) -> Step:
    """What becomes of the server of a job that should run."""
    if server.run == 0:
        return _first(server, seen)
    job = seen.run(server.run)
    pods = [pod for pod in seen.pods if pod.run == server.run]
    if job is None or job.leaving:  # not made yet, or somebody deleted it: the same run once more, alone
        return Step(server, _blocked(seen.pods) or _NO_POD, start=job is None and not _alive(seen.pods), again=5.0)
    if job.finished == "":
        return Step(server, readiness(pods, State(TRUE, "Ready"), _NO_POD))
    verdict = _verdict(job, _last(pods))
    if verdict is not None:
        return Step(server, State(FALSE, "Finished"), verdict=verdict)
    return _after_death(server, job, seen, completed_rounds, now)


def next_run(server: Server) -> Server:
    """The server's next run, at nobody's expense: after a suspension."""
    return replace(server, run=server.run + 1) if server.run else server


def _first(server: Server, seen: Observed) -> Step:
    if _alive(seen.pods):
        return Step(server, _blocked(seen.pods) or _NO_POD, again=5.0)
    return Step(replace(server, run=1), _NO_POD, start=True)


def _after_death(server: Server, job: BatchJob, seen: Observed, completed_rounds: int, now: datetime) -> Step:
    pod = _last([pod for pod in seen.pods if pod.run == server.run])
    words = _obituary(job, pod)
    outside = pod is not None and (pod.disrupted or pod.exit_code == _STOPPED)
    budget = server.budget if outside else spend(server.budget, completed_rounds)
    if budget is None:
        return Step(server, State(FALSE, "Finished"), verdict=_exhausted(server, words))
    if blocked := _blocked(seen.pods):
        return Step(server, blocked, again=15.0)
    wait = 0.0 if outside else delay_seconds(budget.used)
    left = wait - (now - (job.finished_at or now)) / timedelta(seconds=1)
    if left > 0:
        return Step(server, State(FALSE, "Restarting", words), again=left)
    server = Server(server.run + 1, server.restarts + 1, budget, words)
    return Step(server, State(FALSE, "Restarting", words), start=True)


def _exhausted(server: Server, words: str) -> Verdict:
    allowed = server.budget.allowed
    return Verdict(False, "RestartBudgetExhausted", f"{allowed} restarts used up without progress; {words}")


def readiness(pods: Sequence[Pod], good: State, none: State) -> State:
    """What a Job's pods say together: `good` if one is ready, else what stands in the way; `none` without a pod."""
    if any(pod.ready for pod in pods):
        return good
    live = [pod for pod in pods if pod.live]
    for pod in live:
        if pod.problem:
            return State(FALSE, pod.problem, f"pod {pod.name}: {pod.words}")
    if live:
        return State(FALSE, "Pending", f"pod {live[0].name} is being started")
    return none


def _verdict(job: BatchJob, pod: Pod | None) -> Verdict | None:
    """What the server itself said; None if it died and may be started again."""
    code = pod.exit_code if pod is not None else None
    reason, message = last_words(pod)
    if job.finished == "Complete" or code == _COMPLETE:
        if reason in SUCCESSES or not reason:
            return Verdict(True, reason or "RoundsCompleted", message)
        return Verdict(True, "EarlyStopped", reason)  # the stop condition, in the server's words
    if code == _FAILED and reason:
        return Verdict(False, reason if reason in FAILURES else "ServerFailed", message)
    if code == _UNUSABLE:
        return Verdict(False, "ServerFailed", message or "the server cannot use its configuration")
    return None


def last_words(pod: Pod | None) -> tuple[str, str]:
    """Reason and message from a container's termination message: ours is JSON, anything else is its log's end."""
    if pod is None:
        return "", ""
    try:
        said = json.loads(pod.words)
        return str(said["reason"]), str(said["message"])
    except (ValueError, KeyError, TypeError):
        return "", pod.words


def _obituary(job: BatchJob, pod: Pod | None) -> str:
    if pod is None:
        return f"Job {job.name} failed and its pod is gone ({job.reason}: {job.message})"
    how = f"exit code {pod.exit_code}" if pod.exit_code is not None else "no exit code"
    words = last_words(pod)[1]
    return f"pod {pod.name} ended with {how}" + (f": {words}" if words else "")


def _last(pods: Sequence[Pod]) -> Pod | None:
    """The pod that tells how a run ended: one with an exit code, if any has."""
    return max(pods, key=lambda pod: (pod.exit_code is not None, pod.name), default=None)


def _alive(pods: Sequence[Pod]) -> list[Pod]:
    return [pod for pod in pods if pod.live]


def _blocked(pods: Sequence[Pod]) -> State | None:
    """Why no further run may begin yet: a pod that may be alive."""
    alive = _alive(pods)
    if not alive:
        return None
    pod = alive[0]
    where = f" on node {pod.node}" if pod.node else ""
    return State(FALSE, "NodeLost" if pod.problem == "NodeLost" else "Restarting",
                 f"pod {pod.name}{where} may still be alive{f': {pod.words}' if pod.problem else ''}")  # fmt: skip
