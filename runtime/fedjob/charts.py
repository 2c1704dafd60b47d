"""The report's charts, as plain plotly figures: a dict of `data` and `layout` each.

Plain dicts and not plotly's Figure classes: they need no import, which is slow; the tests validate them with plotly.
A colour is the name of a CSS variable ("--site-0"), resolved by the page, so that one palette serves light and dark.
Names that come from users are escaped here: plotly would render a subset of HTML in them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean
from typing import Any

from fedjob.api.limits import REPORT_NAMES
from fedjob.outcome import Outcome
from fedjob.quantities import binary_unit, bytes_text, names_text, plural, seconds_text
from fedjob.records import LoggedValue, SiteRound
from fedjob.text import one_line

_COLOURED_SITES = 7  # more colours cannot be told apart; past it, sites are thin grey lines named on hover
_MARKED_POINTS = 40  # more points than this, and markers hide the line
_POINTS_PER_CHART = 12_000  # of logged values; the page stays quick and the curve keeps its extremes
_SLOWEST = 8  # as tall as the chart beside it; the map of sites and rounds has them all
_TALL_ROWS = 16
# plotly's name of a marker, and the character that stands for it in the legend
_MARKERS = (("circle", "●"), ("square", "■"), ("diamond", "◆"), ("triangle-up", "▲"), ("cross", "✚"), ("x", "✖"), ("star", "★"))  # fmt: skip
_PHASE_COLOURS = {"train": "--blue", "aggregate": "--orange", "checkpoint": "--green"}
_TRANSFERS = (("download", "--sky", "seconds_down"), ("train", "--blue", "seconds_train"), ("upload", "--purple", "seconds_up"))  # fmt: skip

Trace = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """One entry of a chart's legend: a character in a colour, and what it stands for."""

    mark: str
    colour: str
    label: str


@dataclass(frozen=True)
class Chart:
    """A chart and the words around it. `title` and `note` are plain text; height is in pixels."""

    title: str
    note: str
    keys: tuple[Key, ...]
    figure: dict[str, Any]
    height: int = 300
    wide: bool = False


def score_charts(outcome: Outcome) -> list[Chart]:
    """One chart per metric: the global value in a strong line, each site's in a thin one, over the rounds."""
    return [_score_chart(outcome, name) for name in outcome.metric_names[: REPORT_NAMES.value]]


def _score_chart(outcome: Outcome, metric: str) -> Chart:
    end = final_position(outcome)
    points = [(each.round + 1, each) for each in outcome.rounds]
    if outcome.evaluation:
        points.append((end, outcome.evaluation))
    sites = []
    for index, site in enumerate(outcome.sites):
        own = [(x, each.sites[site.name].metrics.get(metric)) for x, each in points if site.name in each.sites]
        sites.append(_site_line(outcome, index, own))
    overall = [(x, each.metrics.get(metric)) for x, each in points]
    data = [*sites, _global_line([point for point in overall if point[1] is not None])]
    keys = [Key("━", "--ink", "global"), *site_keys(outcome)]
    if outcome.evaluation and metric in outcome.evaluation.metrics:
        final = _number(outcome.evaluation.metrics[metric])
        data.append(_final_point(end, final))
        keys.insert(1, Key("◉", "--ink", "final model"))
    last = end if outcome.evaluation else max(end - 1, 1)
    layout = {"xaxis": _round_axis(last), "yaxis": _value_axis(data)}
    sent = [
        (name, site.metrics[metric])
        for _, each in points
        for name, site in each.sites.items()
        if metric in site.metrics
    ]
    return Chart(metric, _gaps(sent), tuple(keys), {"data": data, "layout": layout})


def _gaps(sent: Sequence[tuple[str, float]]) -> str:
    """Why a curve has gaps, or there is none: values that are no finite numbers, and whose they are. sent: site, value."""
    whose = sorted({site for site, value in sent if not math.isfinite(value)})
    if not whose:
        return ""
    number = sum(not math.isfinite(value) for _, value in sent)
    return f"{number} of {plural(len(sent), 'value')} NaN or infinite: {names_text(whose)}"


def _value_axis(data: Sequence[Trace]) -> dict[str, Any]:
    """The axis of values; without marks where there is none to show."""
    empty = all(y is None for trace in data for y in trace["y"])
    return {"automargin": True, **({"showticklabels": False, "range": [0, 1]} if empty else {})}


def final_position(outcome: Outcome) -> int:
    """Where the final model stands on the axis of rounds: after the last one."""
    return (outcome.rounds[-1].round + 1 if outcome.rounds else outcome.total_rounds) + 1


