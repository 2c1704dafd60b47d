"""The live view: plain lines without a terminal, a view with one, and the table at the end."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from fedjob.cli.live import final_table, lines, render, showing, watch
from fedjob.records import (
    HISTORY_FILE,
    METRICS_FILE,
    STATUS_FILE,
    Condition,
    JobRef,
    LoggedValue,
    Missing,
    Progress,
    RoundRecord,
    SiteRound,
    SiteStatus,
    Status,
    Traffic,
    append,
    write_status,
)

A, B, C = (SiteStatus(name, "Training", examples=812.0) for name in ("hospital-a", "hospital-b", "hospital-c"))
RUNNING = Status(
    job=JobRef("digits", "u-1", 1),
    state="Running",
    progress=Progress(2, 2, 10, 1.0, 2.1, 16.4, contributors=3),
    metrics={"accuracy": 0.91},
    sites=(A, B, C),
    updated_at=1000.0,
)


def text_of(view: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=StringIO(), force_terminal=False)
    with console.capture() as captured:
        console.print(view)
    return captured.get()


def with_site(status: Status, site: SiteStatus) -> Status:
    return replace(status, sites=tuple(site if each.name == site.name else each for each in status.sites))


def finished(rounds: int, status: Status = RUNNING) -> Status:
    return replace(
        status, progress=Progress(rounds, rounds, 10, 0.0, 2.1, 14.2, contributors=3), metrics={"accuracy": 0.93}
    )


FULL = replace(RUNNING, conditions=(Condition("DiskFull", "NoSpaceLeft", "/srv/run: 12 MiB left"),))
FAILED = replace(RUNNING, state="Failed", reason="QuorumNotMet", message="Round 2 needs 3 sites, 2 came.")


@pytest.mark.parametrize(
    ("previous", "current", "expected"),
    [
        pytest.param(
            None,
            replace(RUNNING, state="Starting", progress=Progress(0, 0, 10), sites=(SiteStatus("hospital-a"),)),
            ["job digits starting  10 rounds  1 site"],
            id="the first line names the job and its size",
        ),
        pytest.param(
            None,
            replace(RUNNING, job=JobRef("digits", "u-1", 2), progress=Progress(0, 0, 10), sites=()),
            ["job digits running  10 rounds  0 sites  attempt 2"],
            id="a second attempt says so",
        ),
        pytest.param(RUNNING, RUNNING, [], id="nothing new, nothing said"),
        pytest.param(
            RUNNING,
            finished(3),
            ["round 3/10  accuracy 0.9300  sites 3/3  2.1 s  eta 14 s"],
            id="a completed round is one line",
        ),
        pytest.param(
            RUNNING,
            finished(5),
            ["rounds 3-5/10  accuracy 0.9300  sites 3/3  2.1 s  eta 14 s"],
            id="rounds shorter than a look come in one line",
        ),
        pytest.param(
            RUNNING,
            with_site(RUNNING, replace(B, state="Lost", message="the connection closed")),
            ["site hospital-b lost: the connection closed"],
            id="a lost site is named with its message",
        ),
        pytest.param(
            with_site(RUNNING, replace(B, state="Lost")),
            with_site(RUNNING, replace(B, state="Waiting", restarts=1)),
            ["site hospital-b back"],
            id="a site that comes back is named",
        ),
        pytest.param(
            with_site(RUNNING, SiteStatus("hospital-a")), RUNNING, ["site hospital-a connected"], id="a site connects"
        ),
        *(
            pytest.param(
                RUNNING, with_site(RUNNING, replace(C, state=state, message=message, restarts=restarts)), [], id=name
            )
            for name, state, message, restarts in (
                ("a death is the runner's to tell", "Lost", "ScriptFailed: KeyError: 'x'", 0),
                ("also one of which the script could say nothing", "Lost", "", 1),
                ("and the last one", "Left", "RestartBudgetExhausted: KeyError: 'x' (3 restarts used up)", 3),
            )
        ),
        pytest.param(RUNNING, with_site(RUNNING, replace(C, state="Lost")), ["site hospital-c lost"], id="a loss"),
        pytest.param(
            RUNNING,
            with_site(RUNNING, replace(C, state="Refused", message="fc.weight holds NaN")),
            ["site hospital-c refused: fc.weight holds NaN"],
            id="a refusal is told",
        ),
        pytest.param(
            RUNNING,
            with_site(RUNNING, replace(C, state="Uploading", done_bytes=5, total_bytes=9)),
            [],
            id="the ordinary steps of a round are not told",
        ),
        pytest.param(
            RUNNING,
            FULL,
            ["DiskFull: NoSpaceLeft: /srv/run: 12 MiB left"],
            id="what is the matter is told when it begins",
        ),
        pytest.param(FULL, FULL, [], id="and not again while it lasts"),
        pytest.param(FULL, RUNNING, ["DiskFull is over"], id="and when it is over"),
        pytest.param(
            RUNNING,
            FAILED,
            ["job digits failed"],
            id="why it failed, the last line of the command says",
        ),
        pytest.param(
            finished(9),
            replace(finished(10), state="Complete", sites=tuple(replace(s, state="Left") for s in (A, B, C))),
            ["round 10/10  accuracy 0.9300  sites 3/3  2.1 s", "job digits complete"],
            id="at the end the sites leave without a word",
        ),
    ],
)
def test_lines_tell_what_changed(previous: Status | None, current: Status, expected: list[str]) -> None:
    assert lines(previous, current) == expected


def test_a_round_is_told_with_those_who_contributed_to_it_not_with_those_who_are_there() -> None:
    last = finished(10)
    last = replace(last, state="Complete", progress=replace(last.progress, contributors=2))
    assert any("  sites 2/3  " in line for line in lines(finished(9), last))


def test_rounds_of_an_earlier_process_are_not_told_as_news() -> None:
    began = replace(RUNNING, state="Starting", progress=Progress(0, 0, 10), sites=(SiteStatus("hospital-a"),))
    recalled = replace(began, progress=Progress(7, 7, 10, recalled_rounds=7))
    assert lines(began, recalled) == ["rounds 1-7 of 10 are complete already"]
    assert lines(recalled, recalled) == []
    on = finished(8)
    told = lines(began, replace(on, progress=replace(on.progress, recalled_rounds=7)))
    assert [line for line in told if line.startswith("round")] == [
        "rounds 1-7 of 10 are complete already",
        "round 8/10  accuracy 0.9300  sites 3/3  2.1 s  eta 14 s",
    ]


def test_what_happens_to_many_sites_at_once_is_one_line() -> None:
    names = [f"site-{number:02d}" for number in range(64)]
    absent = replace(RUNNING, sites=tuple(SiteStatus(name) for name in names))
    there = replace(RUNNING, sites=tuple(SiteStatus(name, "Waiting") for name in names))
    assert lines(absent, there) == ["64 sites connected: site-00, site-01, site-02, site-03 and 60 more"]


def test_lines_are_plain_ascii_for_any_log() -> None:
    told = lines(None, finished(3)) + lines(RUNNING, FAILED)
    assert all(line.isascii() for line in told)


BUSY = replace(
    RUNNING,
    bytes=Traffic(in_=30 * 2**20, out=60 * 2**20),
    sites=(
        replace(A, state="Downloading", done_bytes=30, total_bytes=100),
        replace(B, metrics={"accuracy": 0.9}, restarts=2),
        replace(C, state="Refused", message="fc.weight holds NaN; see logs/hospital-c.log, which has the whole story"),
    ),
)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("status", [BUSY, FAILED, finished(10), replace(BUSY, sites=())])
def test_the_view_fits_the_terminal(status: Status, width: int) -> None:
    assert max(len(line.rstrip()) for line in text_of(render([status], now=1000.0), width).splitlines()) <= width


def test_the_view_shows_the_round_the_rates_and_what_each_site_does() -> None:
    before = replace(BUSY, updated_at=996.0, bytes=Traffic(in_=10 * 2**20, out=20 * 2**20))
    text = text_of(render([before, BUSY], now=1000.0))
    for words in (
        "digits  Running",
        "round 2/10",
        "this round 1.0 s  eta 16 s",
        "accuracy 0.9100",
        "in 30.0 MiB (5.00 MiB/s)  out 60.0 MiB (10.0 MiB/s)",
        "30 %",
        "hospital-c refused: fc.weight holds NaN",
    ):
        assert words in text
    assert "restarts" in text


def test_a_server_that_has_gone_silent_is_noticed() -> None:
    assert "no news from the server for 42 s" in text_of(render([RUNNING], now=1042.0))
    assert "no news" not in text_of(render([FAILED], now=1042.0))


def test_64_sites_are_summed_up_and_only_those_in_trouble_are_named() -> None:
    sites = [SiteStatus(f"site-{number:02d}", "Training") for number in range(64)]
    sites[40] = SiteStatus("site-40", "Lost", message="the connection closed")
    text = text_of(render([replace(RUNNING, sites=tuple(sites))], now=1000.0, height=24))
    assert len(text.splitlines()) <= 24
    assert "63 training" in text
    assert "site-40  lost" in text
    assert "site-39" not in text


def test_markup_in_names_and_messages_is_text() -> None:
    odd = replace(RUNNING, metrics={"[red]f1[/x]": 1.0}, sites=(SiteStatus("a", "Lost", message="[/bold] oops"),))
    text = text_of(render([odd], now=1000.0))
    assert "[red]f1[/x]" in text
    assert "[/bold] oops" in text


def play(statuses: Sequence[Status | None]) -> Iterator[Status | None]:
    yield from statuses
    while True:
        yield statuses[-1]


def test_without_a_terminal_a_run_is_a_list_of_lines() -> None:
    out = StringIO()
    film = play([None, RUNNING, finished(3), replace(finished(3), state="Complete")])
    last = watch(lambda: next(film), threading.Event(), Console(file=out, width=40))
    assert last is not None
    assert last.state == "Complete"
    assert out.getvalue().splitlines() == [
        "job digits running  10 rounds  3 sites",
        "3 sites connected: hospital-a, hospital-b, hospital-c",
        "round 2/10  accuracy 0.9100  sites 3/3  2.1 s  eta 16 s",
        "round 3/10  accuracy 0.9300  sites 3/3  2.1 s  eta 14 s",
        "job digits complete",
    ]


def test_a_status_that_comes_with_the_end_is_still_shown() -> None:
    now = [RUNNING]
    out = StringIO()
    with showing(lambda: now[-1], Console(file=out, width=200)):
        now.append(FAILED)
    assert out.getvalue().splitlines()[-1] == "job digits failed"


def test_in_a_terminal_colour_is_used_unless_the_user_asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        out = StringIO()
        watch(lambda: FAILED, threading.Event(), Console(file=out, force_terminal=True, width=80))
        return out.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mFailed" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown()
    assert "Failed" in shown()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Two rounds of two sites and an evaluation; hospital-b missed the second round."""
    append(
        tmp_path / HISTORY_FILE,
        RoundRecord(
            0,
            contributors=("hospital-a", "hospital-b"),
            sites={
                "hospital-a": SiteRound(812.0, {"accuracy": 0.10}),
                "hospital-b": SiteRound(1812.0, {"accuracy": 0.12}),
            },
            metrics={"accuracy": 0.11},
        ),
        RoundRecord(
            1,
            contributors=("hospital-a",),
            missing=(Missing("hospital-b", "DeadlineExceeded"),),
            sites={"hospital-a": SiteRound(812.0, {"accuracy": 0.5})},
            metrics={"accuracy": 0.5},
        ),
    )
    append(
        tmp_path / METRICS_FILE,
        LoggedValue("hospital-a", 0, 0, "loss", 2.0),
        LoggedValue("hospital-a", 1, 0, "loss", 1.0),
    )
    status = Status(
        job=JobRef("digits"),
        state="Complete",
        progress=Progress(2, 2, 2),
        sites=(SiteStatus("hospital-a", "Left"), SiteStatus("hospital-b", "Left")),
    )
    write_status(tmp_path / STATUS_FILE, status)
    return tmp_path


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_the_final_table_has_a_row_per_site_and_the_global_one_last(run_folder: Path) -> None:
    text = text_of(final_table(run_folder))
    assert rows(text) == [
        ["hospital-a", "812", "2/2", "0.5000", "1.000"],
        ["hospital-b", "1,812", "1/2", "0.1200", ""],
        ["global", "2,624", "2/2", "0.5000", ""],
    ]
    caption = " ".join(text.partition("└")[2].split()[1:])
    assert caption == (
        "Metrics score the global model at the start of round 2. hospital-b missed it: scores of an older one."
    )


