"""One run of a server or a script: what its pods say together while it lives, and what follows from its end.  PURE"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from fedjob.api import FailureRule
from fedjob.restarts import End, delay_seconds, fitting

from ..observed import BatchJob, Pod
from .conditions import FALSE, State

STOPPED: Final = 143  # the exit code of a process that was told to end
_REFUSALS = (
    ("exceeded quota", "QuotaExceeded"),
    ("violates PodSecurity", "PodSecurity"),
    ("admission webhook", "WebhookDenied"),
)
_NOT_STARTED = State(FALSE, "NotStarted")


@dataclass(frozen=True)
class Death:
    """How a run ended. words: what is known of it. reason: of the condition while it waits for the next run.

    action: Restart counts against the budget, Ignore does not; FailSite and FailJob end more than the run. at_once: the next
    run need not wait, because nothing was wrong with this one.
    """

    action: Literal["Restart", "Ignore", "FailSite", "FailJob"]
    words: str
    reason: Literal["Restarting", "OOMKilled"] = "Restarting"
    at_once: bool = False


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
    """What follows from the end of a run. pods: of this run alone. memory: the limit of its container, as `limit_text` has it."""
    ended = [pod for pod in pods if not pod.live]
    pod = _witness(ended)
    words, reason = _obituary(job, pod, memory)
    rule = fitting(rules, role, [End(pod.exit_code, _reasons(pod)) for pod in ended])
    if rule is not None:
        said = f"rule {rule.name} of failurePolicy: {rule.action}; {words}"
        return Death(rule.action, said, reason)
    if any(pod.disrupted or pod.exit_code == STOPPED for pod in ended):
        return Death("Ignore", words, reason, at_once=True)
    return Death("Restart", words, reason)


def pause_seconds(end: Death, job: BatchJob, used: int, now: datetime) -> float:
    """Seconds until the next run may begin, 0 or less if it may now. used: restarts that count, this one included.

    What a rule ignores is not counted, so it waits by the number of the run: a script that always ends so must not spin.
    """
    if end.at_once:
        return 0.0
    wait = delay_seconds(max(used, 1) if end.action == "Restart" else max(job.run, 1))
    return wait - (now - (job.finished_at or now)) / timedelta(seconds=1)


def limit_text(limits: object, field: str) -> str:
    """The limit of memory of a container, for messages. limits: by resource. field: which field of the spec sets it."""
    memory = limits.get("memory") if isinstance(limits, dict) else None
    return f"its limit is {memory} ({field}.limits.memory)" if memory else f"{field}.limits.memory is not set"


def last_words(pod: Pod | None) -> tuple[str, str]:
    """Reason and message from a container's termination message: ours is JSON, anything else is its log's end."""
    if pod is None:
        return "", ""
    try:
        said = json.loads(pod.words)
        return str(said["reason"]), str(said["message"])
    except (ValueError, KeyError, TypeError):
        return "", pod.words


def _witness(ended: Sequence[Pod]) -> Pod | None:
    """The pod that tells how a run ended: one that was killed for its memory, else one with an exit code, if any has."""
    return max(ended, key=lambda pod: (pod.out_of_memory, bool(pod.exit_code), pod.name), default=None)


def _reasons(pod: Pod) -> frozenset[str]:
    told = {"OOMKilled": pod.out_of_memory, "Disrupted": pod.disrupted}
    return frozenset(reason for reason, so in told.items() if so)


def _obituary(job: BatchJob, pod: Pod | None, memory: str) -> tuple[str, Literal["Restarting", "OOMKilled"]]:
    if pod is None:
        return f"Job {job.name} failed and its pod is gone ({job.reason}: {job.message})", "Restarting"
    words = last_words(pod)[1]
    if pod.out_of_memory:
        said = "" if words in ("", "OOMKilled") else f"; {words}"
        return f"pod {pod.name} was killed for the memory that it used: {memory}{said}", "OOMKilled"
    how = f"exit code {pod.exit_code}" if pod.exit_code is not None else "no exit code"
    return f"pod {pod.name} ended with {how}" + (f": {words}" if words else ""), "Restarting"
