"""One run of a server or a script: what its pods say together while it lives, and what follows from its end.  PURE"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from fedjob.api import FailureRule
from fedjob.restarts import End, delay_seconds, fitting

from ..observed import STOPPED, BatchJob, Pod
from .conditions import FALSE, State

_LONG = timedelta(minutes=10)  # a run that lasted so long is none of a row that fails at once
_REFUSALS = (
    ("exceeded quota", "QuotaExceeded"),
    ("violates PodSecurity", "PodSecurity"),
    ("admission webhook", "WebhookDenied"),
)
_NOT_STARTED = State(FALSE, "NotStarted")


@dataclass(frozen=True)
class Death:
    """How a run ended. words: what is known of it. reason: of the condition while it waits for the next run.

    action: Restart counts against the budget, Ignore does not; FailSite and FailJob end more than the run.
    """

    action: Literal["Restart", "Ignore", "FailSite", "FailJob"]
    words: str
    reason: Literal["Restarting", "OOMKilled"] = "Restarting"


def living(job: BatchJob, pods: Sequence[Pod], good: State) -> State:
    """What a run that has not ended says: `good` if a pod of it is ready, else what stands in the way.

    pods: of this run alone.
    """
    if any(pod.ready for pod in pods):
        return good
    live = [pod for pod in pods if pod.live]
    for pod in live:
        if pod.problem:
            return State(FALSE, pod.problem, f"pod {pod.name}: {pod.words}")
    if live:
        return State(FALSE, "Pending", f"pod {live[0].name} is being started")
    if job.refused:
        reason = next((reason for words, reason in _REFUSALS if words in job.refused), "PodRefused")
        return State(FALSE, reason, job.refused)
    return _NOT_STARTED


def blocked(pods: Sequence[Pod]) -> State | None:
    """Why no further run may begin yet: a pod of any run that may be alive."""
    alive = [pod for pod in pods if pod.live]
    if not alive:
        return None
    pod = alive[0]
    where = f" on node {pod.node}" if pod.node else ""
    known = f": {pod.words}" if pod.problem else ""
    reason = "NodeLost" if pod.problem == "NodeLost" else "Restarting"
    return State(FALSE, reason, f"pod {pod.name}{where} may still be alive{known}")


def death(job: BatchJob, pods: Sequence[Pod], role: str, rules: Sequence[FailureRule], memory: str) -> Death:
    """What follows from the end of a run. pods: of this run alone. memory: the limit of its container, as `limit_text` has it.

    A disruption excuses every pod of the run: the others fail because one is missing. That a pod was told to end does not, as the
    Job controller itself tells the others when one has failed. A pod that failed by itself stays as long as its Job: where none is
    left, and none remembered (an operator that was just started remembers nothing), it was deleted.
    """
    ended = [pod for pod in pods if not pod.live]
    pod = _witness(ended)
    words, reason = _obituary(job, pod, memory)
    rule = fitting(rules, role, [End(pod.exit_code, _reasons(pod)) for pod in ended])
    if rule is not None:
        said = f"rule {rule.name} of failurePolicy: {rule.action}; {words}"
        return Death(rule.action, said, reason)
    stopped = not ended or any(pod.deleted or pod.exit_code == STOPPED for pod in ended)
    if any(pod.disrupted for pod in ended) or (stopped and not any(pod.failed_by_itself for pod in ended)):
        return Death("Ignore", words, reason)
    return Death("Restart", words, reason)


def pause_seconds(end: Death, job: BatchJob, used: int, now: datetime) -> float:
    """Seconds until the next run may begin, 0 or less if it may now. used: restarts that count, this one included.

    What is not counted waits by the number of the run, unless the run lasted long: whatever always ends so must not spin.
    """
    finished = job.finished_at or now
    number = used if end.action == "Restart" else 1 if finished - (job.started_at or finished) >= _LONG else job.run
    return delay_seconds(max(number, 1)) - (now - finished) / timedelta(seconds=1)


def limit_text(limits: object, field: str) -> str:
    """The limit of memory of a container, for messages. limits: by resource. field: which field of the spec sets it."""
    memory = limits.get("memory") if isinstance(limits, dict) else None
    return f"its limit is {memory} ({field}.limits.memory)" if memory else f"{field}.limits.memory is not set"


def _witness(ended: Sequence[Pod]) -> Pod | None:
    """The pod that tells how a run ended: one that was killed for its memory, or failed by itself, or has an exit code."""

    def weight(pod: Pod) -> tuple[bool, bool, bool, str]:
        return pod.out_of_memory, pod.failed_by_itself, bool(pod.exit_code), pod.name

    return max(ended, key=weight, default=None)


def _reasons(pod: Pod) -> frozenset[str]:
    told = {"OOMKilled": pod.out_of_memory, "Disrupted": pod.disrupted}
    return frozenset(reason for reason, so in told.items() if so)


def _obituary(job: BatchJob, pod: Pod | None, memory: str) -> tuple[str, Literal["Restarting", "OOMKilled"]]:
    if pod is None:
        return f"Job {job.name} failed and its pod is gone ({job.reason}: {job.message})", "Restarting"
    words = pod.words
    if pod.out_of_memory:
        said = "" if words in ("", "OOMKilled") else f"; {words}"
        return f"pod {pod.name} was killed for the memory that it used: {memory}{said}", "OOMKilled"
    how = f"ended with exit code {pod.exit_code}"
    if pod.exit_code is None:
        how = "was deleted before it had ended" if pod.deleted else "ended with no exit code"
    return f"pod {pod.name} {how}" + (f": {words}" if words else ""), "Restarting"
