"""The machine and the versions that a figure belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DISTRIBUTIONS = ("fedjob", "grpcio", "protobuf", "numpy", "cryptography")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system and versions; the load tells whether the machine was busy with something else."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / (1 << 20), 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        **{name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
    }


def _field(path: str, name: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
