"""What one pass may look at: frozen records, read from the API server's JSON.  PURE

Nothing here asks or waits. Absent is `None` or an empty tuple, never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from fedjob.last_words import said_last
from fedjob.text import one_line

from .names import ROLE_LABEL, RUN_LABEL, SITE_LABEL

Raw = Mapping[str, Any]

STOPPED: Final = 143  # the exit code of a process that was told to end

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError", "ErrImageNeverPull"}
)
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_WITHOUT_PODS = frozenset({"Suspended", "WaitingForTurn"})  # reasons of the condition Admitted
_MAX_WORDS = 1000
_UNKNOWN = ("Unknown", "", "")
_RUN_DIGITS = 9
_COMBINED = "(combined from similar events): "
_TIME_HAS_PASSED = "Unable to attach or mount volumes"
_FORBIDDEN_POD = re.compile(r'^pods "[^"]*" is forbidden: ')  # a name that is another one at the next try


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a server or a client.

    problem: why it does not run, one of ImagePull, Unschedulable, MountFailed, NodeLost, "" if nothing is wrong; words: what is
    known of it, or the last words of a container that has ended. exit_code: of the server's or the script's own container.
    verdict: the reason in its termination message, if that is of our server's form. disrupted: it was ended from outside:
    eviction, preemption, a lost node. deleted: somebody deleted it before its process had ended. out_of_memory: a container was
    killed for the memory that it used. mounting: its volumes and network are not there yet.
    """

    name: str
    uid: str
    run: int
    phase: str = "Pending"
    ready: bool = False
    leaving: bool = False
    node: str = ""
    exit_code: int | None = None
    verdict: str = ""
    disrupted: bool = False
    deleted: bool = False
    out_of_memory: bool = False
    mounting: bool = False
    problem: str = ""
    words: str = ""

    @property
    def live(self) -> bool:
        """Whether a process of it may exist, as far as the API server knows."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def failed_by_itself(self) -> bool:
        """Whether it has failed, and nobody told it to end."""
        return self.phase == "Failed" and not (self.disrupted or self.deleted or self.exit_code == STOPPED)

    def after(self, before: object) -> Pod:
        """This pod, with what only its earlier state has told: the last write of a kubelet moves the time of the deletion."""
        if not isinstance(before, Pod) or before.uid != self.uid:
            return self
        return replace(self, deleted=self.deleted or before.deleted or (before.leaving and before.live))

    def gone(self) -> Pod:
        """What is remembered of it when it is no longer there: one that had not ended was deleted."""
        if not self.live:
            return self
        return replace(self, phase="Failed", ready=False, mounting=False, problem="", deleted=True)


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A Job of a server or a client. finished: "", Complete or Failed. suspended: its queue has not admitted it.

    started_at: when it might first have pods.

    unborn: the Job controller counts no pod of it, neither one that lives nor one that has ended.
    refused: why the API server does not let the Job controller make its pods, in its words; "" as far as is known.
    """

    name: str
    uid: str
    run: int
    finished: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str = ""
    message: str = ""
    suspended: bool = False
    leaving: bool = False
    unborn: bool = False
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Child:
    """An object that we applied: what it was made from, and what it is now. owned: by the object that is reconciled."""

    kind: str
    namespace: str
    name: str
    uid: str
    digest: str
    owned: bool
    drifted: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a Secret holds, without the key. bundle: digest of the authorities beside it."""

    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    identity: str
    issuer: str
    bundle: str


@dataclass(frozen=True, slots=True)
class Site:
    """A FederatedSite. namespace: where its SiteJobs live, "": with the job. allowed: namespaces whose jobs it takes."""

    name: str
    approved: bool
    namespace: str = ""
    allowed: tuple[str, ...] = ()

    def place(self, job_namespace: str) -> str:
        """The namespace of its SiteJob for a job of `job_namespace`."""
        return self.namespace or job_namespace


@dataclass(frozen=True, slots=True)
class SiteJob:
    """A SiteJob, as its site tells: `accepted` and `running` are conditions (status, reason, message).

    forgiven: restarts that the hub has forgiven it.
    """

    site: str
    namespace: str
    name: str
    uid: str
    accepted: tuple[str, str, str] = ("Unknown", "", "")
    running: tuple[str, str, str] = ("Unknown", "", "")
    finished: tuple[str, str, str] = ("Unknown", "", "")
    restarts: int = 0
    forgiven: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A FederatedJob among those of its namespace. since: what orders them, the oldest first.

    turn: it holds a place among those that have pods, waits for one, or, "", wants none: it is over, suspended or refused.
    """

    sites: frozenset[str]
    since: tuple[str, str]
    turn: Literal["holds", "waits", ""]


