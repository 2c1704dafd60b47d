"""The report: one page per run, whatever became of the run."""

import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from fedjob import charts, report
from fedjob.cli.live import saving_text
from fedjob.outcome import Travel, read_outcome
from fedjob.records import (
    HISTORY_FILE,
    METRICS_FILE,
    STATUS_FILE,
    Condition,
    JobRef,
    LoggedValue,
    Missing,
    Progress,
    RoundKind,
    RoundRecord,
    SiteRound,
    SiteStatus,
    Status,
    Traffic,
    append,
    read_status,
    write_status,
)

MIB = 2**20


def record_round(
    number: int,
    names: Sequence[str],
    metrics: Sequence[str],
    missing: Sequence[Missing] = (),
    kind: Any = "Train",
    seed: int = 7,
) -> RoundRecord:
    """A round as a run of a small image model leaves it: a learning curve, noise per site, and one slow site."""
    chance = random.Random(f"{seed} {number} {kind}")
    learned = 1 - math.exp(-(number + 0.2) / 3)
    present = [name for name in names if name not in {each.site for each in missing}]
    sites = {}
    for place, name in enumerate(names):
        if name not in present:
            continue
        skill = learned * (0.97 - 0.012 * (place % 5)) + chance.uniform(-0.015, 0.015)
        values = [0.1 + 0.87 * skill, 2.3 * (1 - skill) + 0.06]
        slow = 2.6 if place == 1 else 1.0
        train = 0.0 if kind == "Evaluate" else slow * chance.uniform(1.5, 2.0)
        sites[name] = SiteRound(
            examples=812.0 + 97 * place,
            metrics=dict(zip(metrics, values, strict=False)),
            bytes_down=30 * MIB,
            bytes_up=0 if kind == "Evaluate" else 30 * MIB,
            seconds_down=chance.uniform(0.2, 0.5),
            seconds_train=train,
            seconds_up=0.0 if kind == "Evaluate" else chance.uniform(0.3, 0.9),
        )
    slowest = max((s.seconds_down + s.seconds_train + s.seconds_up for s in sites.values()), default=0.0)
    weight = sum(site.examples for site in sites.values()) or 1.0
    return RoundRecord(
        round=number,
        kind=kind,
        seconds=slowest + 0.45,
        phases={"train": slowest, "aggregate": 0.3, "checkpoint": 0.12},
        contributors=tuple(present),
        missing=tuple(missing),
        sites=sites,
        metrics={name: sum(s.examples * s.metrics[name] for s in sites.values()) / weight for name in metrics},
        bytes_in=sum(site.bytes_up for site in sites.values()),
        bytes_out=sum(site.bytes_down for site in sites.values()),
        model_digest=f"{chance.getrandbits(256):064x}",
    )


def write_run(
    folder: Path,
    *,
    sites: int = 3,
    rounds: int = 10,
    metrics: Sequence[str] = ("accuracy", "loss"),
    logged: Sequence[str] = ("train_loss",),
    evaluate: bool = True,
) -> Path:
    """A finished run. Round 3 misses one site, if there are several."""
    folder.mkdir(parents=True)
    names = [f"hospital-{chr(97 + n)}" if sites <= 8 else f"hospital-{n:02d}" for n in range(sites)]
    lost = Missing(names[-1], "PeerLost", "the connection closed and the site did not come back within 15 s")
    records = [record_round(n, names, metrics, [lost] if n == 3 and sites > 1 else []) for n in range(rounds)]
    if evaluate:
        records.append(record_round(rounds, names, metrics, kind="Evaluate"))
    append(folder / HISTORY_FILE, *records)
    chance = random.Random(3)
    append(
        folder / METRICS_FILE,
        *(
            LoggedValue(name, n, step, key, 2.3 * math.exp(-(n + step / 20) / 3) + chance.uniform(0, 0.15))
            for n in range(rounds)
            for name in names
            for key in logged
            for step in range(20)
        ),
    )
    status = Status(
        job=JobRef(folder.name, "u-1", 1),
        state="Complete",
        reason="RoundsCompleted",
        message=f"All {rounds} rounds are complete.",
        progress=Progress(rounds, rounds, rounds, last_round_seconds=2.0, eta_seconds=0.0),
        bytes=Traffic(sum(r.bytes_in for r in records), sum(r.bytes_out for r in records)),
        metrics=records[-1].metrics,
        sites=tuple(SiteStatus(name, "Left", restarts=int(name == names[-1]), examples=812.0) for name in names),
        updated_at=1_690_000_000.0,
    )
    write_status(folder / STATUS_FILE, status)
    return folder


