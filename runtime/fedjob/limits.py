"""The times and numbers that decide in a session, from the job's spec."""

from __future__ import annotations

from dataclasses import dataclass

from .model import ParamsType


@dataclass(frozen=True)
class Limits:
    """All in seconds of running time. params_type: what sites answer with, FULL or DIFF."""

    round_seconds: float
    wait_seconds: float
    site_lost_seconds: float
    start_seconds: float
    active_seconds: float
    params_type: str = ParamsType.FULL
