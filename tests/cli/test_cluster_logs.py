"""Logs of many processes as one: the order of lines, their times, and what a terminal is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob.cluster.logs import Source, Wanted, nothing_yet, sources
from fedjob.cluster.merging import Line, Page, merged, nanoseconds, parsed


async def stream(lines: Sequence[Line]) -> AsyncIterator[Line]:
    """One log."""
    for line in lines:
        await asyncio.sleep(0)
        yield line


def merge(logs: Sequence[Sequence[Line]]) -> list[Line]:
    """All lines of some logs, as they come out."""

    async def run() -> list[Line]:
        return [line async for line in merged([stream(log) for log in logs])]

    return asyncio.run(run())


times = st.lists(st.integers(0, 20), max_size=8)


@given(logs=st.lists(times, max_size=5))
def test_logs_come_out_whole_each_in_its_order_and_by_time(logs: list[list[int]]) -> None:
    lines = [[Line(at, f"s{i}", str(n)) for n, at in enumerate(sorted(log))] for i, log in enumerate(logs)]
    out = merge(lines)
    assert [line.at for line in out] == sorted(line.at for line in out)
    assert [[line for line in out if line.source == f"s{i}"] for i in range(len(logs))] == lines


@given(logs=st.lists(times, max_size=4))
def test_a_clock_that_steps_back_does_not_reorder_a_log(logs: list[list[int]]) -> None:
    lines = [[Line(at, f"s{i}", str(n)) for n, at in enumerate(log)] for i, log in enumerate(logs)]
    out = merge(lines)
    assert [[line for line in out if line.source == f"s{i}"] for i in range(len(logs))] == lines


@given(
    moment=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - the strategy's bounds have no zone
    offset=st.integers(-12 * 60, 14 * 60),
    digits=st.integers(0, 9),
    fraction=st.integers(0, 999_999_999),
)
def test_a_time_is_read_to_the_nanosecond_with_any_precision_and_offset(
    moment: datetime, offset: int, digits: int, fraction: int
) -> None:
    zone = timezone(timedelta(minutes=offset))
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    text = f"{fraction:09d}"[:digits]
    there = whole.astimezone(zone)
    end = "Z" if offset == 0 else there.strftime("%z")[:3] + ":" + there.strftime("%z")[3:]
    stamp = there.strftime("%Y-%m-%dT%H:%M:%S") + (f".{text}" if text else "") + end
    expected = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * 10**9 + int(text.ljust(9, "0") or 0)
    assert nanoseconds(stamp) == expected


@pytest.mark.parametrize("stamp", ["", "now", "2030-01-01T00:00:00", "2030-01-01T00:00:00.Z", "Traceback"])
def test_what_is_no_time_is_said_to_be_none(stamp: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        nanoseconds(stamp)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_line(raw: bytes) -> None:
    assert parsed(raw, "server", 7).source == "server"


def test_a_line_without_a_time_has_that_of_the_one_before() -> None:
    assert parsed(b"2030-01-01T00:00:00Z loss 0.1 0.2", "a", 0) == Line(1893456000 * 10**9, "a", "loss 0.1 0.2")
    assert parsed(b"unable to retrieve logs", "a", 5) == Line(5, "a", "unable to retrieve logs")


def test_no_escape_sequence_of_a_script_is_shown_also_through_a_pipe_which_may_end_on_a_terminal() -> None:
    line = Line(0, "site-b", "\x1b]0;owned\x07 done\r100 %\t|")
    plain, coloured = (Page(["server", "site-b"], terminal=c).of(line) for c in (False, True))
    assert plain == "site-b  \\x1b]0;owned\\x07 done 100 %\t|"
    assert coloured == "\x1b[36msite-b\x1b[0m  \\x1b]0;owned\\x07 done 100 %\t|"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('{"time": "x", "level": "INFO", "message": "round 3 complete", "job": "digits"}', "INFO round 3 complete"),
        (
            '{"level": "ERROR", "message": "crashed", "error": "Traceback:\\nValueError: no"}',
            "ERROR crashed: ValueError: no",
        ),
        ('{"loss": 0.1}', '{"loss": 0.1}'),
        ("{not json", "{not json"),
        ("[" * 3, "[[["),
    ],
)
def test_a_person_reads_what_a_line_of_json_says_and_a_pipe_the_line(written: str, shown: str) -> None:
    line = Line(0, "a", written)
    assert Page(["a"], terminal=True).of(line).partition("m  ")[2] == shown
    assert Page(["a"], terminal=False).of(line) == f"a  {written}"


def test_each_site_keeps_its_colour_and_the_columns_are_aligned() -> None:
    page = Page(["server", "a", "long-name"], terminal=True)
    shown = [page.of(Line(0, source, "x")) for source in ("server", "a", "a/1", "long-name")]
    assert [text.partition("m")[0] for text in shown] == ["\x1b[1", "\x1b[36", "\x1b[36", "\x1b[33"]
    assert shown[0] == "\x1b[1mserver   \x1b[0m  x"


def pod(name: str, role: str, site: str = "", *, state: str = "running", namespace: str = "n", **more: Any) -> Any:
    """A pod of one container."""
    labels = {"fedjob.dev/role": role, **({"fedjob.dev/site": site} if site else {}), **more.pop("labels", {})}
    statuses = [{"name": role, "state": {state: {}}}]
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"metadata": metadata, "status": {"containerStatuses": statuses, **more}}


PODS = [
    pod("s1", "server", initContainerStatuses=[{"name": "initial-model", "state": {"terminated": {}}}]),
    pod("a1", "client", "a"),
    pod("b1", "client", "b", state="terminated", namespace="elsewhere"),
    pod("b2", "client", "b", state="waiting"),
    pod("c1", "client", "c", labels={"batch.kubernetes.io/job-completion-index": "1"}),
]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), ["server/initial-model", "server", "a", "b", "c/1"]),
        (Wanted(server=True), ["server/initial-model", "server"]),
        (Wanted(sites=("b",)), ["b"]),
        (Wanted(sites=("a",), server=True), ["server/initial-model", "server", "a"]),
    ],
)
def test_every_container_that_has_begun_has_a_log_under_the_name_of_its_site(wanted: Wanted, names: list[str]) -> None:
    found = sources(PODS, wanted)
    assert [source.name for source in found] == names
    assert [source.namespace for source in found if source.name == "b"] in ([], ["elsewhere"])
    assert all(source.running == (source.name not in ("server/initial-model", "b")) for source in found)


def test_the_same_container_is_the_same_source_whether_it_runs_or_not() -> None:
    assert Source("n", "p", "c", "a", running=True) == Source("n", "p", "c", "a", running=False)


def test_no_log_has_a_reason() -> None:
    job = {"metadata": {"name": "digits"}, "status": {"state": "QuotaExceeded"}}
    assert nothing_yet([], job) == "no pod of digits yet: it is QuotaExceeded"
    assert nothing_yet([PODS[3]], job) == "no log yet: b2 has not started"