def write_failed_run(folder: Path) -> Path:
    """A run whose only round never closed: one site of three came."""
    folder.mkdir(parents=True)
    status = Status(
        job=JobRef("digits", "u-1", 1),
        state="Failed",
        reason="QuorumNotMet",
        message="Round 0 needs 2 of 3 sites, 1 came. Start the lost sites again, or lower spec.workflow.quorum.",
        progress=Progress(0, 0, 10),
        sites=(
            SiteStatus("hospital-a", "Answered", examples=812.0),
            SiteStatus(
                "hospital-b", "Lost", restarts=3, message="train.py exited with code 1; see logs/hospital-b.log"
            ),
            SiteStatus("hospital-c", "Refused", message="fc.weight holds NaN"),
        ),
        updated_at=1_690_000_000.0,
    )
    write_status(folder / STATUS_FILE, status)
    return folder


class Page(HTMLParser):
    """What a browser makes of the page: its text, its figures, and every element with what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.figures: list[Any] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.elements.append((tag, dict(attrs)))
        self._inside = f"{tag} {dict(attrs).get('type', '')}"

    def handle_endtag(self, tag: str) -> None:
        """Leave the element; scripts and styles hold no others."""
        self._inside = self._inside if not self._inside.startswith(tag) else ""

    def handle_data(self, data: str) -> None:
        """Sort the text by where it stands."""
        if self._inside == "script application/json":
            self.figures.append(json.loads(data))
        elif not self._inside.startswith(("script", "style")):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """The words on the page, spaces folded."""
        return " ".join(" ".join(self.texts).split())


def page_of(folder: Path) -> Page:
    return Page(report.build(folder).read_text())


def traces(page: Page, name: str) -> list[Any]:
    return [trace for figure in page.figures for trace in figure["data"] if trace.get("name") == name]


RUNS: dict[str, dict[str, Any]] = {
    "three sites and ten rounds": {},
    "no metrics at all": {"metrics": (), "logged": (), "evaluate": False},
    "one site": {"sites": 1},
    "one round": {"rounds": 1, "evaluate": False},
    "one site and one round": {"sites": 1, "rounds": 1, "logged": ()},
    "64 sites": {"sites": 64, "rounds": 25},
    "200 rounds": {"rounds": 200, "logged": ("train_loss", "lr")},
}


@pytest.mark.parametrize("shape", [pytest.param(shape, id=name) for name, shape in RUNS.items()])
def test_every_figure_is_one_that_plotly_accepts(shape: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "digits-01", **shape))
    assert page.figures
    for figure in page.figures:
        go.Figure(json.loads(re.sub(r'"--[a-z]+(-\d)?"', '"#123456"', json.dumps(figure, allow_nan=False))))


def test_the_page_loads_nothing_and_forbids_the_browser_to_try(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "digits-01"))
    assert not [tag for tag, attributes in page.elements if {"src", "href", "srcset"} & set(attributes)]
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "img", "object", "form")]
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "form-action 'none'" in policy


def test_no_button_offers_to_send_the_data_to_a_chart_service(tmp_path: Path) -> None:
    html = report.build(write_run(tmp_path / "digits-01")).read_text()
    assert "showSendToCloud: false, displayModeBar: false" in html


def test_plotly_is_carried_once(tmp_path: Path) -> None:
    html = report.build(write_run(tmp_path / "digits-01")).read_text()
    assert html.count("* plotly.js v") == 1


def test_the_headline_says_what_came_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "digits-01"
    write_run(folder, evaluate=False, rounds=2)
    text = page_of(folder).text
    for words in ("✓ Complete", "All 2 rounds are complete.", "Rounds 2 of 2", "Sites 3 all contributed"):
        assert words in text
    assert "Scores are of the global model at the start of round 2" in text


def test_the_global_curve_is_strong_and_ends_at_the_final_model(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "digits-01", rounds=4, metrics=("accuracy",), logged=()))
    (overall,) = traces(page, "global")
    (site,) = (trace for trace in traces(page, "hospital-a") if trace["type"] == "scatter")
    (final,) = traces(page, "final model")
    assert overall["x"] == [1, 2, 3, 4, 5]
    assert overall["line"]["width"] > 2 * site["line"]["width"]
    assert (final["x"], final["y"]) == ([5], [overall["y"][-1]])


def test_64_sites_are_thin_grey_lines_below_the_global_one(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "digits-01", sites=64, metrics=("accuracy",), logged=(), evaluate=False))
    *sites, overall = page.figures[0]["data"]
    assert overall["name"] == "global"
    assert len(sites) == 64
    assert overall["line"]["color"] == "--ink"
    assert {(trace["line"]["color"], trace["line"]["width"]) for trace in sites} == {("--faint", 1)}


def test_the_slowest_site_comes_first_among_the_times(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "digits-01", sites=64))
    (train,) = (trace for trace in traces(page, "train") if trace.get("orientation") == "h")
    assert train["y"][0] == "hospital-01"
    assert len(train["y"]) == 8
    assert "The 8 slowest of 64" in page.text


def test_a_missing_site_is_named_with_its_reason_and_message(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "digits-01")).text
    assert "2 of 3" in text
    assert "hospital-c PeerLost : the connection closed and the site did not come back within 15 s" in text


def test_a_job_that_failed_in_its_first_round_explains_why(tmp_path: Path) -> None:
    page = page_of(write_failed_run(tmp_path / "digits-02"))
    for words in (
        "✗ Failed",
        "QuorumNotMet in round 1, before any round was complete",
        "Round 0 needs 2 of 3 sites, 1 came.",
        "hospital-b , lost: train.py exited with code 1",
        "No round was complete, so there are no curves and no model.",
    ):
        assert words in page.text
    assert page.figures == []


def test_what_is_the_matter_with_a_job_is_shown_above_its_figures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "digits-01")
    status = read_status(folder / STATUS_FILE)
    assert status is not None
    full = Condition("DiskFull", "NoSpaceLeft", "/srv/run: 12 MiB left")
    write_status(folder / STATUS_FILE, replace(status, conditions=(full,)))
    assert "DiskFull NoSpaceLeft /srv/run: 12 MiB left" in page_of(folder).text


def test_a_run_folder_without_a_status_still_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "digits-03").mkdir()
    assert "The run folder has no status.json" in page_of(tmp_path / "digits-03").text


HOSTILE = "</script><script>alert(1)</script><b>x</b>%{y}"


def test_names_and_messages_are_shown_as_they_are_and_never_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "digits-01", metrics=(HOSTILE,), logged=(HOSTILE,), evaluate=False)
    strange = Missing(HOSTILE, HOSTILE, HOSTILE)
    append(folder / HISTORY_FILE, RoundRecord(10, missing=(strange,), phases={HOSTILE: 1.0}))
    (folder / "job.yaml").write_text(f"name: {HOSTILE}\n")
    page = page_of(folder)
    assert HOSTILE in page.text
    assert [a.get("type") for tag, a in page.elements if tag == "script"].count(None) == 2  # plotly and the page's own
    drawn = json.dumps([[t.get("name"), t["hovertemplate"], t.get("y")] for f in page.figures for t in f["data"]])
    assert "<script>" not in drawn
    assert "<b>" not in drawn


def test_values_that_are_no_numbers_leave_a_gap(tmp_path: Path) -> None:
    folder = tmp_path / "digits-01"
    folder.mkdir()
    for number, loss in enumerate((2.0, math.nan, math.inf)):
        append(folder / HISTORY_FILE, RoundRecord(number, metrics={"loss": loss}, seconds=1.0))
    page = page_of(folder)
    (overall,) = traces(page, "global")
    assert overall["y"] == [2.0, None, None]
    assert "NaN" in page.text


def score_chart(folder: Path, *rounds: RoundRecord) -> charts.Chart:
    """The one chart of a run's scores."""
    folder.mkdir()
    append(folder / HISTORY_FILE, *rounds)
    (chart,) = charts.score_charts(read_outcome(folder))
    return chart


