"""What a measured script tells the benchmark, and how it waits for it."""

import os
import time
from pathlib import Path


def mark(event: str, site: str, number: int, value: float = 0.0, seconds: float | None = None) -> None:
    at = time.monotonic() if seconds is None else seconds
    with Path(os.environ["BENCH_MARKS"]).open("wb", buffering=0) as pipe:
        pipe.write(f"{at:.6f} {event} {site} {number} {value:.6g}\n".encode())


def wait_for_go() -> None:
    """Wait until the benchmark lets this script go on."""
    with Path(os.environ["BENCH_GO"]).open("rb", buffering=0) as pipe:
        pipe.read(1)


def anonymous_bytes() -> int:
    """What this process holds and cannot give back."""
    with Path("/proc/self/status").open(encoding="utf-8") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("RssAnon:"))
