"""The table at the end fits any terminal, whatever the number of sites and metrics, and says what it leaves out."""

from __future__ import annotations

from io import StringIO

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from fedjob.cli.summary import Summary
from fedjob.outcome import Outcome, _site_outcome
from fedjob.records import JobRef, LoggedValue, Missing, Progress, RoundRecord, SiteRound, SiteStatus, Status


def outcome(sites: int, metrics: list[str], keys: list[str] = [], lost: tuple[str, ...] = ()) -> Outcome:  # noqa: B006
    names = [f"hospital-{i:03d}" for i in range(sites)]
    took_part = [name for name in names if name not in lost]
    record = RoundRecord(
        round=0,
        contributors=tuple(took_part),
        missing=tuple(Missing(name, "PeerLost") for name in lost),
        sites={name: SiteRound(10.0, dict.fromkeys(metrics, 0.5)) for name in took_part},
        metrics=dict.fromkeys(metrics, 0.5),
    )
    return Outcome(
        status=Status(job=JobRef("j"), state="Complete", progress=Progress(1, 1, 1)),
        rounds=(record,),
        evaluation=None,
        logged=tuple(LoggedValue(name, 0, None, key, 1.0) for name in names for key in keys),
        sites=tuple(_site_outcome(SiteStatus(n), [record], dict.fromkeys(keys, 1.0)) for n in names),
    )


def shown(found: Outcome, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(Summary(found))
    return out.getvalue()


@settings(max_examples=25, deadline=None)
@given(
    sites=st.integers(1, 40),
    metrics=st.lists(st.text("abcdefg/_日", min_size=1, max_size=60), max_size=30, unique=True),
    width=st.sampled_from([40, 60, 80, 120, 200]),
)
def test_no_line_is_wider_than_the_terminal_and_no_value_is_cut(sites: int, metrics: list[str], width: int) -> None:
    text = shown(outcome(sites, metrics, ["logged"]), width)
    assert [line for line in text.splitlines() if cell_len(line) > width] == []
    assert "0.5000" in text or not metrics
    assert "0.50…" not in text


def test_thirteen_metrics_of_two_sites_are_rows() -> None:
    text = shown(outcome(2, [f"metric-{i}" for i in range(13)]))
    assert text.count("0.5000") == 3 * 13
    assert text.count("┏") == 1


def test_seven_logged_tags_are_readable_at_80_columns() -> None:
    text = shown(outcome(3, ["accuracy", "loss"], [f"train/loss_{i}" for i in range(7)]))
    assert all(f"train/loss_{i}" in text for i in range(7))
    assert "Left out" not in text


def test_of_a_hundred_sites_those_in_trouble_have_a_row_and_the_rest_is_counted() -> None:
    text = shown(outcome(100, ["accuracy"], lost=("hospital-099",)))
    assert "hospital-099" in text
    assert "Left out here: 68 sites" in " ".join(text.split())
    assert "990" in text  # the examples of all, not of those shown


def test_the_names_of_one_site_displace_none_that_others_share() -> None:
    record = RoundRecord(
        round=0,
        sites={
            "evil": SiteRound(1, {f"x{i:03d}": 1.0 for i in range(200)}),
            "a": SiteRound(1, {"accuracy": 0.5}),
            "b": SiteRound(1, {"accuracy": 0.5}),
        },
    )
    found = Outcome(
        Status(), (record,), None, (), tuple(_site_outcome(SiteStatus(n), [record], {}) for n in record.sites)
    )
    assert found.metric_names[0] == "accuracy"
    assert "accuracy" in shown(found, 60)
    assert "177 values" in " ".join(shown(found, 60).split())


def test_examples_are_those_of_training() -> None:
    train = RoundRecord(round=0, contributors=("a",), sites={"a": SiteRound(63.0)})
    evaluate = RoundRecord(
        round=1, kind="Evaluate", contributors=("a", "b"), sites={"a": SiteRound(1.0), "b": SiteRound(1.0)}
    )
    a, b = (_site_outcome(SiteStatus(name, examples=1.0), [train, evaluate], {}) for name in ("a", "b"))
    assert (a.examples, b.examples) == (63.0, 0.0)