def site_keys(outcome: Outcome) -> list[Key]:
    """The legend of the sites: one entry each while colours can be told apart, one for all past that."""
    if len(outcome.sites) > _COLOURED_SITES:
        return [Key("─", "--soft", f"each of {len(outcome.sites)} sites (point at a line for its name)")]
    return [Key(_MARKERS[index][1], f"--site-{index}", site.name) for index, site in enumerate(outcome.sites)]


def _site_line(outcome: Outcome, index: int, points: Sequence[tuple[float, float | None]]) -> Trace:
    many = len(outcome.sites) > _COLOURED_SITES
    colour = "--faint" if many else f"--site-{index}"
    kept = [(x, y) for x, y in points if y is not None]
    marked = not many and len(kept) <= _MARKED_POINTS
    return {
        "type": "scatter",
        "name": _label(outcome.sites[index].name),
        "x": [x for x, _ in kept],
        "y": [_number(y) for _, y in kept],
        # A site that took part once has a point and no line: it needs its marker even among many.
        "mode": "lines+markers" if marked or len(kept) == 1 else "lines",
        "line": {"color": colour, "width": 1 if many else 1.4},
        "marker": {"color": colour, "size": 7, "symbol": "circle" if many else _MARKERS[index][0]},
        "hovertemplate": "%{fullData.name}<br>round %{x}: %{y:.4g}<extra></extra>",
    }


def _global_line(points: Sequence[tuple[float, float | None]]) -> Trace:
    return {
        "type": "scatter",
        "name": "global",
        "x": [x for x, _ in points],
        "y": [_number(y) for _, y in points],
        # No markers, so that those of the sites stay visible beside the line; but a single point has no line.
        "mode": "markers" if len(points) == 1 else "lines",
        "line": {"color": "--ink", "width": 3},
        "marker": {"color": "--ink", "size": 9},
        "hovertemplate": "global<br>round %{x}: %{y:.4g}<extra></extra>",
    }


def _final_point(x: int, y: float | None) -> Trace:
    return {
        "type": "scatter",
        "name": "final model",
        "x": [x],
        "y": [y],
        "mode": "markers",
        "marker": {"color": "--paper", "size": 12, "line": {"color": "--ink", "width": 3}},
        "hovertemplate": "final model: %{y:.4g}<extra></extra>",
    }


