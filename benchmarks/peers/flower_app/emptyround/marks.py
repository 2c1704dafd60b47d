"""Tell the benchmark what happens, and when."""

import os
import time


def mark(event: str, site: object, number: int) -> None:
    with open(os.environ["BENCH_MARKS"], "wb", buffering=0) as pipe:
        pipe.write(f"{time.monotonic():.6f} {event} {site} {number}\n".encode())
