"""P3: seconds of a FedAvg round of a 10 KB model without training, two clients, mTLS: what the system itself costs."""

from __future__ import annotations

import statistics
from typing import Any

import ours
from comparison import peer_runs
from figure import Figure, Settings, milliseconds, p95
from peers import ROUND_SECONDS, START_SECONDS, PeerRun, Work

GOAL_MS, GOAL_RATIO = 20.0, 100.0


def measure(settings: Settings) -> Figure:
    """Ours from history.jsonl, checked against the clients' clocks; peers from their clients' clocks."""
    run = ours.run(settings.folder / "p3", ours.empty(settings.rounds))
    told = [float(line["seconds"]) for line in run.train]
    seen = run.marks.intervals()
    runs, failed = peer_runs(settings, empty_work(settings))
    peers = {name: statistics.median(peer.round_seconds) for name, peer in runs.items()}
    # The ratio compares like with like: model to model at a client, on both sides.
    ratios = {name: seconds / statistics.median(seen) for name, seconds in peers.items()}
    worst = max(statistics.median(told), statistics.median(seen))
    return Figure(
        title="empty round, 10 KB model, 2 clients",
        value=milliseconds(statistics.median(told)),
        unit="ms",
        goal=f"≤ {GOAL_MS:.0f} ms and ≤ 1/{GOAL_RATIO:.0f} of each peer",
        met=milliseconds(worst) <= GOAL_MS and bool(runs) and not failed and min(ratios.values()) >= GOAL_RATIO,
        peers={name: milliseconds(seconds) for name, seconds in peers.items()},
        detail={
            "rounds": len(told),
            "p95": milliseconds(p95(told)),
            "max": milliseconds(max(told)),
            "client_side_median": milliseconds(statistics.median(seen)),
            "client_side_p95": milliseconds(p95(seen)),
            "client_side_send_median": milliseconds(statistics.median(run.marks.between("received", "sent"))),
            "phases_median": _phases(run),
            "peer_over_ours": {name: round(ratio, 1) for name, ratio in ratios.items()},
            "peers": {name: _detail(peer) for name, peer in runs.items()},
            "failed": failed,
        },
    )


def empty_work(settings: Settings) -> Work:
    """The peers' job of empty rounds."""
    return Work(rounds=settings.peer_rounds, seconds=START_SECONDS + settings.peer_rounds * ROUND_SECONDS)


def _phases(run: ours.OurRun) -> dict[str, float]:
    names = run.history[0].get("phases", {})
    return {name: milliseconds(statistics.median(line["phases"][name] for line in run.history)) for name in names}


def _detail(peer: PeerRun) -> dict[str, Any]:
    seconds = peer.round_seconds
    spread = {"min": min(seconds), "mean": statistics.fmean(seconds), "max": max(seconds)}
    return {
        "deployment": peer.deployment,
        "versions": peer.versions,
        "intervals": len(seconds),
        **{name: milliseconds(value) for name, value in spread.items()},
    }
