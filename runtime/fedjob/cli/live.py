"""A run while it runs: a live view in a terminal, plain lines everywhere else; and the table at its end.

Everything here is a function from one or two `Status` values to text. Only `watch` knows of time and terminals.
Colours go through rich, which honours NO_COLOR; no fact is told by colour alone.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedjob.causes import DEATHS, cause
from fedjob.cli.summary import Summary
from fedjob.outcome import read_outcome
from fedjob.quantities import (
    bytes_text,
    count_text,
    metric_text,
    name_text,
    names_text,
    plural,
    rate_text,
    seconds_text,
)
from fedjob.records import SiteState, SiteStatus, Status
from fedjob.screen import Harmless
from fedjob.screen import console as filtered
from fedjob.text import one_line

Latest = Callable[[], Status | None]

_REFRESH_SECONDS = 0.2  # the server writes its status at most this often
_RATE_WINDOW_SECONDS = 5.0  # long enough to be calm, short enough to show a stall
_SILENT_SECONDS = 5.0  # without news for this long, the view says so
_SITES_IN_FULL = 16  # more than these are summed up, whatever the terminal's height
_METRICS_IN_HEAD = 4
_NOTES = 4

_JOB_STYLE: Mapping[str, str] = {
    "Starting": "cyan",
    "Running": "cyan",
    "Complete": "green",
    "Failed": "bold red",
    "Interrupted": "yellow",
}
_SITE_STYLE: Mapping[str, str] = {
    "Absent": "dim",
    "Waiting": "dim",
    "Downloading": "cyan",
    "Training": "blue",
    "Uploading": "magenta",
    "Answered": "green",
    "Declined": "yellow",
    "Refused": "red",
    "Lost": "bold red",
    "Left": "dim",
}
_ORDER: tuple[SiteState, ...] = (
    "Lost", "Refused", "Declined", "Absent", "Downloading", "Training", "Uploading", "Answered", "Waiting", "Left",
)  # fmt: skip


@contextmanager
def showing(latest: Latest, console: Console | None = None) -> Iterator[None]:
    """Show a run while the body of the `with` drives it, and show its last status at the end."""
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch_while_heard, args=(latest, stop, console or filtered()), name="live-view", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch_while_heard(latest: Latest, stop: threading.Event, console: Console) -> None:
    """Watch, until nobody takes what is printed: the job goes on all the same."""
    with suppress(OSError):
        watch(latest, stop, console)


def watch(latest: Latest, stop: threading.Event, console: Console) -> Status | None:
    """Show what `latest` returns until the job has ended or `stop` is set; the status shown last is returned.

    latest: the newest status, or None while there is none; called about five times a second.
    """
    return (_watch_terminal if console.is_terminal else _watch_plain)(latest, stop, console)


def _watch_plain(latest: Latest, stop: threading.Event, console: Console) -> Status | None:
    shown: Status | None = None
    stopped = False
    while True:
        current = latest()
        if current is not None:
            for line in lines(shown, current):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            shown = current
        if stopped or (shown is not None and shown.ended):
            return shown
        stopped = stop.wait(_REFRESH_SECONDS)  # once more after the stop: the last status comes late


def _watch_terminal(latest: Latest, stop: threading.Event, console: Console) -> Status | None:
    recent: deque[Status] = deque()
    stopped = False
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as view:
        while True:
            current = latest()
            if current is not None and (not recent or current.updated_at != recent[-1].updated_at):
                recent.append(current)
            while recent and recent[-1].updated_at - recent[0].updated_at > _RATE_WINDOW_SECONDS:
                recent.popleft()
            view.update(
                Harmless(render(recent, now=time.time(), height=console.height, width=console.width)), refresh=True
            )
            if stopped or (recent and recent[-1].ended):
                return recent[-1] if recent else None
            stopped = stop.wait(_REFRESH_SECONDS)


# ---------------------------------------------------------------- plain lines


def lines(previous: Status | None, current: Status) -> list[str]:
    """What happened between two statuses, one line each: the job, its sites, and the rounds that were completed."""
    told = (_job_began, _condition_lines, _site_lines, _round_lines, _job_ended)
    return [one_line(line) for part in told for line in part(previous, current)]


def _job_began(previous: Status | None, current: Status) -> list[str]:
    if current.ended or (previous is not None and previous.state == current.state):
        return []
    facts = [f"job {current.job.name} {current.state.lower()}"]
    if previous is None:
        facts += [plural(current.progress.total_rounds, "round"), plural(len(current.sites), "site")]
        if current.job.attempt > 1:
            facts.append(f"attempt {current.job.attempt}")
    return ["  ".join([*facts, *_why(current)])]


def _job_ended(previous: Status | None, current: Status) -> list[str]:
    if not current.ended or (previous is not None and previous.state == current.state):
        return []
    why = [] if current.state == "Failed" else _why(current)  # the command's last line says why
    return ["  ".join([f"job {current.job.name} {current.state.lower()}", *why])]


def _why(status: Status) -> list[str]:
    return [": ".join(part for part in (status.reason, status.message) if part)] if status.reason else []


def _condition_lines(previous: Status | None, current: Status) -> list[str]:
    before = set(previous.conditions) if previous else set()
    began = [each.text for each in current.conditions if each not in before]
    over = {each.type for each in before} - {each.type for each in current.conditions}
    return began + [f"{name} is over" for name in sorted(over)]


def _round_lines(previous: Status | None, current: Status) -> list[str]:
    before = previous.progress.completed_rounds if previous else 0
    progress = current.progress
    if progress.completed_rounds <= before:
        return []
    told = []
    if (recalled := progress.recalled_rounds) > before:
        which = "round 1 of {} is" if recalled == 1 else f"rounds 1-{recalled} of {{}} are"
        told, before = [f"{which.format(progress.total_rounds)} complete already"], recalled
    if progress.completed_rounds <= before:
        return told
    first = before + 1
    # Rounds shorter than the status is refreshed come several at once, and a view may join a run under way.
    several = first < progress.completed_rounds and previous is not None
    number = f"rounds {first}-{progress.completed_rounds}" if several else f"round {progress.completed_rounds}"
    facts = [f"{number}/{progress.total_rounds}"]
    facts += [f"{name} {metric_text(value)}" for name, value in _first(current.metrics)]
    facts.append(f"sites {progress.contributors}/{len(current.sites)}")
    facts.append(seconds_text(progress.last_round_seconds))
    if progress.eta_seconds is not None and progress.completed_rounds < progress.total_rounds:
        facts.append(f"eta {seconds_text(progress.eta_seconds)}")
    return [*told, "  ".join(facts)]


def _site_lines(previous: Status | None, current: Status) -> list[str]:
    """Changes of sites, those that happened to many at once in one line."""
    before = {site.name: site for site in previous.sites} if previous else {}
    changes: dict[str, list[str]] = {}
    for site in current.sites:
        for change in _changes(before.get(site.name, SiteStatus(site.name)), site, current.ended):
            changes.setdefault(change, []).append(site.name)
    return [
        f"site {names[0]} {change}" if len(names) == 1 else f"{len(names)} sites {change}: {names_text(names)}"
        for change, names in changes.items()
    ]


def _changes(before: SiteStatus, now: SiteStatus, ended: bool) -> Iterator[str]:
    """What a site has come to; not the death of its script, which the runner tells in a line of its own, with its log."""
    if now.state == before.state:
        return
    if now.state in ("Lost", "Refused", "Declined") or (now.state == "Left" and not ended):
        died = now.message.startswith(DEATHS) or (now.state == "Lost" and now.restarts > before.restarts)
        if not died:
            yield now.state.lower() + (f": {cause(now.message)}" if now.message else "")
    elif before.state == "Absent" and now.state != "Left":
        yield "connected"
    elif before.state == "Lost" and now.state not in ("Absent", "Left"):
        yield "back"


def _first(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name_text(name), value) for name, value in list(metrics.items())[:_METRICS_IN_HEAD]]


# ---------------------------------------------------------------- the view in a terminal


def render(recent: Sequence[Status], *, now: float, height: int = 40, width: int = 80) -> RenderableType:
    """The view of the newest of `recent`, whose oldest gives the transfer rates.

    now: seconds since the epoch. height, width: of the terminal, in lines and cells; sites that do not fit are summed up.
    """
    if not recent:
        return Text("Waiting for the server to start …", style="dim")
    status = recent[-1]
    parts: list[RenderableType] = [_headline(status, now), _round_bar(status), _facts(recent)]
    if status.sites:
        in_full = len(status.sites) <= min(_SITES_IN_FULL, max(height - 5 - _NOTES, 1))
        parts += [Text(""), *([_site_table(status.sites, width)] if in_full else _summary(status, height, width))]
        if notes := _notes(status)[:_NOTES]:
            parts += [Text(""), *notes]
    return Group(*parts)


def _headline(status: Status, now: float) -> RenderableType:
    line = Text.assemble((status.job.name, "bold"), "  ", (status.state, _JOB_STYLE.get(status.state, "")))
    if status.job.attempt > 1:
        line.append(f"  attempt {status.job.attempt}", style="yellow")
    silent = now - status.updated_at
    if not status.ended and silent > _SILENT_SECONDS:
        line.append(f"  no news from the server for {seconds_text(silent)}", style="yellow")
    for why in [] if status.state == "Failed" else _why(status):  # the command's last line says why
        line.append(f"\n{why}", style=_JOB_STYLE.get(status.state, ""))
    for condition in status.conditions:
        line.append(f"\n{condition.text}", style="bold yellow")
    return line


def _round_bar(status: Status) -> RenderableType:
    progress = status.progress
    answered = sum(site.state == "Answered" for site in status.sites)
    # Within a round, the bar moves with the answers: they are facts, unlike a guess from the last round's time.
    within = answered / len(status.sites) if status.state == "Running" and status.sites else 0.0
    done = min(progress.completed_rounds + within, progress.total_rounds)
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    style = "green" if status.state == "Complete" else "cyan"
    bar = ProgressBar(total=max(progress.total_rounds, 1), completed=done, complete_style=style, finished_style="green")
    row.add_row(f"round {progress.completed_rounds}/{progress.total_rounds}", bar, _timing(status))
    return row


def _timing(status: Status) -> str:
    progress = status.progress
    if status.ended:
        return f"last round {seconds_text(progress.last_round_seconds)}" if progress.completed_rounds else ""
    this_round = f"this round {seconds_text(progress.round_elapsed_seconds)}"
    if progress.eta_seconds is None:
        return this_round
    return f"{this_round}  eta {seconds_text(progress.eta_seconds)}"


def _facts(recent: Sequence[Status]) -> RenderableType:
    oldest, status = recent[0], recent[-1]
    line = Text()
    for name, value in _first(status.metrics):
        line.append(f"{name} ", style="dim").append(metric_text(value), style="bold").append("  ")
    if (more := len(status.metrics) + status.metrics_left_out - _METRICS_IN_HEAD) > 0:
        line.append(f"and {more} more  ", style="dim")
    elapsed = status.updated_at - oldest.updated_at
    for name, count, before in (
        ("in", status.bytes.in_, oldest.bytes.in_),
        ("out", status.bytes.out, oldest.bytes.out),
    ):
        line.append(f"{name} ", style="dim").append(bytes_text(count))
        if elapsed > 0 and not status.ended:
            line.append(f" ({rate_text(max(count - before, 0) / elapsed)})", style="dim")
        line.append("  ")
    line.rstrip()
    return line


def _site_table(sites: Sequence[SiteStatus], width: int) -> Table:
    """One row per site; a column that no site has anything for, or that `width` has no room for, is left out."""
    metric = next((name for site in sites for name in site.metrics), None)
    longest = 24 if width >= 84 else 17
    room = width - longest - 29  # state and transfer
    wanted = {"restarts": any(site.restarts for site in sites), "examples": True, "metric": metric is not None}
    for name, needed in (("restarts", 10), ("examples", 10), ("metric", 14)):
        wanted[name] = wanted[name] and room >= needed
        room -= needed * wanted[name]
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    table.add_column("site", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=11)
    table.add_column("transfer", no_wrap=True, min_width=14)
    headers = {"examples": "examples", "metric": name_text(metric or "", 12), "restarts": "restarts"}
    shown = [name for name in headers if wanted[name]]
    for name in shown:
        table.add_column(Text(headers[name]), justify="right", no_wrap=True)
    for site in sites:
        facts: dict[str, RenderableType] = {
            "examples": count_text(site.examples) if site.examples else "",
            "metric": metric_text(site.metrics[metric]) if metric is not None and metric in site.metrics else "",
            "restarts": Text(str(site.restarts), style="yellow") if site.restarts else "",
        }
        cells = [
            Text(name_text(site.name, longest)),
            _state_text(site.state),
            _transfer(site),
            *(facts[name] for name in shown),
        ]
        table.add_row(*cells)
    return table


def _notes(status: Status) -> list[RenderableType]:
    """The sites' messages, below their table: beside it, 80 columns would leave them eight characters.

    Each once, and none that the reason of a failed job repeats.
    """
    names: dict[tuple[SiteState, str], list[str]] = {}
    for site in status.sites:
        if site.message and not (status.state == "Failed" and cause(site.message) in status.message):
            names.setdefault((site.state, cause(site.message)), []).append(site.name)
    return [
        Text.assemble(f"{names_text(each)} ", _state_text(state), f": {message}")
        for (state, message), each in names.items()
    ]


def _state_text(state: SiteState) -> Text:
    return Text(state.lower(), style=_SITE_STYLE.get(state, ""))


def _transfer(site: SiteStatus) -> RenderableType:
    if not site.total_bytes or site.state not in ("Downloading", "Uploading"):
        return ""
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=site.total_bytes, completed=site.done_bytes, width=8,
                      complete_style=_SITE_STYLE[site.state], finished_style=_SITE_STYLE[site.state])  # fmt: skip
    row.add_row(bar, f"{100 * site.done_bytes // site.total_bytes:3d} %")
    return row


def _summary(status: Status, height: int, width: int) -> list[RenderableType]:
    """Many sites: how many do what, the sum of their transfers, and by name only those that need a look."""
    counts = Counter(site.state for site in status.sites)
    shares = [Text(f"{len(status.sites)} sites")]
    for state in sorted(counts, key=_urgency):
        shares.append(Text(f"{counts[state]} {state.lower()}", style=_SITE_STYLE.get(state, "")))
    parts: list[RenderableType] = [Columns(shares, padding=(0, 3))]
    moving = [site for site in status.sites if site.state in ("Downloading", "Uploading") and site.total_bytes]
    if moving:
        done, total = sum(site.done_bytes for site in moving), sum(site.total_bytes for site in moving)
        parts.append(
            Text(f"{bytes_text(done)} of {bytes_text(total)} in {plural(len(moving), 'transfer')}", style="dim")
        )
    troubled = [site for site in status.sites if site.state in ("Lost", "Refused", "Declined") or site.restarts]
    troubled.sort(key=lambda site: _urgency(site.state))
    room = max(height - 9 - _NOTES, 3)
    if troubled:
        parts += [Text(""), _site_table(troubled[:room], width)]
    if len(troubled) > room:
        parts.append(Text(f"and {len(troubled) - room} more", style="dim"))
    return parts


def _urgency(state: SiteState) -> int:
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)


# ---------------------------------------------------------------- the table at the end


def final_table(run_folder: Path) -> RenderableType:
    """What came of a run: a row per site and a last row "global"; a column per metric and per logged value.

    A site's metrics are its scores of the newest global model that it scored; a note says which model that is.
    Raises ValueError, naming the file, if a file of the run folder is broken.
    """
    return Summary(read_outcome(run_folder))


def saving_text(run_folder: Path) -> str:
    """What `model.exchange` kept from travelling, in one line; "" if nothing."""
    travel = read_outcome(run_folder).travel
    if travel.whole == travel.moved:
        return ""
    choices = [(name, count) for name, count in (("include", travel.include), ("dtype", travel.dtype)) if count]
    names = " and ".join(name for name, _ in choices)
    saved = ", ".join(f"{name} saved {bytes_text(count)}" for name, count in choices)
    return (
        f"{bytes_text(travel.moved)}, {bytes_text(travel.whole)} without {names} ({100 * travel.share:.3g} %): {saved}"
    )