def test_a_chart_says_whose_values_are_no_numbers_and_has_no_marks_without_any(tmp_path: Path) -> None:
    sites = {"a": SiteRound(metrics={"loss": math.nan}), "b": SiteRound(metrics={"loss": math.inf})}
    chart = score_chart(tmp_path / "empty", RoundRecord(0, sites=sites, metrics={}))
    assert chart.note == "2 of 2 values NaN or infinite: a, b"
    assert chart.figure["layout"]["yaxis"]["showticklabels"] is False
    one = RoundRecord(0, sites={"a": SiteRound(metrics={"loss": 0.5})}, metrics={"loss": 0.5})
    chart = score_chart(tmp_path / "whole", one)
    assert chart.note == ""
    assert "showticklabels" not in chart.figure["layout"]["yaxis"]


def test_the_axis_of_rounds_ends_with_the_last_thing_on_it(tmp_path: Path) -> None:
    one = RoundRecord(0, sites={"a": SiteRound(metrics={"loss": 0.5})}, metrics={"loss": 0.5})
    chart = score_chart(tmp_path / "trained", one)
    assert chart.figure["layout"]["xaxis"]["range"][1] < 2
    chart = score_chart(tmp_path / "evaluated", one, replace(one, kind="Evaluate", round=1))
    assert 2 < chart.figure["layout"]["xaxis"]["range"][1] < 3


