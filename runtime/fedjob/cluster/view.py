"""A job on a cluster, for people: how far it is, what each site does, what stands in the way and what to do about it.  PURE

Functions from a FederatedJob, as the API server has it, to text. No fact is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..api.reasons import JOB_CONDITIONS, SITE_JOB_CONDITIONS, Condition
from ..quantities import bytes_text, count_text, seconds_text
from ..text import one_line

Raw = Mapping[str, Any]

_BAD_WHEN_TRUE: Final = frozenset({"Degraded", "Failed"})
# Not the cause of anything: a stage that has not come yet, or follows from what another condition says.
_QUIET: Final = frozenset({
    "NotAccepted", "NotStarted", "NotFinished", "Waiting", "Finished", "Issuing", "Pending", "AllSites", "Complete", "Failed",
})  # fmt: skip
_STYLES: Final[Mapping[str, str]] = {
    "Complete": "green", "Training": "cyan", "Starting": "cyan", "Running": "cyan", "Finished": "green", "Answered": "green",
    "Suspended": "yellow", "Suspending": "yellow", "Pending": "yellow", "Restarting": "yellow", "Waiting": "dim",
}  # fmt: skip
_METRICS = 4


@dataclass(frozen=True)
class Obstacle:
    """A condition that keeps the job from going on, and what to do about it ("": nothing)."""

    kind: str
    reason: str
    message: str
    remedy: str

    @property
    def text(self) -> str:
        """One line."""
        return ": ".join(part for part in (self.kind, self.reason, self.message) if part)


def obstacles(job: Raw) -> list[Obstacle]:
    """What stands in the way, in the order of a job's stages."""
    found = []
    for condition in (job.get("status") or {}).get("conditions") or ():
        kind, reason = condition["type"], condition["reason"]
        bad = "True" if kind in _BAD_WHEN_TRUE else "False"
        if kind == "Complete" or condition["status"] != bad or reason in _QUIET:
            continue
        if reason == "WaitingForSites" and not _ready(job):
            continue  # no site can be there before the server is
        found.append(Obstacle(kind, reason, one_line(condition.get("message") or ""), remedy(kind, reason)))
    said = {obstacle.message for obstacle in found}
    for told in _progress(job).get("conditions") or ():  # what its server says of itself
        message = one_line(told.get("message") or "")
        if message not in said and _progress(job).get("state") == "Running":
            found.append(Obstacle(told["type"], told.get("reason") or "", message, ""))
    return found


def remedy(kind: str, reason: str, conditions: Mapping[str, Condition] = JOB_CONDITIONS) -> str:
    """What to do about a reason of a condition; "" if there is nothing to do, or the reason is of a newer version."""
    found = conditions[kind].reasons.get(reason) if kind in conditions else None
    return found.remedy if found else ""


def _ready(job: Raw) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "ServerReady" and c["status"] == "True" for c in conditions)


def line(job: Raw) -> str:
    """The job in one line, for a log."""
    status, progress = job.get("status") or {}, _progress(job)
    facts = [str(status.get("state") or "Pending"), _round_text(job)]
    if text := (status.get("siteSummary") or {}).get("text"):
        facts.append(f"sites {text}")
    facts += [f"{name} {value}" for name, value in _metrics(job)]
    if eta := progress.get("etaSeconds"):
        facts.append(f"eta {seconds_text(eta)}")
    return "  ".join(facts)


def lines(before: Raw | None, now: Raw) -> list[str]:
    """What has changed between two looks at a job, one line each."""
    known = {obstacle.text for obstacle in obstacles(before)} if before is not None else set()
    told = [] if before is not None and _gist(before) == _gist(now) else [line(now)]
    told += [obstacle.text for obstacle in obstacles(now) if obstacle.text not in known]
    old = {site["name"]: _standing(site) for site in _sites(before or {})}
    return told + [
        f"site {site['name']} {_standing(site)}" for site in _sites(now) if old.get(site["name"]) != _standing(site)
    ]


def _gist(job: Raw) -> tuple[Any, ...]:
    return (job.get("status") or {}).get("state"), _progress(job).get("completedRounds"), _metrics(job)


def render(job: Raw) -> RenderableType:
    """The whole view."""
    parts: list[RenderableType] = [_headline(job), _round_bar(job)]
    if facts := _facts(job):
        parts.append(facts)
    if sites := _sites(job):
        parts += [Text(""), _site_table(sites), *_site_remedies(sites)]
    if found := obstacles(job):
        parts += [Text(""), *(_obstacle(obstacle) for obstacle in found)]
    return Group(*parts)


