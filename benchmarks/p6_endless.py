"""P6: an object beyond every disk, from a synthetic source to a digesting sink, both ways; then with the connection cut."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import synthetic
from cutter import cutting
from figure import MIB, Figure, Settings, gib_per_second, mib, size_text
from folders import emptied
from processes import MeasureError, contained

GOAL_PEAK_BYTES, GOAL_AGAIN_BYTES = 256 * 10**6, 16 * MIB
_START_SECONDS, _SECONDS_PER_GIB = 60.0, 20.0


def measure(settings: Settings) -> Figure:
    """Both directions, undisturbed and cut; the largest resident memory of any end, its source included."""
    size = settings.object
    folder = emptied(settings.folder / "p6")
    expected = synthetic.prepare(folder, size)
    rows = [
        _transfer(settings, folder, way, cuts, expected) for way in ("send", "receive") for cuts in (0, settings.cuts)
    ]
    peak = max(peak for row in rows for peak in row["peak_mib"].values())
    again = max(row["again_max_mib"] for row in rows)
    right = all(row["digests_right"] and row["cuts"] == row["cuts_wanted"] for row in rows)
    return Figure(
        title=f"resident memory of an end, object of {size_text(size)}, 4 transfers, the largest",
        value=peak,
        unit="MiB",
        goal=f"≤ {mib(GOAL_PEAK_BYTES):g} MiB, digests right; ≤ {mib(GOAL_AGAIN_BYTES):g} MiB sent again for a cut",
        met=right and peak <= mib(GOAL_PEAK_BYTES) and again <= mib(GOAL_AGAIN_BYTES),
        detail={"seed": settings.seed, "transfers": rows, "again_max_mib": again},
    )


def _transfer(settings: Settings, folder: Path, way: str, cuts: int, expected: str) -> dict[str, Any]:
    size = settings.object
    with contained():
        server = _start("serve", folder, size, 0)
        port = int(_line(server, _START_SECONDS)["port"])
        with cutting(port, cuts, size, settings.seed) as line:
            began = time.monotonic()
            site = _start(way, folder, size, line.port if cuts else port)
            near = _line(site, _START_SECONDS + size / (1 << 30) * _SECONDS_PER_GIB)
            seconds = time.monotonic() - began
            far = _line(server, _START_SECONDS)
        for process in (site, server):
            process.communicate(timeout=_START_SECONDS)
    again = [n for n in (near if way == "send" else far)["again"] if n]
    return {
        "way": way,
        "cuts_wanted": cuts,
        "cuts": line.cuts,
        "gib_per_second": gib_per_second(size, seconds),
        "digests_right": (far if way == "send" else near)["digest"] == expected,
        "peak_mib": {"site": mib(near["peak"]), "server": mib(far["peak"])},
        "again_mib": again,
        "again_max_mib": max(again, default=0),
        "relayed_mib": {way: mib(n) for way, n in line.relayed.items()},
    }


def _start(side: str, folder: Path, size: int, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, synthetic.__file__, side, str(folder), str(size), str(port)]
    log = (folder / f"{side}.log").open("a", encoding="utf-8")
    with log:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, encoding="utf-8"
        )


def _line(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """The next thing that an end tells. Raises MeasureError if it ends first or is late."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    if not ready or not (line := process.stdout.readline()):
        raise MeasureError(f"an end of the transfer said nothing within {seconds:.0f} s; see build/bench/p6")
    told: dict[str, Any] = json.loads(line)
    return told
