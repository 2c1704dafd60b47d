"""P1: one object from process to process through the public API, beside a raw TLS socket, by turns."""

from __future__ import annotations

import os
import statistics
from dataclasses import replace

import ours
from figure import Figure, Settings, gib_per_second, size_text, spread
from processes import MeasureError
from raw_tls import CIPHER, RawTls, connected

GOAL_RATIO = 1.0


def measure(settings: Settings) -> Figure:
    """A job of one client that waits before each transfer; in between, the same bytes go over the raw socket."""
    if why := ours.lacking(settings.folder, settings.model, 1):
        raise MeasureError(why)
    job = ours.large(settings.model, 1, settings.transfers + 1, tensors=1)
    raw, kept = list[float](), list[float]()
    with ours.running(settings.folder / "p1", replace(job, variables={"BENCH_STEPS": "1"})) as run:
        with connected(run.log.parent / "raw") as line:
            for number in range(settings.transfers + 1):
                _by_turns(run, line, number, raw, kept)
        done = ours.finished(run)
    # The first of each kind warms caches and buffers on both sides and is not counted.
    seconds = {
        "receive": done.marks.between("receiving", "received")[1:],
        "send": done.marks.between("sending", "sent")[1:],
        "raw TLS": raw[2:],
        "raw TLS, kept": kept[1:],
    }
    rates = {what: gib_per_second(settings.model, statistics.median(each)) for what, each in seconds.items()}
    slower = min(rates["receive"], rates["send"])
    return Figure(
        title=f"one object of {size_text(settings.model)}, process to process, the slower direction",
        value=slower,
        unit="GiB/s",
        goal=f"≥ {GOAL_RATIO:.1f} × raw TLS",
        met=slower >= GOAL_RATIO * rates["raw TLS"],
        peers={name: rates[name] for name in ("raw TLS", "raw TLS, kept")},
        detail={
            "gib_per_second": rates,
            "ratio_to_raw": {what: round(rates[what] / rates["raw TLS"], 2) for what in ("receive", "send")},
            "seconds": {what: spread(each) for what, each in seconds.items()},
            "transfers": settings.transfers,
            "raw": f"TLS 1.3, {CIPHER}, Python ssl, certificates on both sides, one buffer of 1 MiB; kept: into fresh memory",
            "cpu": done.usage.summary(),
        },
    )


def _by_turns(run: ours.Running, line: RawTls, number: int, raw: list[float], kept: list[float]) -> None:
    """Kept, raw, receive, raw, send. Nobody is charged for what the turn before has left to be written to disk."""
    run.until("ready", number)
    os.sync()
    kept.append(line.seconds(run.job.work.size, keep=True))
    for event in ("received", "sent"):
        os.sync()
        raw.append(line.seconds(run.job.work.size))
        run.marks.let_go()
        run.until(event, number)