@dataclass(frozen=True)
class Observed:
    """Everything about one FederatedJob, at one moment. ahead: jobs of its namespace that have pods, or come before it."""

    job: Raw
    server_jobs: tuple[BatchJob, ...] = ()
    pods: tuple[Pod, ...] = ()
    sites: Mapping[str, Site] = field(default_factory=dict)
    site_jobs: tuple[SiteJob, ...] = ()
    children: tuple[Child, ...] = ()
    certificate: Certificate | None = None
    trouble: str = ""  # why the API server refused the last pass
    unassigned: Mapping[str, str] = field(default_factory=dict)  # sites whose SiteJob it refused, and why
    ahead: int = 0
    forbidden: Mapping[str, str] = field(default_factory=dict)  # namespaces that do not let us in, and its words

    def run(self, number: int) -> BatchJob | None:
        """The server's Job number `number`."""
        return next((job for job in self.server_jobs if job.run == number), None)


@dataclass(frozen=True)
class ObservedSite:
    """Everything about one SiteJob, at one moment. policy: the site's SitePolicy."""

    site_job: Raw
    policy: Raw | None = None
    assigned: bool = False  # by a FederatedJob that is there, to this namespace; or somebody else has made it
    jobs: tuple[BatchJob, ...] = ()
    pods: tuple[Pod, ...] = ()
    children: tuple[Child, ...] = ()
    certificate: Certificate | None = None
    trouble: str = ""  # why the API server refused the last pass


def moment(text: str | None) -> datetime | None:
    """A time as the API server writes it."""
    return datetime.fromisoformat(text) if text else None


def stamp(moment: datetime) -> str:
    """A time as the API server writes it, in whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(raw: Raw, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; Unknown if there is none."""
    for found in (raw.get("status") or {}).get("conditions") or ():
        if found["type"] == kind:
            return found["status"], found.get("reason", ""), found.get("message", "")
    return "Unknown", "", ""


