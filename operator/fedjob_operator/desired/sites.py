"""The sites of a job, seen from the hub: who may take part, who does, who no longer can.  PURE"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedjob.api import JobSpec
from fedjob.quantities import names_text

from ..observed import Observed, Raw, Site, SiteJob
from .conditions import FALSE, TRUE, UNKNOWN, State
from .server import Verdict

_CONNECTED = frozenset({"Waiting", "Downloading", "Training", "Uploading", "Answered", "Declined", "Refused"})
_MAX_NAMED = 8


@dataclass(frozen=True)
class SiteView:
    """One site of a job. state: for people, one word. out: it will take no part again, as far as the hub knows.

    forgiven: restarts that no longer count against its budget. at_round: completed rounds when the last restart was seen.
    """

    name: str
    required: bool
    state: str
    reason: str = ""
    message: str = ""
    restarts: int = 0
    forgiven: int = 0
    at_round: int = 0
    out: bool = False
    connected: bool = False


def admission(spec: JobSpec, namespace: str, sites: Mapping[str, Site]) -> State | None:
    """Why the job cannot be placed: the first site that is missing, not approved or not open to the namespace."""
    there = [sites[entry.name] for entry in spec.sites if entry.name in sites]
    if missing := [entry.name for entry in spec.sites if entry.name not in sites]:
        return State(FALSE, "SiteNotFound", f"{named(missing)}: no FederatedSite of this name")
    if waiting := [site.name for site in there if not site.approved]:
        return State(FALSE, "SiteNotApproved", f"{named(waiting)}: not approved (spec.approved of the FederatedSite)")
    if closed := [site.name for site in there if namespace not in site.allowed]:
        why = f"takes no jobs of namespace {namespace} (spec.allowedNamespaces of the FederatedSite)"
        return State(FALSE, "SiteNotAllowed", f"{named(closed)}: {why}")
    return None


def out_of_reach(spec: JobSpec, seen: Observed) -> State | None:
    """Why the job cannot begin: sites whose namespace does not let the operator in."""
    found = [(entry.name, words) for entry in spec.sites if (words := _forbidden(entry.name, seen))]
    if not found:
        return None
    why = "the site's namespace does not let the operator in (install fedjob-site there with rbac.grant)"
    return State(FALSE, "SiteForbidden", f"{named(name for name, _ in found)}: {why}: {found[0][1]}")


def _forbidden(name: str, seen: Observed) -> str:
    """The API server's words, if a site's namespace does not let the operator in."""
    site = seen.sites.get(name)
    return seen.forbidden.get(site.place(seen.job["metadata"]["namespace"]), "") if site is not None else ""


def open_to(site: Site, namespace: str) -> bool:
    """Whether the hub's administrator lets jobs of `namespace` run at the site."""
    return site.approved and namespace in site.allowed


def views(spec: JobSpec, seen: Observed, completed_rounds: int) -> tuple[SiteView, ...]:
    """Every site of the job, in the order of the spec."""
    there = {site_job.site: site_job for site_job in seen.site_jobs}
    status: Raw = seen.job.get("status") or {}
    before = {entry["name"]: entry for entry in status.get("sites") or ()}
    found = (
        _unseen(site.name, site.required, before.get(site.name) or {}, words)
        if (words := _forbidden(site.name, seen))
        else _view(site.name, site.required, there.get(site.name), before.get(site.name) or {}, spec, completed_rounds)
        for site in spec.sites
    )
    return tuple(_unassigned(view, seen.unassigned.get(view.name, "")) for view in found)


def _unassigned(view: SiteView, why: str) -> SiteView:
    """The view of a site whose SiteJob the API server refuses; what runs there runs on."""
    if not why or view.out or view.state in ("Running", "Finished"):
        return view
    return replace(view, state="Assigning", reason="Forbidden", message=why)


def unjudged(views: Sequence[SiteView], changing: Container[str]) -> tuple[SiteView, ...]:
    """The same, without refusals of sites whose assignment is about to change: they have not judged the new one.

    changing: names of these sites.
    """
    return tuple(
        replace(view, state="Assigned", reason="", message="", out=False)
        if view.state == "Refused" and view.name in changing
        else view
        for view in views
    )


def _view(
    name: str, required: bool, site_job: SiteJob | None, before: Raw, spec: JobSpec, completed_rounds: int
) -> SiteView:
    if site_job is None:
        return SiteView(name, required, "Assigning")
    state, reason, message, out = _standing(site_job)
    forgiven, at_round = _refill(site_job, before, spec.failure_policy.refill_on_rounds, completed_rounds)
    connected = site_job.running[0] == TRUE and before.get("training") in _CONNECTED
    return SiteView(name, required, state, reason, message, site_job.restarts, forgiven, at_round, out, connected)


