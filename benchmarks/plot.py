"""A result as a picture: `python benchmarks/plot.py build/bench.json docs/benchmarks.svg`, or `.html` to look closer.

Two charts: how many times as long as fedjob others need for the same work, and what a server holds in memory.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

OURS = "fedjob"
_COLOURS = {
    OURS: "#2563eb",
    "nvflare": "#9aa3af",
    "flower": "#c9a66b",
    "raw TLS": "#6aa67f",
    "raw TLS, kept": "#a8cbb4",
}
NAMES = {"nvflare": "NVFLARE", "flower": "Flower"}
_LABEL, _PLOT, _ROW, _HEAD, _GAP, _RIGHT = 300, 520, 20, 54, 10, 150  # pixels
_LIMIT_MIB = 512.0


@dataclass(frozen=True)
class Bar:
    """One bar: which system, how long, what is written behind it."""

    system: str
    value: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Groups of bars on one logarithmic axis. groups: (label, bars); line: a goal, in the axis's unit."""

    title: str
    axis: str
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]
    line: float | None = None


def charts(result: dict[str, Any]) -> list[Chart]:
    """What a result has to show; a chart without bars is left out."""
    times = tuple(_times(name, m) for name, m in result.items() if m.get("peers"))
    found = [
        Chart("The same work, side by side", "times as long as fedjob (logarithmic)", times, 1.0),
        Chart(
            "Memory that a server cannot give back", "MiB (logarithmic); line: the goal", _memory(result), _LIMIT_MIB
        ),
    ]
    return [chart for chart in found if chart.groups]


def _times(name: str, measure: dict[str, Any]) -> tuple[str, tuple[Bar, ...]]:
    ours, unit = measure["value"], measure["unit"]
    is_rate = unit.endswith("/s")
    bars = [Bar(OURS, 1.0, f"{ours:g} {unit}")]
    for system, value in measure["peers"].items():
        ratio = ours / value if is_rate else value / ours
        bars.append(Bar(system, ratio, f"{value:g} {unit} ({ratio:.3g} ×)"))
    return f"{name}  {measure['title']}", tuple(bars)


def _memory(result: dict[str, Any]) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    groups = []
    round_ = result.get("P2", {}).get("detail", {})
    if round_.get("peers"):
        servers = {OURS: ("server",), "nvflare": ("server parent", "server job"), "flower": ("SuperLink", "ServerApp")}
        usages = {OURS: round_["usage"], **{name: peer["usage"] for name, peer in round_["peers"].items()}}
        bars = [
            _mib(system, sum(usages[system].get(role, {}).get("peak_anonymous_mib", 0.0) for role in roles))
            for system, roles in servers.items()
            if system in usages
        ]
        groups.append((f"P2  {round_['size']} × {round_['clients']} clients, in a round", tuple(bars)))
    for row in result.get("P5", {}).get("detail", {}).get("combinations", []):
        groups.append((f"P5  {row['size']} × {row['clients']} clients", (_mib(OURS, row["server_peak_mib"]),)))
    return tuple(groups)


def _mib(system: str, value: float) -> Bar:
    return Bar(system, value, f"{value:,.0f} MiB")


# ------------------------------------------------------------------------------------------------------------ SVG


def svg(found: Sequence[Chart], caption: str) -> str:
    """All charts below each other, in one picture that needs nothing else."""
    parts, y = [], 0
    for chart in found:
        drawn, height = _draw(chart, y)
        parts.append(drawn)
        y += height
    width, height = _LABEL + _PLOT + _RIGHT, y + 30
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="#1f2937">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n{"".join(parts)}'
        f'<text x="16" y="{y + 14}" fill="#6b7280">{escape(caption)}</text>\n</svg>\n'
    )


def _draw(chart: Chart, top: int) -> tuple[str, int]:
    values = [bar.value for _, bars in chart.groups for bar in bars] + ([chart.line] if chart.line else [])
    low, high = math.floor(math.log10(min(values)) - 0.01), math.ceil(math.log10(max(values)) + 0.01)

    def x(value: float) -> float:
        return _LABEL + _PLOT * (math.log10(value) - low) / (high - low)

    out, y = [], top + _HEAD
    for label, bars in chart.groups:
        out.append(_label(label, y))
        for bar in bars:
            width = max(x(bar.value) - _LABEL, 1)
            out.append(
                f'<rect x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" rx="2" '
                f'fill="{_COLOURS[bar.system]}"/>\n'
                f'<text x="{_LABEL + width + 6:.1f}" y="{y + 14}">{escape(NAMES.get(bar.system, bar.system))} {escape(bar.text)}</text>\n'
            )
            y += _ROW
        y += _GAP
    frame = [f'<text x="16" y="{top + 24}" font-size="15" font-weight="600">{escape(chart.title)}</text>\n']
    for power in range(low, high + 1):
        at = x(10.0**power)
        frame.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + _HEAD - 6}" y2="{y}" stroke="#e5e7eb"/>\n'
            f'<text x="{at:.1f}" y="{top + _HEAD - 10}" text-anchor="middle" fill="#6b7280">{10.0**power:g}</text>\n'
        )
    if chart.line:
        at = x(chart.line)
        frame.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + _HEAD - 6}" y2="{y}" stroke="#dc2626"/>\n')
    frame.append(
        f'<text x="{_LABEL + _PLOT}" y="{y + 10}" text-anchor="end" fill="#6b7280">{escape(chart.axis)}</text>\n'
    )
    return "".join(frame + out), y + 20 - top


def _label(text: str, y: int) -> str:
    """Two lines at the most, cut at a comma."""
    first, _, rest = text.partition(", ")
    lines = [first, rest] if len(text) > 44 and rest else [text]
    return "".join(
        f'<text x="16" y="{y + 14 + 15 * i}">{escape(line if len(line) < 48 else line[:46] + "…")}</text>\n'
        for i, line in enumerate(lines)
    )


# ----------------------------------------------------------------------------------------------------------- HTML


def html(found: Sequence[Chart], caption: str) -> str:
    """The same charts with values on hover; the page carries plotly itself and loads nothing."""
    import plotly.graph_objects as go

    pages = []
    for i, chart in enumerate(found):
        figure = go.Figure()
        for system in dict.fromkeys(bar.system for _, bars in chart.groups for bar in bars):
            its = [(label, bar) for label, bars in chart.groups for bar in bars if bar.system == system]
            figure.add_bar(
                y=[label for label, _ in its], x=[bar.value for _, bar in its], text=[bar.text for _, bar in its],
                name=NAMES.get(system, system), orientation="h", marker_color=_COLOURS[system],
            )  # fmt: skip
        figure.update_layout(title=chart.title, template="plotly_white", barmode="group", yaxis_autorange="reversed")
        figure.update_layout(height=160 + 70 * len(chart.groups), margin_l=360)
        figure.update_xaxes(type="log", title=chart.axis)
        pages.append(figure.to_html(full_html=False, include_plotlyjs=i == 0))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>fedjob: measurements</title>\n"
        f"{''.join(pages)}<p>{escape(caption)}</p></html>\n"
    )


def caption(machine: dict[str, Any]) -> str:
    """What the figures belong to."""
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['date']}"


def draw(result: dict[str, Any], path: Path) -> None:
    """Write a result as .svg or .html."""
    measures = {name: m for name, m in result.items() if name != "machine" and "error" not in m}
    writer = {".svg": svg, ".html": html}[path.suffix]
    path.write_text(writer(charts(measures), caption(result["machine"])), encoding="utf-8")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
