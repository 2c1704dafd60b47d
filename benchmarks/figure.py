"""What a measure is told and what it gives back, and the statistics that measures share."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folders import BUILD

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Settings:
    """How much is run. All sizes in bytes.

    peers: other systems that are run beside ours. folder: where measures work; the result lies beside it.
    rounds, peer_rounds: of an empty round's job (P3), ours and each peer's. starts: of a job (P4).
    transfers: in each direction (P1). model: what P1, P2 and the profile move. large: ours alone (P2), 0 for none.
    model_rounds, peer_model_rounds: of a large model's job (P2, profile), ours and each peer's.
    grid: sizes and numbers of clients (P5). grid_rounds: of each of these jobs (P5, P7). sizes, clients: two of each to compare (P7), of `client_model` bytes.
    object, cuts, seed: P6. sites, site_rounds, idle_seconds: P9.
    """

    peers: tuple[str, ...] = ()
    folder: Path = BUILD / "bench"
    rounds: int = 200
    peer_rounds: int = 10
    starts: int = 5
    transfers: int = 7
    model: int = GIB
    large: int = 4 * GIB
    model_rounds: int = 5
    peer_model_rounds: int = 4
    grid: tuple[tuple[int, int], ...] = tuple((s * GIB, n) for s, n in ((1, 2), (1, 4), (1, 8), (1, 16), (4, 2), (4, 4), (8, 2)))  # fmt: skip
    grid_rounds: int = 3
    sizes: tuple[int, int] = (GIB, 8 * GIB)
    clients: tuple[int, int] = (2, 16)
    client_model: int = GIB
    object: int = 128 * GIB
    cuts: int = 20
    seed: int = 1
    sites: int = 64
    site_rounds: int = 60
    idle_seconds: float = 30.0


@dataclass(frozen=True)
class Figure:
    """One measure's result; value and peers are in `unit`. goal: "" for what is only looked at."""

    title: str
    value: float
    unit: str
    goal: str
    met: bool
    peers: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)


def p95(values: list[float]) -> float:
    """The value that 95 % of them do not exceed. At least two values."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def mib(size: float) -> float:
    return round(size / MIB, 1)


def gib_per_second(size: int, seconds: float) -> float:
    return round(size / GIB / seconds, 3)


def size_text(size: int) -> str:
    """A size as people say it: 1 GiB, 16 MiB, 10 KiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"


def spread(values: Iterable[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest, rounded."""
    kept = list(values)
    return {name: round(f(kept), digits) for name, f in (("median", statistics.median), ("min", min), ("max", max))}