def logged_charts(outcome: Outcome) -> list[Chart]:
    """One chart per key that the scripts logged, each site's values spread evenly over the round they belong to."""
    series: dict[tuple[str, str], list[LoggedValue]] = {}
    for value in outcome.logged:
        series.setdefault((value.key, value.site), []).append(value)
    most = max(_POINTS_PER_CHART // max(len(outcome.sites), 1), 40)
    end = final_position(outcome)
    charts = []
    for key in outcome.logged_keys[: REPORT_NAMES.value]:
        data = [
            _logged_line(outcome, index, series[key, site.name], most)
            for index, site in enumerate(outcome.sites)
            if (key, site.name) in series
        ]
        keys = site_keys(outcome)
        if len(outcome.sites) > _COLOURED_SITES:
            data.append(_mean_line([value for value in outcome.logged if value.key == key]))
            keys.insert(0, Key("━", "--ink", "mean of a round"))
        layout = {"xaxis": _round_axis(end), "yaxis": _value_axis(data)}
        note = _gaps(
            [(site, value.value) for (name, site), values in series.items() if name == key for value in values]
        )
        charts.append(Chart(key, note, tuple(keys), {"data": data, "layout": layout}, height=260))
    return charts


def _logged_line(outcome: Outcome, index: int, values: Sequence[LoggedValue], most: int) -> Trace:
    # Steps count on over the rounds in one script and start again in the next, or are absent: the order is what
    # every script has.
    in_round: dict[int, list[LoggedValue]] = {}
    for value in values:
        in_round.setdefault(value.round + 1, []).append(value)
    points = [
        (number + place / len(group), value)
        for number, group in sorted(in_round.items())
        for place, value in enumerate(group)
    ]
    kept = _thin(points, most)
    line = _site_line(outcome, index, [(x, value.value) for x, value in kept])
    line["customdata"] = [[value.round + 1, "–" if value.step is None else value.step] for _, value in kept]
    line["hovertemplate"] = "%{fullData.name}<br>round %{customdata[0]}, step %{customdata[1]}: %{y:.4g}<extra></extra>"
    return line


def _mean_line(values: Sequence[LoggedValue]) -> Trace:
    """What a cloud of many sites' lines comes to, drawn in the middle of each round."""
    in_round: dict[int, list[float]] = {}
    for value in values:
        if math.isfinite(value.value):
            in_round.setdefault(value.round + 1, []).append(value.value)
    line = _global_line([(number + 0.5, fmean(group)) for number, group in sorted(in_round.items())])
    return line | {"name": "mean", "hovertemplate": "mean of the round: %{y:.4g}<extra></extra>"}


def _thin(points: Sequence[tuple[float, LoggedValue]], most: int) -> list[tuple[float, LoggedValue]]:
    """At most `most` points: of each stretch its lowest and its highest, so that a spike is never lost."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(2 * len(points) / most)
    kept = []
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        ends = {min(part, key=lambda at: points[at][1].value), max(part, key=lambda at: points[at][1].value)}
        kept += [points[at] for at in sorted(ends)]
    return kept


def time_charts(outcome: Outcome) -> list[Chart]:
    """Where the time went: per round by phase, per site by what it did, and per site and round."""
    if not outcome.rounds:
        return []
    charts = [_round_times(outcome)]
    if any(record.sites for record in outcome.rounds):
        charts.append(_site_times(outcome))
        if len(outcome.sites) > 1 and len(outcome.rounds) > 1:
            charts.append(_time_map(outcome))
    return charts


def _round_times(outcome: Outcome) -> Chart:
    rounds = outcome.rounds
    spare = iter(("--purple", "--sky", "--vermillion", "--yellow"))
    phases = {name: "" for record in rounds for name in record.phases}
    colours = {name: _PHASE_COLOURS.get(name) or next(spare, "--faint") for name in phases}
    data = [_bars(rounds, name, colour, [r.phases.get(name, 0.0) for r in rounds]) for name, colour in colours.items()]
    rest = [max(record.seconds - sum(record.phases.values()), 0.0) for record in rounds]
    if sum(rest) > 0.01 * sum(record.seconds for record in rounds):
        colours["other"] = "--faint"
        data.append(_bars(rounds, "other", "--faint", rest))
    layout = {"barmode": "stack", "bargap": _gap(len(rounds)), "xaxis": _round_axis(rounds[-1].round + 1, bars=True), "yaxis": {"title": {"text": "seconds"}}}  # fmt: skip
    keys = tuple(Key("■", colour, name) for name, colour in colours.items())
    return Chart("Seconds per round", "", keys, {"data": data, "layout": layout})


def _bars(rounds: Sequence[Any], name: str, colour: str, seconds: Sequence[float]) -> Trace:
    return {
        "type": "bar",
        "name": _label(name),
        "x": [record.round + 1 for record in rounds],
        "y": [_number(value) for value in seconds],
        "marker": {"color": colour},
        "customdata": [seconds_text(value) for value in seconds],
        "hovertemplate": "round %{x}, %{fullData.name}: %{customdata}<extra></extra>",
    }


def _site_times(outcome: Outcome) -> Chart:
    """Mean seconds of a site's rounds, slowest site first."""
    parts = {
        site.name: [record.sites[site.name] for record in outcome.rounds if site.name in record.sites]
        for site in outcome.sites
    }
    means = {
        name: [fmean(getattr(part, attribute) for part in own) for _, _, attribute in _TRANSFERS]
        for name, own in parts.items()
        if own
    }
    slowest = sorted(means, key=lambda name: -sum(means[name]))[:_SLOWEST]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label,
            "y": [_label(name) for name in slowest],
            "x": [_number(means[name][at]) for name in slowest],
            "marker": {"color": colour},
            "customdata": [seconds_text(means[name][at]) for name in slowest],
            "hovertemplate": "%{y}, %{fullData.name}: %{customdata}<extra></extra>",
        }
        for at, (label, colour, _) in enumerate(_TRANSFERS)
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "seconds, mean of the site's rounds"}},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False},
        "bargap": _gap(len(slowest)),
    }
    note = f"The {_SLOWEST} slowest of {len(means)}, slowest first." if len(means) > len(slowest) else "Slowest first."
    keys = tuple(Key("■", colour, label) for label, colour, _ in _TRANSFERS)
    return Chart("Seconds per site", note, keys, {"data": data, "layout": layout})


