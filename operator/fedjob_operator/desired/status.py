"""The status of a FederatedJob: what the facts say to people and to scripts.  PURE"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fedjob.api import FederatedJob

from .. import names
from ..observed import Observed, Raw, stamp
from ..plan import NOTHING, Plan
from . import sites
from .conditions import FALSE, TRUE, UNKNOWN, State, settle, transitions
from .memory import Memory
from .sites import SiteView

_BAD_WHEN_TRUE = frozenset({"Degraded", "Failed"})
_QUIET = frozenset({
    "NotFinished", "NotStarted", "NotAccepted", "AllSites", "Finished", "Waiting", "WaitingForSites", "Issuing", "Issued",
    "Pending", "Admitted", "Training", "Failed",
})  # fmt: skip
_NOT_STARTED = State(FALSE, "NotStarted")
_ALL_SITES = State(FALSE, "AllSites")
_HINDRANCES = frozenset({"DiskFull"})  # what a server that runs may say of itself, and no round ends while it lasts
_SITE_KEYS = ("state", "reason", "message", "restarts", "forgiven", "restartRound")
_KEYS = (
    "observedGeneration", "state", "attempt", "runtimeImage", "startTime", "runningTime", "completionTime", "suspendedTime",
    "suspendedSeconds", "conditions", "server", "sites", "siteSummary", "certificates",
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What one pass has found out. None: the pass did not get so far."""

    seen: Observed
    memory: Memory
    accepted: State
    now: datetime
    job: FederatedJob | None = None
    certified: State | None = None
    admitted: State | None = None
    server: State | None = None
    stalled: State | None = None
    views: Sequence[SiteView] = ()


def compose(facts: Facts) -> Plan:
    """A plan that writes the status, if it differs from what is there, and tells of what has changed."""
    before: Raw = facts.seen.job.get("status") or {}
    known = before.get("conditions") or ()
    conditions = settle(known, _conditions(facts), facts.seen.job["metadata"]["generation"], facts.now)
    status = {**_numbers(facts), "conditions": conditions}
    status = {key: status[key] for key in _KEYS if status.get(key) is not None}
    if _same(status, before):
        return NOTHING
    return Plan(status=status, events=transitions(known, conditions, _BAD_WHEN_TRUE, _QUIET))


def _conditions(facts: Facts) -> dict[str, State]:
    memory, verdict = facts.memory, facts.memory.verdict
    if verdict is not None:
        over = State(FALSE, "Finished")
        known = {c["type"]: c for c in (facts.seen.job.get("status") or {}).get("conditions") or ()}
        middle: dict[str, State] = {
            "Accepted": facts.accepted,
            "CertificatesReady": _kept(known, "CertificatesReady"),
            **dict.fromkeys(("Admitted", "ServerReady", "QuorumReached", "Progressing"), over),
            "Degraded": _kept(known, "Degraded"),
        }
        complete = State(TRUE if verdict.complete else FALSE, verdict.reason if verdict.complete else "Failed",
                         verdict.message if verdict.complete else "")  # fmt: skip
        failed = State(FALSE if verdict.complete else TRUE, "Complete" if verdict.complete else verdict.reason,
                       "" if verdict.complete else verdict.message)  # fmt: skip
        return {**middle, "Complete": complete, "Failed": failed}
    return {
        "Accepted": facts.accepted,
        "CertificatesReady": facts.certified or _kept_from(facts, "CertificatesReady", State(UNKNOWN, "Issuing")),
        "Admitted": facts.admitted or _admitted(facts),
        **(_of_the_pods(facts) if facts.job is not None else _as_before(facts)),
        "Complete": State(FALSE, "NotFinished"),
        "Failed": State(FALSE, "NotFinished", f"restarted: {memory.server.last}" if memory.server.last else ""),
    }


def _of_the_pods(facts: Facts) -> dict[str, State]:
    return {
        "ServerReady": facts.server or _NOT_STARTED,
        "QuorumReached": _quorum(facts),
        "Progressing": _progressing(facts),
        "Degraded": sites.degraded(facts.views) if facts.views else _ALL_SITES,
    }


def _as_before(facts: Facts) -> dict[str, State]:
    """Of a spec that cannot be read: its pods run on, or there are none."""
    defaults = {
        "ServerReady": _NOT_STARTED,
        "QuorumReached": State(FALSE, "WaitingForSites"),
        "Progressing": State(FALSE, "Waiting"),
        "Degraded": _ALL_SITES,
    }
    return {kind: _kept_from(facts, kind, default) for kind, default in defaults.items()}


def _admitted(facts: Facts) -> State:
    if facts.seen.trouble:
        return State(FALSE, "Forbidden", facts.seen.trouble)
    return State(TRUE, "Admitted") if facts.accepted.status == TRUE else State(FALSE, "NotAccepted")


def _kept_from(facts: Facts, kind: str, default: State) -> State:
    known = {c["type"]: c for c in (facts.seen.job.get("status") or {}).get("conditions") or ()}
    return _kept(known, kind, default)


def _kept(known: Mapping[str, Raw], kind: str, default: State | None = None) -> State:
    """The condition as it was before: what no longer changes once a job has ended."""
    if kind not in known:
        return default or State(UNKNOWN, "Finished")
    old = known[kind]
    return State(old["status"], old["reason"], old.get("message", ""))