def owner_uid(raw: Raw) -> str:
    """UID of the object that controls this one, "" if none does."""
    owners = raw["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def label(raw: Raw, name: str) -> str:
    """A label's value, "" without it."""
    return str((raw["metadata"].get("labels") or {}).get(name, ""))


def _run_number(raw: Raw) -> int:
    """Of a Job or a pod, 0 if its label is none of ours: whoever may make pods may label them as they like."""
    text = label(raw, RUN_LABEL)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _RUN_DIGITS else 0


def read_job(raw: Raw) -> BatchJob:
    """A batch/v1 Job."""
    status = raw.get("status") or {}
    ends = [c for c in status.get("conditions") or () if c["type"] in ("Complete", "Failed") and c["status"] == "True"]
    end = ends[0] if ends else {}
    return BatchJob(
        name=raw["metadata"]["name"],
        uid=raw["metadata"]["uid"],
        run=_run_number(raw),
        finished=end.get("type", ""),
        started_at=moment(status.get("startTime")),
        finished_at=moment(end.get("lastTransitionTime")),
        reason=end.get("reason", ""),
        message=end.get("message", ""),
        suspended=bool((raw.get("spec") or {}).get("suspend")),
        leaving="deletionTimestamp" in raw["metadata"],
        unborn=not ends and not any(status.get(count) for count in ("active", "succeeded", "failed", "terminating")),
    )


def read_refusal(events: Iterable[Raw]) -> str:
    """Why pods of a Job are not made, from its FailedCreate events: the newest one's words, without the name of the pod."""
    newest = max(events, key=_told_at, default=None)
    if newest is None:
        return ""
    return _FORBIDDEN_POD.sub("", _words(newest).removeprefix("Error creating: "))[:_MAX_WORDS]


def read_mount_failure(events: Iterable[Raw]) -> str:
    """Why a volume is not mounted, from a pod's FailedMount events: the newest one that tells more than that time has passed."""

    def weight(event: Raw) -> tuple[bool, str]:
        return not _words(event).startswith(_TIME_HAS_PASSED), _told_at(event)

    newest = max(events, key=weight, default=None)
    return _words(newest)[:_MAX_WORDS] if newest is not None else ""


def _words(event: Raw) -> str:
    return one_line(str(event.get("message") or "").removeprefix(_COMBINED))


def _told_at(event: Raw) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")


def read_pod(raw: Raw) -> Pod:
    """A pod; its containers speak through `problem` and `words`."""
    status = raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    leaving = "deletionTimestamp" in raw["metadata"]
    ends = {c["name"]: c["state"]["terminated"] for c in containers if "terminated" in (c.get("state") or {})}
    own = ends.pop(label(raw, ROLE_LABEL), {})
    other = next((name for name, end in ends.items() if end.get("exitCode")), "")
    node = (raw.get("spec") or {}).get("nodeName") or ""
    silent = _silent(status, conditions, leaving)
    problem, words = ("NodeLost", f"node {node} does not answer") if silent else _problem(conditions, containers)
    verdict, said = _last_words(own)
    return Pod(
        name=raw["metadata"]["name"],
        uid=raw["metadata"]["uid"],
        run=_run_number(raw),
        phase=status.get("phase", "Pending"),
        ready=conditions.get("Ready", {}).get("status") == "True" and not leaving,
        leaving=leaving,
        node=node,
        exit_code=own.get("exitCode"),
        verdict=verdict,
        disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
        deleted=leaving and _asked_first(raw["metadata"], own),
        out_of_memory=(own or ends.get(other, {})).get("reason") == "OOMKilled",
        mounting=_mounting(status, conditions) and not leaving and not problem,
        problem=problem,
        words=words or "; ".join(filter(None, (_of_the_pod(status, conditions), said or _of_another(ends, other)))),
    )


def _asked_first(metadata: Raw, end: Raw) -> bool:
    """Whether a pod was asked to leave before its process ended."""
    leaves, ended = moment(metadata["deletionTimestamp"]), moment(end.get("finishedAt"))
    if leaves is None or ended is None:
        return not end
    return ended >= leaves - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)


def _last_words(end: Raw) -> tuple[str, str]:
    """The verdict and its message from a termination message: our server's is JSON, anything else is the end of a log."""
    text = str(end.get("message") or end.get("reason") or "")
    try:
        said = json.loads(text)
        return one_line(str(said["reason"])), one_line(str(said["message"]))
    except (ValueError, KeyError, TypeError):
        return "", one_line(said_last(text))


def _of_the_pod(status: Raw, conditions: Mapping[str, Raw]) -> str:
    """What the kubelet, or whoever ended the pod, says of the end: a container knows nothing of an eviction."""
    said = status.get("message") or conditions.get("DisruptionTarget", {}).get("message") or ""
    return one_line(str(said)[:_MAX_WORDS])


def _of_another(ends: Mapping[str, Raw], name: str) -> str:
    """The last words of a container beside our own, such as the one that makes a first model."""
    if not name:
        return ""
    words = _last_words(ends[name])[1]
    return f"container {name} ended with exit code {ends[name]['exitCode']}" + (f": {words}" if words else "")


