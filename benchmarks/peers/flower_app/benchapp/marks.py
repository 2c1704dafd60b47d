"""Tell the benchmark what happens, and when."""

import os
import time
from pathlib import Path


def mark(event: str, site: object, number: int) -> None:
    with Path(os.environ["BENCH_MARKS"]).open("wb", buffering=0) as pipe:
        pipe.write(f"{time.monotonic():.6f} {event} {site} {number}\n".encode())
