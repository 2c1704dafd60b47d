"""What others wrote never acts on a terminal, in a log or on a page: the filter, and every way out of the program."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedjob import logs
from fedjob.acceptance import Header, read_header
from fedjob.cli import live
from fedjob.cluster.merging import Line, Page
from fedjob.cluster.view import lines as cluster_lines
from fedjob.cluster.view import render as cluster_view
from fedjob.records import (
    HISTORY_FILE,
    METRICS_FILE,
    STATUS_FILE,
    Condition,
    JobRef,
    LoggedValue,
    Missing,
    RoundRecord,
    SiteRound,
    SiteStatus,
    Status,
    append,
    from_json,
    read_status,
    to_json,
    write_status,
)
from fedjob.report import render
from fedjob.screen import Harmless, console
from fedjob.terminal import say
from fedjob.text import cut, lines, one_line
from fedjob_operator.hub.reports import manifest
from fedjob_operator.observed import read_refusal

# A title, the clipboard, a cleared screen, a forged line, an overwritten one, C1's CSI, a reordered word, hidden characters.
EVIL = "\x1b]0;t\x07\x1b]52;c;eA==\x07\x1b[2Jx\nround 9/9\rok\x9b2J\u202eevil\u2066\u200b\u00ad\ufeff\u3164\U000e0041\x00\x7f"
# What rich writes itself: styles, and in a live view movements of the cursor.
TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from("\x1b\x07\r\n\t\x85\x9b\u2028\u200b\u202e\u2066\ufeff")), max_size=60
)


def acts(text: str) -> list[str]:
    """Characters of `text` that do something, or that nobody sees."""
    return [
        c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or c == "\u3164")
    ]


@given(TEXT)
def test_a_line_has_nothing_that_acts_and_is_one_line(text: str) -> None:
    shown = one_line(text)
    assert acts(shown) == []
    assert len(shown.splitlines()) <= 1
    assert one_line(shown) == shown


@given(TEXT)
def test_several_lines_keep_their_ends_and_tabs(text: str) -> None:
    assert acts(lines(text).replace("\t", "")) == []


@given(st.text(min_size=1, max_size=40), st.integers(3, 50))
def test_a_cut_is_in_bytes_and_marked(text: str, most: int) -> None:
    short = cut(text, most)
    assert len(short.encode()) <= most
    assert short == text or short.endswith("…")
    assert len(one_line(text * 50, most).encode()) <= most


def test_words_of_any_language_stay() -> None:
    for text in ("Zürich", "naïve café", "日本語", "mit 3\u00a0mm".replace("\u00a0", " "), "✓ 💩", "שלום"):
        assert one_line(text) == text


def test_what_is_hidden_becomes_visible() -> None:
    assert one_line("acc\u200buracy\x1b[2J\udce9") == r"acc\u200buracy\x1b[2J\udce9"


# ------------------------------------------------------------------------------------ every way out


def _status() -> Status:
    sites = (SiteStatus("a", "Lost", message=EVIL, metrics={EVIL: 0.5}), SiteStatus(EVIL, "Training"))
    return Status(
        job=JobRef(EVIL, "u"),
        state="Failed",
        reason=EVIL,
        message=EVIL,
        conditions=(Condition("DiskFull", EVIL, EVIL),),
        metrics={EVIL: 0.5},
        sites=sites,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder as a hostile server could have written it."""
    record = RoundRecord(
        round=0,
        contributors=("a", EVIL),
        missing=(Missing("b", EVIL, EVIL),),
        sites={"a": SiteRound(3, {EVIL: 0.5}), EVIL: SiteRound(1, {EVIL: 0.1})},
        metrics={EVIL: 0.5},
        phases={EVIL: 1.0},
    )
    (tmp_path / STATUS_FILE).write_text(json.dumps(to_json(_status())), encoding="utf-8")
    (tmp_path / HISTORY_FILE).write_text(json.dumps(to_json(record)) + "\n", encoding="utf-8")
    value = to_json(LoggedValue("a", 0, None, EVIL, 1.0))
    (tmp_path / METRICS_FILE).write_text(json.dumps(value) + "\n", encoding="utf-8")
    return tmp_path


