"""P7: cost grows linearly: time per GiB with the model's size, time per client with the number of clients."""

from __future__ import annotations

import statistics

import ours
from figure import GIB, Figure, Settings, size_text

GOAL_SIZE, GOAL_CLIENTS = 0.15, 0.25
CLIENTS = 2


def measure(settings: Settings) -> Figure:
    """Two sizes with two clients each, two numbers of clients with one size each; jobs that P5 has run are not run again."""
    per_gib = {size_text(s): _seconds(settings, s, CLIENTS) / (s / GIB) for s in settings.sizes}
    per_client = {n: _seconds(settings, settings.client_model, n) / n for n in settings.clients}
    small, large = per_gib.values()
    few, many = per_client.values()
    growth, crowd = large / small - 1, many / few - 1
    return Figure(
        title=f"growth of the time per GiB, {' to '.join(per_gib)}",
        value=round(100 * growth, 1),
        unit="%",
        goal=f"≤ {GOAL_SIZE:.0%}; per client, {' to '.join(map(str, per_client))} clients: ≤ {GOAL_CLIENTS:.0%}",
        met=growth <= GOAL_SIZE and crowd <= GOAL_CLIENTS,
        detail={
            "seconds_per_gib": {name: round(s, 3) for name, s in per_gib.items()},
            "seconds_per_client": {str(n): round(s, 3) for n, s in per_client.items()},
            "per_client_model": size_text(settings.client_model),
            "per_client_growth_percent": round(100 * crowd, 1),
        },
    )


def _seconds(settings: Settings, size: int, clients: int) -> float:
    return statistics.median(ours.large_run(settings, size, clients).marks.intervals())
