"""P4: seconds from the exec of `fedjob run` to the first model at a client, for a script that imports numpy only."""

from __future__ import annotations

import statistics
from typing import Any

import ours
from comparison import peer_runs
from figure import Figure, Settings
from p3_empty_round import empty_work
from peers import PeerRun

GOAL_SECONDS = 3.0
STEPS = ("started", "imported", "initialised", "received")


def measure(settings: Settings) -> Figure:
    """The median of several starts; beside it, what each peer includes in its own start."""
    starts = [ours.run(settings.folder / "p4", ours.empty(1)) for _ in range(settings.starts)]
    seconds = [run.since_began("received") for run in starts]
    runs, failed = peer_runs(settings, empty_work(settings))
    return Figure(
        title="`fedjob run` to the first model at a client",
        value=round(statistics.median(seconds), 3),
        unit="s",
        goal=f"≤ {GOAL_SECONDS:.0f} s",
        met=statistics.median(seconds) <= GOAL_SECONDS,
        peers={name: round(peer.first_model_seconds, 3) for name, peer in runs.items()},
        detail={
            "runs": [round(s, 3) for s in seconds],
            "includes": "certificates, start of server and clients, submission",
            "script_median": {e: round(statistics.median(run.since_began(e) for run in starts), 3) for e in STEPS},
            "peers": {name: _detail(peer) for name, peer in runs.items()},
            "failed": failed,
        },
    )


def _detail(peer: PeerRun) -> dict[str, Any]:
    whole = peer.with_deployment_seconds
    return {
        "deployment": peer.deployment,
        "versions": peer.versions,
        "includes": peer.first_model_includes,
        "with_deployment": None if whole is None else round(whole, 3),
    }