def test_the_lines_of_a_run() -> None:
    assert [line for line in live.lines(None, _status()) if acts(line) or "\n" in line] == []
    assert [line for line in live.lines(None, replace(_status(), state="Running")) if acts(line) or "\n" in line] == []


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_the_table_and_the_lines_on_any_console(folder: Path, terminal: bool) -> None:
    out = io.StringIO()
    plain = Console(file=out, force_terminal=terminal, color_system=None, width=100)
    status = read_status(folder / STATUS_FILE)
    assert status is not None
    plain.print(live.render([status], now=0.0))
    plain.print(live.final_table(folder))
    assert acts(out.getvalue()) == []


def test_a_live_view_on_a_terminal_moves_only_the_cursor() -> None:
    out = io.StringIO()
    plain = Console(file=out, force_terminal=True, color_system=None, width=100)
    with Live(Harmless(Text(EVIL)), console=plain, auto_refresh=False):
        pass
    assert acts(re.sub(r"\x1b\[(\?25[lh]|2K|1A)|\r\x1b", "", out.getvalue())) == []


def test_a_console_of_ours_filters_whatever_is_printed() -> None:
    out = io.StringIO()
    table = Table(title=Text(EVIL))
    table.add_column(Text(EVIL))
    table.add_row(Text(EVIL))
    for each in (table, Text(EVIL), EVIL):
        console(file=out, width=500).print(each, markup=False)
    assert acts(out.getvalue()) == []


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    say(EVIL, err=True)
    said = capsys.readouterr()
    assert acts(said.out + said.err) == []
    assert "9/9" in said.out
    assert "9/9" in said.err


def test_the_page(folder: Path) -> None:
    from fedjob.outcome import read_outcome

    page = render(read_outcome(folder), job_file=f"a: b\n# {EVIL}\tz\n")
    ours, _, _ = page.partition("<script>/*")  # plotly's own script follows
    assert acts(ours.replace("\t", "")) == []
    for figure in re.findall(r'<script type="application/json">(.*?)</script>', ours):
        assert acts(json.dumps(json.loads(figure), ensure_ascii=False)) == []


def test_lines_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs.TextLines("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise OSError(28, "No space", f"/x/{EVIL}")
    except OSError as e:
        logger.exception("%s: %s", EVIL, e)
    assert acts(out.getvalue()) == []
    assert out.getvalue().splitlines()[1] == "Traceback (most recent call last):"


def test_what_comes_from_the_wire() -> None:
    header = read_header(json.dumps({**json.loads(Header().to_json()), "metrics": {EVIL: 1.0, "💩" * 500: 2.0}}))
    assert isinstance(header, Header)
    assert [acts(name) for name in header.metrics] == [[], []]
    assert max(len(name.encode()) for name in header.metrics) <= 128


def test_what_files_and_the_hub_read() -> None:
    read = from_json(Status, json.loads(json.dumps(to_json(_status()))))
    assert acts("".join([*read.metrics, read.message, *(s.message + s.name for s in read.sites)])) == []
    job = {"metadata": {"namespace": "n", "name": "j", "uid": "u", "resourceVersion": "1"}, "spec": {}}
    from datetime import UTC, datetime

    said = json.dumps(manifest(job, read, datetime.now(UTC)), ensure_ascii=False)
    assert acts(said) == []


def test_the_view_of_a_cluster_and_its_logs() -> None:
    job = {
        "metadata": {"name": EVIL, "namespace": "n"},
        "spec": {"workflow": {"rounds": 1}, "sites": []},
        "status": {
            "state": EVIL,
            "metrics": [{"name": EVIL, "value": EVIL}],
            "conditions": [{"type": "Degraded", "status": "True", "reason": EVIL, "message": EVIL}],
            "sites": [{"name": EVIL, "state": "Running", "training": EVIL, "trainingMessage": EVIL}],
        },
    }
    out = io.StringIO()
    console(file=out, width=200).print(cluster_view(job))
    assert acts(out.getvalue()) == []
    for text in cluster_lines(None, job):
        assert acts(one_line(text)) == []
    for terminal in (True, False):
        shown = Page(["server", "a"], terminal).of(Line(0, "a", EVIL))
        assert acts(shown.replace("\x1b[36m", "").replace("\x1b[0m", "")) == []
    assert acts(read_refusal([{"message": EVIL}])) == []


def test_a_status_is_written_and_read_with_any_text(tmp_path: Path) -> None:
    write_status(tmp_path / STATUS_FILE, _status())
    append(tmp_path / HISTORY_FILE, RoundRecord(round=0, metrics={EVIL: 1.0}))
    assert read_status(tmp_path / STATUS_FILE) is not None
