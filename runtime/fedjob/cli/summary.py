"""The table at the end of a run, for any width of a terminal, any number of sites and of metrics.

What does not fit beside each other is turned (a row per metric), or stands below each other; what is left out is counted, and is in
the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from fedjob.api.limits import SUMMARY_SITES, SUMMARY_VALUES
from fedjob.outcome import Outcome, SiteOutcome
from fedjob.quantities import count_text, metric_text, name_text, names_text, plural
from fedjob.screen import Harmless

_GLOBAL = "global"
_FRAME = 3  # of rich's box: a line and two blanks for each column
_LINES = 66  # of all tables together, about
_IN_TROUBLE = frozenset({"Lost", "Refused", "Declined"})


@dataclass(frozen=True)
class Column:
    """A column of the table as people read it: a cell for each shown site, and one for the whole."""

    name: str
    cells: tuple[str, ...]
    overall: str = ""

    @property
    def width(self) -> int:
        """In cells of a terminal, without its frame."""
        return max(map(cell_len, (self.name, *self.cells, self.overall)))


@dataclass(frozen=True)
class Summary:
    """What came of a run: a row per site and a last row "global", laid out when the width is known."""

    outcome: Outcome

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich prints."""
        for table in tables(self.outcome, options.max_width):
            yield Harmless(table)
        for line in notes(self.outcome, options.max_width):
            yield Harmless(Text(line, style="dim"))


def tables(outcome: Outcome, width: int) -> list[Table]:
    """One table where all fits into `width` cells; else a turned one, or several."""
    return _laid_out(outcome, width)[0]


def notes(outcome: Outcome, width: int) -> Iterator[str]:
    """What the tables do not say: which model was scored, and what was left out."""
    if outcome.metric_names:
        older = (
            f" {names_text(outcome.older_scores)} missed it: scores of an older one." if outcome.older_scores else ""
        )
        yield f"Metrics score {outcome.scored_model}.{older}"
    left = [
        plural(n, noun) for n, noun in ((_hidden_sites(outcome), "site"), (_laid_out(outcome, width)[1], "value")) if n
    ]
    if left:
        yield f"Left out here: {' and '.join(left)}; the report has more, history.jsonl and metrics.jsonl have all."


def _laid_out(outcome: Outcome, width: int) -> tuple[list[Table], int]:
    """The tables, and how many metrics and logged keys are in none."""
    longest = max(min(width // 3, 24), 8)
    names = Column("site", tuple(name_text(site.name, longest) for site in shown_sites(outcome)), _GLOBAL)
    columns, values = _columns(outcome, longest)
    most = len(columns) - values + SUMMARY_VALUES.value
    upright, turned = _beside(names, columns[:most], width), _beside(*_turned(names, columns[:most]), width)
    if len(upright) == 1 or _height(upright) <= _height(turned):
        fitting = upright[
            : max(_LINES // _height(upright[:1]), 2)
        ]  # the second has a metric, where the first has no room
        left = len(columns) - sum(len(part) - 1 for part in fitting)
    else:
        fitting, left = turned, len(columns[most:])
    return [_table(outcome if part is fitting[0] else None, part) for part in fitting], left


def _beside(first: Column, columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns of each table, `first` in all of them: as many as fit beside each other."""
    parts = [[first]]
    for column in columns:
        if _room([*parts[-1], column]) > width and len(parts[-1]) > 1:
            parts.append([first])
        parts[-1].append(column)
    return parts


def _height(parts: Sequence[Sequence[Column]]) -> int:
    """Lines of a screen that these tables take."""
    return sum(len(part[0].cells) + 6 for part in parts)


def shown_sites(outcome: Outcome) -> list[SiteOutcome]:
    """The sites that have a row: all, or those in trouble first; in the order of the job."""
    most = SUMMARY_SITES.value
    if len(outcome.sites) <= most:
        return list(outcome.sites)
    ranked = sorted(range(len(outcome.sites)), key=lambda at: (not _in_trouble(outcome.sites[at]), at))
    return [outcome.sites[at] for at in sorted(ranked[:most])]


def _hidden_sites(outcome: Outcome) -> int:
    return len(outcome.sites) - len(shown_sites(outcome))


def _in_trouble(site: SiteOutcome) -> bool:
    return bool(site.missed) or site.status.state in _IN_TROUBLE


def _columns(outcome: Outcome, longest: int) -> tuple[list[Column], int]:
    """All columns but the sites' names, the most widely sent metrics first; and how many of them are metrics and logged keys."""
    sites, rounds, metrics = shown_sites(outcome), len(outcome.rounds), outcome.metric_names
    examples = tuple(count_text(site.examples) if site.examples else "" for site in sites)
    contributed = tuple(f"{site.contributed}/{rounds}" for site in sites)
    values = [
        Column(name_text(name, longest), tuple(_cell(s.metrics, name) for s in sites), _cell(outcome.metrics, name))
        for name in metrics
    ]
    for key in outcome.logged_keys:
        named = f"{key} (logged)" if key in metrics else key
        values.append(Column(name_text(named, longest), tuple(_cell(s.logged, key) for s in sites)))
    return [
        Column("examples", examples, count_text(outcome.examples)),
        Column("rounds", contributed, f"{rounds}/{outcome.total_rounds}"),
        *values,
    ], len(values)


def _room(columns: Sequence[Column]) -> int:
    return sum(column.width + _FRAME for column in columns) + 1


def _turned(names: Column, columns: Sequence[Column]) -> tuple[Column, list[Column]]:
    """Rows for columns: one of the names of the values; one for each site, and the last for the whole."""
    sites = [Column(name, tuple(column.cells[at] for column in columns)) for at, name in enumerate(names.cells)]
    overall = Column(names.overall, tuple(column.overall for column in columns))
    return Column("", tuple(column.name for column in columns)), [*sites, overall]


def _table(outcome: Outcome | None, columns: Sequence[Column]) -> Table:
    """A table of rich. outcome: gives the title, None where the table goes on."""
    title = Text(outcome.status.job.name) if outcome else None
    table = Table(title=title, title_justify="left", header_style="bold")
    for at, column in enumerate(columns):
        table.add_column(Text(column.name), justify="right" if at else "left", overflow="ellipsis", no_wrap=True)
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
    if columns[0].overall:
        table.add_section()
        table.add_row(*(Text(column.overall) for column in columns), style="bold")
    return table


def _cell(values: Mapping[str, float], name: str) -> str:
    return metric_text(values[name]) if name in values else ""
