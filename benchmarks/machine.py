"""The machine and the versions that a figure belongs to."""

from __future__ import annotations

import importlib.metadata
import mmap
import os
import platform
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DISTRIBUTIONS = ("fedjob", "grpcio", "protobuf", "numpy", "cryptography")
_TOUCHED_BYTES = 256 << 20


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system and versions; the load tells whether the machine was busy with something else."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / (1 << 20), 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "first_touch_gib_per_second": _first_touch(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        **{name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
    }


def _first_touch() -> float:
    """Rate at which memory that this process never had is filled with zeros.

    Where a virtual machine gives free memory back to its host this is slow, and so is everything that needs new memory.
    """
    began = time.monotonic()
    with mmap.mmap(-1, _TOUCHED_BYTES) as memory:
        for at in range(0, _TOUCHED_BYTES, mmap.PAGESIZE):
            memory[at] = 1
    return round(_TOUCHED_BYTES / (1 << 30) / (time.monotonic() - began), 2)


def _field(path: str, name: str) -> str | None:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