def _mounting(status: Raw, conditions: Mapping[str, Raw]) -> bool:
    """Whether the kubelet has the pod and cannot start a container yet: this condition is of volumes and network, not of images."""
    started = conditions.get("PodReadyToStartContainers", {}).get("status")
    return status.get("phase", "Pending") == "Pending" and started == "False"


def _problem(conditions: Mapping[str, Raw], containers: Iterable[Raw]) -> tuple[str, str]:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "Unschedulable", one_line(str(scheduled.get("message", "")))
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _IMAGE_REASONS | _CONFIG_REASONS:
            kind = "ImagePull" if waiting["reason"] in _IMAGE_REASONS else "Pending"
            return kind, one_line(f"{container.get('image', '')}: {waiting['reason']}: {waiting.get('message', '')}")
    return "", ""


def _silent(status: Raw, conditions: Mapping[str, Raw], leaving: bool) -> bool:
    """Whether the node of a pod that has not ended does not answer.

    The controller of nodes takes a pod's readiness and nothing else, and gives no reason; a kubelet always gives one, but
    its last word is all there is of a pod that was not ready before. That one is known when its deletion gets no answer.
    """
    if status.get("phase") in ("Succeeded", "Failed"):
        return False
    ready, inside = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    if ready.get("status") == "False" and not ready.get("reason") and inside.get("status") == "True":
        return True
    return leaving and conditions.get("DisruptionTarget", {}).get("reason") == "DeletionByTaintManager"


def read_entry(raw: Raw) -> Entry:
    """A FederatedJob, as far as others look at it."""
    spec, metadata = raw.get("spec") or {}, raw["metadata"]
    return Entry(
        sites=frozenset(site["name"] for site in spec.get("sites") or ()),
        since=(metadata.get("creationTimestamp") or "", metadata["name"]),
        turn=_turn(raw),
    )


def _turn(raw: Raw) -> Literal["holds", "waits", ""]:
    over = "deletionTimestamp" in raw["metadata"] or any(
        condition(raw, end)[0] == "True" for end in ("Complete", "Failed")
    )
    if over:
        return ""
    begun = int(((raw.get("status") or {}).get("server") or {}).get("run") or 0) > 0
    if begun and condition(raw, "Admitted")[1] not in _WITHOUT_PODS:
        return "holds"
    refused = not begun and condition(raw, "Accepted")[0] == "False"
    return "" if refused or (raw.get("spec") or {}).get("suspend") else "waits"


def read_site(raw: Raw) -> Site:
    """A FederatedSite."""
    spec = raw.get("spec") or {}
    return Site(
        name=raw["metadata"]["name"],
        approved=bool(spec.get("approved")),
        namespace=(spec.get("local") or {}).get("namespace") or "",
        allowed=tuple(spec.get("allowedNamespaces") or ()),
    )


def read_site_job(raw: Raw) -> SiteJob:
    """A SiteJob, seen from the hub. What the site judged of an older spec, or ran of an older attempt, does not count."""
    status, spec = raw.get("status") or {}, raw.get("spec") or {}
    this_spec = status.get("observedGeneration") == raw["metadata"].get("generation")
    this_attempt = status.get("attempt") == (spec.get("job") or {}).get("attempt")
    accepted, running, finished = (condition(raw, kind) for kind in ("Accepted", "Running", "Finished"))
    return SiteJob(
        site=label(raw, SITE_LABEL),
        namespace=raw["metadata"]["namespace"],
        name=raw["metadata"]["name"],
        uid=raw["metadata"]["uid"],
        accepted=accepted
        if this_spec or accepted[0] == "True"
        else _UNKNOWN,  # a consent is taken back by a refusal alone
        running=running if this_attempt or running[0] != "True" else _UNKNOWN,
        finished=finished if this_attempt or finished[0] != "True" else _UNKNOWN,
        restarts=int(status.get("restarts") or 0),
        forgiven=int((spec.get("restarts") or {}).get("forgiven") or 0),
    )