def _quorum(facts: Facts) -> State:
    if facts.job is None or not facts.views:
        return State(FALSE, "WaitingForSites")
    return sites.quorum(facts.job.spec, facts.views)


def _progressing(facts: Facts) -> State:
    progress: Raw = (facts.seen.job.get("status") or {}).get("progress") or {}
    working = facts.server is not None and facts.server.status == TRUE and progress.get("state") == "Running"
    if working:
        for told in progress.get("conditions") or ():
            if told["type"] in _HINDRANCES:
                return State(FALSE, told["type"], told.get("message", ""))
    if facts.stalled is not None:
        return facts.stalled
    return State(TRUE, "Training") if working else State(FALSE, "Waiting")


def _numbers(facts: Facts) -> dict[str, Any]:
    memory = facts.memory
    return {
        "observedGeneration": facts.seen.job["metadata"]["generation"],
        "state": _state(facts),
        "attempt": memory.attempt,
        "runtimeImage": memory.image or None,
        "startTime": _time(memory.started_at),
        "runningTime": _time(memory.running_at),
        "completionTime": _time(memory.ended_at),
        "suspendedTime": _time(memory.suspended_since),
        "suspendedSeconds": int(memory.suspended_seconds),
        "server": _server(facts),
        "sites": ([_site(view) for view in facts.views] if facts.job is not None else _sites_before(facts)) or None,
        "siteSummary": _summary(facts.views) if facts.job is not None else _before(facts).get("siteSummary"),
        "certificates": _certificates(facts),
    }


def _state(facts: Facts) -> str:
    """One word for people. Not a contract: scripts read conditions."""
    memory = facts.memory
    if memory.verdict is not None:
        return "Complete" if memory.verdict.complete else "Failed"
    if facts.accepted.status != TRUE:
        return "Pending"
    if facts.admitted is not None and facts.admitted.status == FALSE:
        return facts.admitted.reason
    progressing, server = _progressing(facts), facts.server
    if progressing.status == TRUE:
        return "Training"
    if progressing.reason in _HINDRANCES | {"Stalled", "NotReported"}:
        return progressing.reason
    if server is not None and server.status == FALSE and server.reason not in _QUIET:
        return server.reason  # what stands in the way, as kubectl has it for pods
    return "Restarting" if memory.server.run > 1 else "Starting"


def _server(facts: Facts) -> dict[str, Any]:
    memory, server, ready = facts.memory, facts.memory.server, facts.server
    metadata, told = facts.seen.job["metadata"], _before(facts).get("server") or {}
    return {
        "run": server.run,
        "ready": ready.status == TRUE if ready is not None else facts.job is None and bool(told.get("ready")),
        "released": memory.released,
        "restarts": server.restarts,
        "counted": server.budget.used,
        "countedRound": server.budget.at_round,
        "job": names.server_job(metadata["name"], metadata["uid"], server.run) if server.run else "",
        "endpoint": f"{names.service_host(names.base(metadata['name'], metadata['uid']), metadata['namespace'])}"
        f":{names.JOB_PORT}",
        "lastTermination": server.last,
        **({"storageClassName": memory.storage_class} if memory.storage_class else {}),
    }


def _before(facts: Facts) -> Raw:
    found: Raw = facts.seen.job.get("status") or {}
    return found


def _sites_before(facts: Facts) -> list[dict[str, Any]]:
    """The hub's part of each entry, as it was: what is left out of an apply would be taken away."""
    entries = _before(facts).get("sites") or ()
    return [{key: entry[key] for key in ("name", *_SITE_KEYS) if key in entry} for entry in entries if "state" in entry]


def _site(view: SiteView) -> dict[str, Any]:
    return {
        "name": view.name,
        "state": view.state,
        **({"reason": view.reason} if view.reason else {}),
        "message": view.message[:1024],
        "restarts": view.restarts,
        "forgiven": view.forgiven,
        "restartRound": view.at_round,
    }


def _summary(views: Sequence[SiteView]) -> dict[str, Any] | None:
    if not views:
        return None
    running = sum(view.state in ("Running", "Finished") for view in views)
    return {
        "total": len(views),
        "running": running,
        "out": sum(v.out for v in views),
        "text": f"{running}/{len(views)}",
    }


def _certificates(facts: Facts) -> dict[str, Any] | None:
    present = facts.seen.certificate
    if present is None:  # not looked at, or no longer: the job is over, or paused
        return (facts.seen.job.get("status") or {}).get("certificates")
    return {"serverNotAfter": stamp(present.not_after)}


def _time(moment: datetime | None) -> str | None:
    return stamp(moment) if moment else None


def _same(status: Mapping[str, Any], before: Raw) -> bool:
    """Whether what the operator wants to say is there already; what others have added does not matter."""
    for key in _KEYS:
        if key == "sites":
            continue
        if status.get(key) != before.get(key):
            return False
    told = [{key: site.get(key) for key in ("name", *_SITE_KEYS)} for site in status.get("sites") or ()]
    there = [
        {key: site.get(key) for key in ("name", *_SITE_KEYS)} for site in before.get("sites") or () if "state" in site
    ]
    return told == there