def test_a_long_log_is_thinned_and_keeps_its_spike(tmp_path: Path) -> None:
    folder = tmp_path / "digits-01"
    folder.mkdir()
    values = (LoggedValue("a", 0, step, "loss", 99.0 if step == 31_337 else 1 / (step + 1)) for step in range(60_000))
    append(folder / METRICS_FILE, *values)
    (line,) = traces(page_of(folder), "a")
    assert len(line["y"]) <= 12_000
    assert max(line["y"]) == 99.0


def test_steps_that_begin_again_each_round_go_on_along_the_axis(tmp_path: Path) -> None:
    folder = tmp_path / "digits-01"
    folder.mkdir()
    append(folder / METRICS_FILE, *(LoggedValue("a", n, step, "loss", 1.0) for n in (0, 1) for step in (0, 1)))
    (line,) = traces(page_of(folder), "a")
    assert line["x"] == [1.0, 1.5, 2.0, 2.5]


def test_the_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = write_failed_run(tmp_path / "digits-02")
    assert report.build(folder) == report.build(folder) == folder / "report.html"
    assert sorted(each.name for each in folder.iterdir()) == ["report.html", "status.json"]


def test_plotly_and_jinja_are_imported_only_to_build() -> None:
    script = "import sys, fedjob.report; sys.exit(bool({'plotly', 'jinja2'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)


# ------------------------------------------------------------------------------------------------------- what travelled


def choosing_run(folder: Path) -> Path:
    """Two rounds and an evaluation: of 100 MiB, 30 are included, and go as 15; hospital-b missed the second round."""
    folder.mkdir()

    def record(number: int, names: str, kind: RoundKind = "Train") -> RoundRecord:
        up, whole = (15 * MIB, 100 * MIB) if kind == "Train" else (0, 0)
        sites = {f"hospital-{n}": SiteRound(bytes_down=15 * MIB, bytes_up=up, bytes_whole=whole) for n in names}
        return RoundRecord(
            number, kind, sites=sites, contributors=tuple(sites), bytes_included=30 * MIB, bytes_wire=15 * MIB
        )

    append(folder / HISTORY_FILE, record(0, "ab"), record(1, "a"), record(2, "ab", "Evaluate"))
    return folder


def test_each_choice_is_told_what_it_kept_from_travelling(tmp_path: Path) -> None:
    a, b = read_outcome(choosing_run(tmp_path / "run")).sites
    assert a.travel == Travel(rounds=3, moved=75 * MIB, dtype=75 * MIB, include=5 * 70 * MIB)
    assert b.travel == Travel(rounds=2, moved=45 * MIB, dtype=45 * MIB, include=3 * 70 * MIB)
    assert a.travel.whole == 500 * MIB
    assert a.travel.share == 0.15


def test_the_page_shows_the_bytes_with_and_without_each_choice(tmp_path: Path) -> None:
    page = report.render(read_outcome(choosing_run(tmp_path / "run")))
    row = re.search(r"<tr><th>hospital-a</th>((<td class=\"number\">[^<]*</td>)+)</tr>", page)
    assert row is not None
    cells = re.findall(r">([^<]+)</td>", row.group(1))
    assert cells == ["25.0 MiB", "50.0 MiB", "142 MiB", "167 MiB", "15 %"]
    (chart,) = charts.saving_charts(read_outcome(tmp_path / "run"))
    assert [trace["name"] for trace in chart.figure["data"]] == [
        "travelled",
        "kept back by dtype",
        "kept back by include",
    ]
    assert [trace["x"] for trace in chart.figure["data"]] == [[75, 45], [75, 45], [350, 210]]
    assert saving_text(tmp_path / "run").startswith("120 MiB, 800 MiB without include and dtype (15 %)")


def test_a_run_that_chose_nothing_says_nothing_of_it(tmp_path: Path) -> None:
    """Also one whose history was written before there was a choice."""
    run = write_run(tmp_path / "run")
    assert "What travelled" not in report.render(read_outcome(run))
    assert saving_text(run) == ""
