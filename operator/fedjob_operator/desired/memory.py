"""What the operator must remember of a job between two passes. It lives in the job's status, nowhere else.  PURE"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fedjob.api import JobSpec
from fedjob.restarts import Budget

from ..observed import Raw, condition, moment
from .server import NEVER_STARTED, Server, Verdict, next_run


@dataclass(frozen=True)
class Memory:
    """attempt: goes up when the clients must start anew; older ones are refused by the server, by number.

    running_at: when the workflow was first seen at work. suspended_since: when spec.suspend was first seen, None unless it is set.
    released: the server was ready once in this attempt, so the sites may start their pods. image: of the runtime, from the job's
    first pass on: an upgrade of the hub changes no job that is under way, nor what a site has approved.
    storage_class: of the server's volume, which cannot be changed, whatever the installation's default becomes.
    """

    attempt: int = 1
    started_at: datetime | None = None
    running_at: datetime | None = None
    suspended_since: datetime | None = None
    suspended_seconds: float = 0.0
    released: bool = False
    storage_class: str = ""
    server: Server = NEVER_STARTED
    verdict: Verdict | None = None
    ended_at: datetime | None = None
    image: str = ""

    def active_seconds(self, now: datetime) -> float:
        """How long the job has been under way, without the time that it was suspended."""
        if self.started_at is None:
            return 0.0
        suspended = self.suspended_seconds + (_seconds(now, self.suspended_since) if self.suspended_since else 0.0)
        return _seconds(now, self.started_at) - suspended


def remember(job: Raw, spec: JobSpec | None) -> Memory:
    """What status says; spec: for the size of the budget, None if it cannot be read."""
    status: Raw = job.get("status") or {}
    server: Raw = status.get("server") or {}
    policy = spec.failure_policy if spec else None
    budget = Budget(
        allowed=policy.server_restarts if policy else 0,
        refill_rounds=policy.refill_on_rounds if policy else 1,
        used=int(server.get("counted") or 0),
        at_round=int(server.get("countedRound") or 0),
    )
    return Memory(
        attempt=int(status.get("attempt") or 1),
        started_at=moment(status.get("startTime")),
        running_at=moment(status.get("runningTime")),
        suspended_since=moment(status.get("suspendedTime")),
        suspended_seconds=float(status.get("suspendedSeconds") or 0),
        released=bool(server.get("released")),
        storage_class=str(server.get("storageClassName") or ""),
        server=Server(
            run=int(server.get("run") or 0),
            restarts=int(server.get("restarts") or 0),
            budget=budget,
            last=str(server.get("lastTermination") or ""),
        ),
        verdict=_verdict(job),
        ended_at=moment(status.get("completionTime")),
        image=str(status.get("runtimeImage") or ""),
    )


def suspended(memory: Memory, now: datetime) -> Memory:
    """The job is asked to pause."""
    return memory if memory.suspended_since else replace(memory, suspended_since=now)


def resumed(memory: Memory, now: datetime, *, active: bool) -> Memory:
    """The job goes on: with a new attempt if it had begun, so that no client of before is heard again.

    active: the server has not stopped yet, so the job simply goes on; a server that was told to stop is followed by another.
    """
    if memory.suspended_since is None:
        return memory
    seconds = memory.suspended_seconds + _seconds(now, memory.suspended_since)
    begun = memory.server.run > 0
    if active:
        return replace(memory, suspended_since=None, suspended_seconds=seconds)
    return replace(
        memory,
        attempt=memory.attempt + begun,
        suspended_since=None,
        suspended_seconds=seconds if memory.started_at else 0.0,
        released=False,
        server=next_run(memory.server),
    )


def ended(memory: Memory, verdict: Verdict, now: datetime) -> Memory:
    """The job is over, for good."""
    return replace(memory, verdict=verdict, ended_at=now)


def _verdict(job: Raw) -> Verdict | None:
    for kind in ("Complete", "Failed"):
        status, reason, message = condition(job, kind)
        if status == "True":
            return Verdict(kind == "Complete", reason, message)
    return None


def _seconds(later: datetime, earlier: datetime) -> float:
    return (later - earlier) / timedelta(seconds=1)