def test_after_an_evaluation_the_final_table_scores_the_final_model(run_folder: Path) -> None:
    evaluation = RoundRecord(
        2,
        kind="Evaluate",
        contributors=("hospital-a", "hospital-b"),
        sites={"hospital-a": SiteRound(metrics={"accuracy": 0.9}), "hospital-b": SiteRound(metrics={"accuracy": 0.8})},
        metrics={"accuracy": 0.83},
    )
    append(run_folder / HISTORY_FILE, evaluation)
    text = text_of(final_table(run_folder))
    assert [row[3] for row in rows(text)] == ["0.9000", "0.8000", "0.8300"]
    assert "Metrics score the final model." in text


def test_the_final_table_of_a_run_without_rounds_or_status_is_a_row_of_nothing(tmp_path: Path) -> None:
    assert rows(text_of(final_table(tmp_path))) == [["global", "0", "0/0"]]


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("restarts", [0, 3])
def test_the_table_of_sites_cuts_no_heading_and_no_value(width: int, restarts: int) -> None:
    sites = tuple(
        SiteStatus(
            f"hospital-of-the-university-of-{i}",
            "Downloading",
            3,
            9,
            restarts,
            1812.0,
            {"validation/top_1_of_all": 0.5},
        )
        for i in range(3)
    )
    text = text_of(render([replace(RUNNING, sites=sites)], now=1000.0, width=width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "exam…" not in text
    assert "0.5…" not in text
    assert ("restarts" in text) == bool(restarts)
    assert text.count("33 %") == 3
