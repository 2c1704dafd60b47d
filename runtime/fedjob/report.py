"""report.html: a run on one page that needs no network, now or in ten years.

The page carries plotly's script itself and a policy that lets the browser load nothing from anywhere. What users
named or wrote (sites, metrics, messages) is escaped by jinja in the page and by `charts` in the figures, and made harmless for
eyes (`text`) in both.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedjob import charts
from fedjob.api.limits import REPORT_NAMES
from fedjob.charts import Chart
from fedjob.outcome import Outcome, SiteOutcome, read_outcome
from fedjob.quantities import bytes_text, count_text, metric_text, plural, round_text, seconds_text, share_text
from fedjob.records import HISTORY_FILE, METRICS_FILE, RoundRecord
from fedjob.text import lines

REPORT_FILE = "report.html"

_METRIC_TILES = 4
_TRAVEL_NOTE = (
    "The table is the mean of a round, to the site and back: as spec.model.exchange chose it, and what it would have been. "
    "Sending differences (params: Diff) saves no bytes; it saves precision on a narrow wire."
)


@dataclass(frozen=True)
class Tile:
    """One figure of the headline: what it is, its value, and a remark below."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with its charts. travel: followed by the table of what travelled."""

    title: str
    note: str
    charts: tuple[Chart, ...]
    travel: bool = False


def build(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, complete or not, and return its path.

    The file is replaced as a whole. Raises ValueError, naming the file, if a file of the run is broken, and OSError.
    """
    page = render(read_outcome(run_folder), _job_file(run_folder))
    target = run_folder / REPORT_FILE
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    return target


def render(outcome: Outcome, job_file: str = "") -> str:
    """The page's HTML. job_file: text of the job as it ran, shown at the end."""
    # Here and not above: the command line imports this module for `fedjob run`, and these take half a second.
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("fedjob", "."),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": bytes_text,
        "seconds": seconds_text,
        "metric": metric_text,
        "count": count_text,
        "plural": plural,
        "share": share_text,
    }
    return environment.get_template("report.html.j2").render(
        outcome=outcome,
        status=outcome.status,
        tiles=_tiles(outcome),
        sections=_sections(outcome),
        rounds=[_round_row(outcome, record) for record in outcome.records],
        sites=outcome.sites,
        metrics=outcome.metric_names[: REPORT_NAMES.value],
        keys=outcome.logged_keys[: REPORT_NAMES.value],
        troubled=[site for site in outcome.sites if site.status.message],
        refusals=any(site.refused for site in outcome.sites),
        restarts=any(site.status.restarts for site in outcome.sites),
        updated=_time_text(outcome.status.updated_at),
        missed=_missed_text,
        job_file=job_file,
        plotly=get_plotlyjs(),
    )


def _harmless(value: object) -> object:
    """What the template prints: text without control characters, markup as it is."""
    return lines(value) if type(value) is str else value


def _job_file(run_folder: Path) -> str:
    try:
        return (run_folder / "job.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _tiles(outcome: Outcome) -> list[Tile]:
    done = len(outcome.rounds)
    absent = sum(not site.contributed for site in outcome.sites)
    traffic = outcome.bytes_in + outcome.bytes_out
    tiles = [
        Tile(name, metric_text(value), _first_score(outcome, name))
        for name, value in list(outcome.metrics.items())[:_METRIC_TILES]
    ]
    tiles.append(Tile("Rounds", f"{done} of {outcome.total_rounds}"))
    tiles.append(Tile("Sites", str(len(outcome.sites)), f"{absent} never contributed" if absent else "all contributed"))
    if outcome.records:
        tiles.append(Tile("Time in rounds", seconds_text(outcome.seconds), _mean_round(outcome)))
    if traffic:
        ways = f"in {bytes_text(outcome.bytes_in)}, out {bytes_text(outcome.bytes_out)}"
        tiles.append(Tile("Traffic", bytes_text(traffic), ways))
    return tiles


def _first_score(outcome: Outcome, metric: str) -> str:
    first = next((record for record in outcome.rounds if metric in record.metrics), None)
    return f"{metric_text(first.metrics[metric])} at {round_text(first.round)}" if first else ""


def _mean_round(outcome: Outcome) -> str:
    if not outcome.rounds:
        return ""
    return f"{seconds_text(sum(each.seconds for each in outcome.rounds) / len(outcome.rounds))} a round"


def _sections(outcome: Outcome) -> list[Section]:
    scored = "Each value scores the global model that the round started from"
    scored += "; the last one scores the final model." if outcome.evaluation else "."
    sections = [
        Section("Scores", scored + _left_out(outcome.metric_names, HISTORY_FILE), _rows(charts.score_charts(outcome))),
        Section(
            "Logged by the scripts", _left_out(outcome.logged_keys, METRICS_FILE), _rows(charts.logged_charts(outcome))
        ),
        Section("Time and traffic", "", _rows([*charts.time_charts(outcome), *charts.traffic_charts(outcome)])),
        Section("What travelled", _TRAVEL_NOTE, tuple(charts.saving_charts(outcome)), travel=True),
    ]
    return [section for section in sections if section.charts]


def _left_out(names: Sequence[str], file: str) -> str:
    """What the page says of names that have no chart."""
    more = len(names) - REPORT_NAMES.value
    return f" {plural(more, 'further name')} that fewer sites sent: in {file}." if more > 0 else ""


def _rows(drawn: Sequence[Chart]) -> tuple[Chart, ...]:
    """Charts in rows of two, then the wide ones; one that would stand alone beside an empty half becomes wide."""
    beside = [each for each in drawn if not each.wide]
    if len(beside) % 2:
        beside[-1] = replace(beside[-1], wide=True)
    return (*beside, *(each for each in drawn if each.wide))


def _round_row(outcome: Outcome, record: RoundRecord) -> dict[str, Any]:
    return {
        "label": str(record.round + 1) if record.kind == "Train" else "final evaluation",
        "record": record,
        "of": len(record.contributors) + len(record.missing),
        "missing": [(missing.site, missing.reason, missing.message) for missing in record.missing],
        "everyone": len(record.contributors) == len(outcome.sites),
    }


def _missed_text(site: SiteOutcome) -> str:
    return ", ".join(f"{reason} × {count}" if count > 1 else reason for reason, count in site.missed.items())


def _time_text(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else ""
