"""P2: a whole FedAvg round of a large model: to two clients and back, averaged, on disk. Beside it, other systems."""

from __future__ import annotations

import statistics
from typing import Any

import ours
from comparison import peer_runs
from figure import GIB, Figure, Settings, gib_per_second, size_text, spread
from peers import PeerRun, Work
from processes import MeasureError

CLIENTS = 2
GOAL_RATIOS = {"nvflare": 8.0, "flower": 22.0}
_PEER_SECONDS_PER_GIB = 120.0  # of a round, at most


def measure(settings: Settings) -> Figure:
    """Model to model at a client, on all sides; then a larger model, ours alone."""
    run = ours.run(settings.folder / "p2", ours.large(settings.model, CLIENTS, settings.model_rounds, library="torch"))
    seconds = run.marks.intervals()
    runs, failed = peer_runs(settings, _peer_work(settings))
    ratios = {name: statistics.median(peer.round_seconds) / statistics.median(seconds) for name, peer in runs.items()}
    large = _large(settings) if settings.large else None
    return Figure(
        title=f"FedAvg round, {size_text(settings.model)} model, {CLIENTS} clients",
        value=round(statistics.median(seconds), 3),
        unit="s",
        goal=", ".join(f"≤ 1/{ratio:g} of {name}" for name, ratio in GOAL_RATIOS.items())
        + (f"; {size_text(settings.large)} completes" if large else ""),
        met=all(ratios.get(name, 0.0) >= goal for name, goal in GOAL_RATIOS.items()) and "error" not in (large or {}),
        peers={name: round(statistics.median(peer.round_seconds), 3) for name, peer in runs.items()},
        detail={
            **described(run),
            "peer_over_ours": {name: round(ratio, 1) for name, ratio in ratios.items()},
            "peers": {name: _detail(peer) for name, peer in runs.items()},
            "failed": failed,
            "large": large,
        },
    )


def described(run: ours.OurRun) -> dict[str, Any]:
    """Rounds, phases as the server tells them, memory and CPU of one of our runs."""
    seconds = run.marks.intervals()
    phases = {name: [line["phases"][name] for line in run.train] for name in run.train[0]["phases"]}
    moved = 2 * run.work.clients * run.work.size
    return {
        "size": size_text(run.work.size),
        "clients": run.work.clients,
        "rounds": run.work.rounds,
        "round_seconds": spread(seconds),
        "gib_per_second_moved": gib_per_second(moved, statistics.median(seconds)),
        "phases": {name: spread(each) for name, each in phases.items()},
        "usage": run.usage.summary(),
        "cpu_seconds_per_round": cpu_per_round(run),
    }


def cpu_per_round(run: ours.OurRun) -> dict[str, dict[str, float]]:
    """User and system CPU seconds of a round, per role, between the first and the last model at a client."""
    received = run.marks.of("received")
    begin, end = received[0].seconds, received[-1].seconds
    found = {}
    for role in ("server", "client"):
        user, system = run.usage.cpu(role, begin, end)
        rounds = run.work.rounds - 1
        found[role] = {"user": round(user / rounds, 2), "system": round(system / rounds, 2)}
    return found


def _large(settings: Settings) -> dict[str, Any]:
    try:
        if why := ours.lacking(settings.folder, settings.large, CLIENTS):
            raise MeasureError(why)
        return described(ours.run(settings.folder / "p2-large", ours.large(settings.large, CLIENTS, 3)))
    except MeasureError as e:
        return {"size": size_text(settings.large), "error": str(e)}


def _peer_work(settings: Settings) -> Work:
    seconds = 180.0 + settings.peer_model_rounds * (30.0 + settings.model / GIB * _PEER_SECONDS_PER_GIB)
    return Work(CLIENTS, settings.peer_model_rounds, 64, settings.model // 4 // 64, seconds)


def _detail(peer: PeerRun) -> dict[str, Any]:
    return {
        "deployment": peer.deployment,
        "versions": peer.versions,
        "round_seconds": spread(peer.round_seconds),
        "rounds": len(peer.round_seconds) // CLIENTS + 1,
        "usage": peer.usage,
    }
