"""P5: anonymous memory of the server over sizes of the model and numbers of clients, and of a client beside its model."""

from __future__ import annotations

from typing import Any

import ours
from figure import GIB, MIB, Figure, Settings, mib, size_text
from processes import MeasureError

GOAL_SERVER_BYTES = GIB // 2
GOAL_CLIENT_FACTOR, GOAL_CLIENT_BYTES = 1.05, 100 * MIB


def measure(settings: Settings) -> Figure:
    """The largest peak of a server; per combination, also the largest of its clients. What does not fit here is skipped."""
    rows, skipped = [], {}
    for size, clients in settings.grid:
        try:
            rows.append(_row(ours.large_run(settings, size, clients)))
        except MeasureError as e:
            skipped[f"{size_text(size)} × {clients}"] = str(e)
    if not rows:
        raise MeasureError(f"no combination could be measured: {skipped}")
    server = max(row["server_peak_mib"] for row in rows)
    return Figure(
        title=f"anonymous memory of the server, {len(rows)} of {len(settings.grid)} combinations, the largest",
        value=server,
        unit="MiB",
        goal=f"≤ {mib(GOAL_SERVER_BYTES):g} MiB; a client ≤ {GOAL_CLIENT_FACTOR:g} × model + {mib(GOAL_CLIENT_BYTES):g} MiB",
        met=server <= mib(GOAL_SERVER_BYTES) and all(row["client_met"] for row in rows),
        detail={"combinations": rows, "skipped": skipped},
    )


def _row(run: ours.OurRun) -> dict[str, Any]:
    above = max(_above_before(run, *key) for key in run.marks.at("receiving"))
    size = run.work.size
    return {
        "size": size_text(size),
        "clients": run.work.clients,
        "server_peak_mib": mib(run.usage.peak("server")),
        "client_peak_above_before_mib": mib(above),
        "client_beyond_model_mib": mib(above - size),
        "client_met": above <= GOAL_CLIENT_FACTOR * size + GOAL_CLIENT_BYTES,
    }


def _above_before(run: ours.OurRun, site: str, number: int) -> float:
    """Peak of a client, from before `receive` to after `send`, over what it held before."""
    before, after = run.marks.at("receiving")[site, number], run.marks.at("sent")[site, number]
    told = max(run.marks.at("received")[site, number].value, after.value)
    return max(run.usage.peak(f"client/{site}", before.seconds, after.seconds), told) - before.value
