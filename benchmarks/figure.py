"""What a measure gives back, and the statistics that measures share."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """How much is run. rounds: of our job; peer_rounds: of each peer's; runs: repetitions of a start."""

    rounds: int = 200
    peer_rounds: int = 10
    runs: int = 5
    peers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One measure's result; value and peers are in `unit`."""

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
