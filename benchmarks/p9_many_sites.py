"""P9: what many sites with a small model cost: rounds, and waiting."""

from __future__ import annotations

import statistics
import time
from typing import Any

import ours
from figure import Figure, Settings, mib, milliseconds


def measure(settings: Settings) -> Figure:
    """Rounds of a 10 KiB model at full speed; then one site trains for a while and all others wait."""
    sites, rounds = settings.sites, settings.site_rounds
    job = ours.empty(rounds, sites, hold=rounds - 1)
    with ours.running(settings.folder / "p9", job) as run:
        run.until("sent", rounds - 1, absent=1)
        idle_from = time.monotonic()
        run.let_pass(settings.idle_seconds)
        idle_to = time.monotonic()
        run.marks.let_go()
        run.until("sent", rounds - 1)
        done = ours.finished(run)
    seconds = [float(line["seconds"]) for line in done.train[1:-1]]  # the first has waited for sites, the last was held
    return Figure(
        title=f"rounds per second, {sites} sites, 10 KB model",
        value=round(1 / statistics.median(seconds), 2),
        unit="1/s",
        goal="",
        met=True,
        detail={
            "sites": sites,
            "rounds": len(seconds),
            "round_ms": milliseconds(statistics.median(seconds)),
            "round_ms_max": milliseconds(max(seconds)),
            "cpu_ms_per_round": _cpu_per_round(done),
            "server_peak_anonymous_mib": mib(done.usage.peak("server")),
            "client_peak_anonymous_mib_mean": mib(done.usage.peak("client") / sites),
            "idle_seconds": settings.idle_seconds,
            "idle_cpu_percent_of_a_core": {
                role: round(100 * sum(done.usage.cpu(role, idle_from, idle_to)) / (idle_to - idle_from), 2)
                for role in ("server", "client", "runner")
            },
        },
    )


def _cpu_per_round(run: ours.OurRun) -> dict[str, Any]:
    received = run.marks.at("received")
    site = run.marks.of("received")[0].site
    last = run.work.rounds - 2
    begin, end = received[site, 1].seconds, received[site, last].seconds
    return {role: milliseconds(sum(run.usage.cpu(role, begin, end)) / (last - 1)) for role in ("server", "client")}