def _headline(job: Raw) -> Text:
    status, metadata = job.get("status") or {}, job["metadata"]
    state = str(status.get("state") or "Pending")
    text = Text.assemble((metadata["name"], "bold"), "  ", (state, _STYLES.get(state, "bold red")))
    text.append(f"  namespace {metadata['namespace']}", style="dim")
    if (attempt := status.get("attempt") or 1) > 1:
        text.append(f"  attempt {attempt}", style="yellow")
    if restarts := (status.get("server") or {}).get("restarts"):
        text.append(f"  server restarted {restarts} ×", style="yellow")
    return text


def _round_text(job: Raw) -> str:
    rounds = _progress(job).get("totalRounds") or job["spec"]["workflow"]["rounds"]
    return f"round {_progress(job).get('completedRounds') or 0}/{rounds}"


def _round_bar(job: Raw) -> RenderableType:
    progress = _progress(job)
    total = progress.get("totalRounds") or job["spec"]["workflow"]["rounds"]
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    timing = []
    if seconds := float(progress.get("lastRoundSeconds") or 0):
        timing.append(f"last round {seconds_text(seconds)}")
    if eta := progress.get("etaSeconds"):
        timing.append(f"eta {seconds_text(eta)}")
    bar = ProgressBar(total=max(total, 1), completed=progress.get("completedRounds") or 0, complete_style="cyan")
    row.add_row(_round_text(job), bar, "  ".join(timing))
    return row


def _facts(job: Raw) -> Text | None:
    progress, text = _progress(job), Text()
    for name, value in _metrics(job):
        text.append(f"{name} ", style="dim").append(value, style="bold").append("  ")
    for name, key in (("in", "bytesIn"), ("out", "bytesOut")):
        if progress.get(key):
            text.append(f"{name} ", style="dim").append(bytes_text(progress[key])).append("  ")
    text.rstrip()
    return text if text else None


def _site_table(sites: list[Raw]) -> Table:
    """A row for each site; columns that no site has anything for are left out."""
    restarts, examples = any(site.get("restarts") for site in sites), any(site.get("examples") for site in sites)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("site", no_wrap=True)
    table.add_column("state", no_wrap=True)
    if examples:
        table.add_column("examples", justify="right", no_wrap=True)
    if restarts:
        table.add_column("restarts", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for site in sites:
        state = _state(site)
        cells = [Text(site["name"]), Text(state, style=_STYLES.get(state, "bold red"))]
        if examples:
            cells.append(Text(count_text(site["examples"]) if site.get("examples") else ""))
        if restarts:
            cells.append(Text(str(site["restarts"]) if site.get("restarts") else "", style="yellow"))
        table.add_row(*cells, Text(_why(site)))
    return table


def _site_remedies(sites: Sequence[Raw]) -> list[Text]:
    """What to do about sites that do not run, a line for each reason."""
    troubled: dict[str, list[str]] = {}
    for site in sites:
        if site.get("state") != "Running" and site.get("reason"):
            troubled.setdefault(site["reason"], []).append(site["name"])
    return [
        Text(f"  → {', '.join(names[:4])}{' …' if len(names) > 4 else ''}: {text}", style="cyan")
        for reason, names in troubled.items()
        if (text := next(filter(None, (remedy(kind, reason, SITE_JOB_CONDITIONS) for kind in SITE_JOB_CONDITIONS)), ""))
    ]


def _standing(site: Raw) -> str:
    why = _why(site)
    return _state(site) + (f": {why}" if why else "")


def _state(site: Raw) -> str:
    """What the site does in the round, if its script runs; else where its pods stand."""
    state = str(site.get("state") or "Pending")
    return str(site.get("training") or state) if state == "Running" else state


def _why(site: Raw) -> str:
    if site.get("state") == "Running":
        return one_line(site.get("trainingMessage") or "")
    reason = site.get("reason") or ""
    if reason in ("", "NotStarted", "Pending", "Suspended", "Succeeded") and not site.get("message"):
        return ""
    return one_line(": ".join(part for part in (reason, site.get("message") or "") if part))


def _obstacle(obstacle: Obstacle) -> Text:
    text = Text.assemble((obstacle.kind, "bold"), ": ", (obstacle.reason, "bold red"))
    if obstacle.message:
        text.append(f": {obstacle.message}")
    if obstacle.remedy:
        text.append(f"\n  → {obstacle.remedy}", style="cyan")
    return text


def _progress(job: Raw) -> Raw:
    return (job.get("status") or {}).get("progress") or {}


def _metrics(job: Raw) -> list[tuple[str, str]]:
    found: Iterator[Raw] = iter((job.get("status") or {}).get("metrics") or ())
    return [(one_line(metric["name"]), one_line(metric.get("value") or "")) for metric in found][:_METRICS]


def _sites(job: Raw) -> list[Raw]:
    return list((job.get("status") or {}).get("sites") or ())