def _unseen(name: str, required: bool, before: Raw, words: str) -> SiteView:
    """A site whose namespace does not let us in: what was last known of it. Its pods may well go on training."""
    state = str(before.get("state") or "Assigning")
    over = state in ("Failed", "Finished", "Refused")
    return SiteView(
        name,
        required,
        state,
        reason=str(before.get("reason") or "") if over else "SiteForbidden",
        message=str(before.get("message") or "") if over else words,
        restarts=int(before.get("restarts") or 0),
        forgiven=int(before.get("forgiven") or 0),
        at_round=int(before.get("restartRound") or 0),
        out=state in ("Failed", "Refused"),
        connected=state == "Running" and before.get("training") in _CONNECTED,
    )


def _standing(site_job: SiteJob) -> tuple[str, str, str, bool]:
    """State, reason, message, and whether the site is out for good."""
    accepted, running, finished = site_job.accepted, site_job.running, site_job.finished
    if finished[0] == TRUE:
        failed = finished[1] != "Succeeded"
        return ("Failed" if failed else "Finished"), finished[1], finished[2], failed
    if accepted[0] == UNKNOWN:
        return "Assigned", accepted[1], accepted[2], False
    if accepted[0] == FALSE:
        out = accepted[1] in ("Refused", "Denied")
        return ("Refused" if out else "Waiting"), accepted[1], accepted[2], out
    return ("Running" if running[0] == TRUE else "Starting"), running[1], running[2], False


def _refill(site_job: SiteJob, before: Raw, refill_on_rounds: int, completed_rounds: int) -> tuple[int, int]:
    """Restarts are forgiven once the job has moved on since the last one; what was forgiven stays so."""
    restarts = site_job.restarts
    forgiven = max(int(before.get("forgiven") or 0), site_job.forgiven)
    at_round = int(before.get("restartRound") or 0)
    if restarts > int(before.get("restarts") or 0):
        return forgiven, completed_rounds
    if restarts > forgiven and completed_rounds - at_round >= refill_on_rounds:
        return restarts, at_round
    return forgiven, at_round


def ended_by_rule(sites: Sequence[SiteView]) -> Verdict | None:
    """A rule of the failure policy fits how a site's script died, and ends the whole job."""
    for site in sites:
        if site.reason == "JobFailedByRule":
            return Verdict(False, "FailedByRule", f"{site.name}: {site.message}")
    return None


def hopeless(spec: JobSpec, sites: Sequence[SiteView]) -> Verdict | None:
    """The job can no longer end well: a required site is out, or too few are left for the quorum."""
    out = [site for site in sites if site.out]
    for site in out:
        if site.required:
            message = f"{site.name}: {site.reason}: {site.message}"
            return Verdict(False, "RequiredSiteFailed", message)
    left, quorum = len(sites) - len(out), spec.effective_quorum
    if left >= quorum:
        return None
    why = "; ".join(f"{site.name}: {site.reason}: {site.message}" for site in out)
    return Verdict(False, "QuorumUnreachable", f"{left} of {len(sites)} sites are left, {quorum} needed; {why}")


def degraded(sites: Sequence[SiteView]) -> State:
    """The condition Degraded."""
    out = [site for site in sites if site.out]
    if not out:
        return State(FALSE, "AllSites")
    reason = "SiteRefused" if all(site.state == "Refused" for site in out) else "SiteFailed"
    return State(TRUE, reason, "; ".join(f"{site.name}: {site.reason}: {site.message}" for site in out))


def quorum(spec: JobSpec, sites: Sequence[SiteView]) -> State:
    """The condition QuorumReached: who is connected, and why the others are not."""
    connected = [site for site in sites if site.connected]
    needed = spec.effective_quorum
    missing = [site for site in sites if not site.connected]
    text = f"{len(connected)} of {len(sites)} sites connected, {needed} needed"
    if missing:
        text += f"; missing: {named(_why(site) for site in missing)}"
    if len(connected) >= needed and not any(site.required for site in missing):
        return State(TRUE, "Reached", text)
    return State(FALSE, "WaitingForSites", text)


def _why(site: SiteView) -> str:
    return f"{site.name} ({site.reason or site.state}{': ' + site.message[:120] if site.message else ''})"


def named(names: Iterable[str]) -> str:
    """A list for a sentence, cut at eight entries."""
    return names_text(list(names), _MAX_NAMED)
