"""The times and numbers that decide in a session, from the job's spec."""

from __future__ import annotations

from dataclasses import dataclass

from .model import ParamsType
from .narrow import KEEP


@dataclass(frozen=True)
class Limits:
    """Times are seconds of running time.

    params_type: what sites answer with, FULL or DIFF. wire_dtype: see `narrow.wire_dtype`. max_bytes: of one sending.
    max_examples: that one answer may state.
    """

    round_seconds: float
    wait_seconds: float
    site_lost_seconds: float
    start_seconds: float
    active_seconds: float
    params_type: str = ParamsType.FULL
    wire_dtype: str = KEEP
    max_bytes: int = 1 << 62
    max_examples: int = 1 << 53