def _time_map(outcome: Outcome) -> Chart:
    names = [site.name for site in outcome.sites]
    cells = [[record.sites.get(name) for record in outcome.rounds] for name in names]
    data = {
        "type": "heatmap",
        "x": [record.round + 1 for record in outcome.rounds],
        "y": [_label(name) for name in names],
        "z": [[_number(_seconds(cell)) if cell else None for cell in row] for row in cells],
        "customdata": [[_breakdown(cell) if cell else "" for cell in row] for row in cells],
        "hovertemplate": "%{y}, round %{x}<br>%{customdata}<extra></extra>",
        "hoverongaps": False,
        "colorscale": "Cividis",  # made to read the same with and without colour vision
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"ticksuffix": " s", "thickness": 12, "outlinewidth": 0, "nticks": 5},
    }
    layout = {
        "xaxis": _round_axis(outcome.rounds[-1].round + 1, bars=True) | {"showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False},
    }
    height = 110 + len(names) * (26 if len(names) <= _TALL_ROWS else 13)
    note = "Download, train and upload together. A gap is a round without the site."
    return Chart("Seconds per site and round", note, (), {"data": [data], "layout": layout}, height=height, wide=True)


def _gap(bars: int) -> float:
    """The share of the axis between bars: one bar alone would fill the chart like a flag."""
    return {1: 0.8, 2: 0.65, 3: 0.5}.get(bars, 0.25)


def _seconds(part: SiteRound) -> float:
    return part.seconds_down + part.seconds_train + part.seconds_up


def _breakdown(part: SiteRound) -> str:
    return ", ".join(f"{label} {seconds_text(getattr(part, attribute))}" for label, _, attribute in _TRANSFERS)


def traffic_charts(outcome: Outcome) -> list[Chart]:
    """Bytes per round, as the server sees them."""
    rounds = outcome.rounds
    if not any(record.bytes_in or record.bytes_out for record in rounds):
        return []
    unit, size = binary_unit(max(max(record.bytes_in, record.bytes_out) for record in rounds))
    ways = (
        ("from the sites", "--green", [record.bytes_in for record in rounds]),
        ("to the sites", "--orange", [record.bytes_out for record in rounds]),
    )
    data = []
    for label, colour, counts in ways:
        bars = _bars(rounds, label, colour, [count / size for count in counts])
        data.append(bars | {"customdata": [bytes_text(count) for count in counts]})
    layout = {"barmode": "group", "bargap": _gap(len(rounds)), "xaxis": _round_axis(rounds[-1].round + 1, bars=True), "yaxis": {"title": {"text": unit}}}  # fmt: skip
    keys = tuple(Key("■", colour, label) for label, colour, _ in ways)
    return [Chart("Bytes per round", "", keys, {"data": data, "layout": layout})]


def saving_charts(outcome: Outcome) -> list[Chart]:
    """What travelled for each site, and what each choice of `model.exchange` kept from travelling; none if none did."""
    if outcome.travel.whole == outcome.travel.moved:
        return []
    sites = sorted((site for site in outcome.sites if site.travel.whole), key=lambda site: -site.travel.whole)
    shown = sites[:_SLOWEST]
    unit, size = binary_unit(max(site.travel.whole for site in shown))
    stacks = (
        ("travelled", "--green", [site.travel.moved for site in shown]),
        ("kept back by dtype", "--sky", [site.travel.dtype for site in shown]),
        ("kept back by include", "--faint", [site.travel.include for site in shown]),
    )
    used = [stack for stack in stacks if any(stack[2])]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label,
            "y": [_label(site.name) for site in shown],
            "x": [_number(count / size) for count in counts],
            "marker": {"color": colour},
            "customdata": [bytes_text(count) for count in counts],
            "hovertemplate": "%{y}, %{fullData.name}: %{customdata}<extra></extra>",
        }
        for label, colour, counts in used
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": f"{unit}, both ways, over the run"}},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False},
        "bargap": _gap(len(shown)),
    }
    note = "A whole bar is what would have travelled with every tensor in its own type."
    note += f" The {_SLOWEST} largest of {len(sites)}." if len(sites) > len(shown) else ""
    keys = tuple(Key("■", colour, label) for label, colour, _ in used)
    height = 130 + 34 * len(shown)
    return [Chart("Bytes per site", note, keys, {"data": data, "layout": layout}, height=height, wide=True)]


def _round_axis(last: int, *, bars: bool = False) -> dict[str, Any]:
    """The axis of rounds, counted from 1. last: position of the last thing on it."""
    margin = 0.5 if bars else 0.02 * last + 0.1
    axis: dict[str, Any] = {"title": {"text": "round"}, "range": [1 - margin, last + margin], "tickformat": "d"}
    return axis | ({"tick0": 1, "dtick": 1} if last <= 14 else {"nticks": 12})


def _label(name: str) -> str:
    return escape(one_line(name))


def _number(value: float | None) -> float | None:
    """A gap where there is no finite number: JSON has no NaN, and an axis has no infinity."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
