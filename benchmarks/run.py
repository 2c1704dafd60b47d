"""Take measures: `python benchmarks/run.py --only P3,P4` prints a table and writes build/bench.json.

Each measure is one module with `measure(settings) -> Figure`. Peers are installed before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import machine
import p3_empty_round
import p4_first_model
from comparison import PEERS
from figure import Figure, Settings
from folders import BUILD, ROOT
from processes import MeasureError
from rich.console import Console
from rich.table import Table

MEASURES: dict[str, Callable[[Settings], Figure]] = {
    "P3": p3_empty_round.measure,
    "P4": p4_first_model.measure,
}
RESULT = BUILD / "bench.json"


def main() -> int:
    """The exit code: 0 if every measure was taken, met or not; 1 if one could not be."""
    arguments = _parser().parse_args()
    settings = Settings(arguments.rounds, arguments.peer_rounds, arguments.runs, arguments.peers)
    # `finally` ends the processes that we started, also when we are told to stop.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for name in settings.peers:
        PEERS[name].install()
    described, figures, failures = machine.describe(), {}, {}
    for name in arguments.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            figures[name] = MEASURES[name](settings)
        except (MeasureError, OSError) as e:
            failures[name] = str(e)
    _write(described, figures, failures)
    _show(described, figures, settings.peers)
    for name, why in failures.items():
        print(f"{name} could not be measured: {why}", file=sys.stderr)
    return 1 if failures else 0


def _write(described: dict[str, Any], figures: dict[str, Figure], failures: dict[str, str]) -> None:
    result = {name: asdict(figure) for name, figure in figures.items()}
    result |= {name: {"met": False, "error": why} for name, why in failures.items()}
    BUILD.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**result, "machine": described}, indent=1, ensure_ascii=False) + "\n")


def _show(described: dict[str, Any], figures: dict[str, Figure], peers: tuple[str, ...]) -> None:
    table = Table("", "measure", "fedjob", "goal", "met", *peers)
    for name, figure in figures.items():
        others = [f"{figure.peers[p]:g} {figure.unit}" if p in figure.peers else "–" for p in peers]
        met = "yes" if figure.met else "no"
        table.add_row(name, figure.title, f"{figure.value:g} {figure.unit}", figure.goal, met, *others)
    console = Console()
    console.print(table)
    console.print(
        f"{described['processor']}, {described['cores']} cores, {described['memory_gib']} GiB; {RESULT.relative_to(ROOT)}"
    )


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_some_of(MEASURES), default=tuple(MEASURES), metavar="P3,P4", help="these alone")
    parser.add_argument(
        "--peers", type=_some_of(PEERS), default=tuple(PEERS), metavar="nvflare,flower", help="these alone; '' for none"
    )
    parser.add_argument("--rounds", type=int, default=default.rounds, help="rounds of our job (P3)")
    parser.add_argument("--peer-rounds", type=int, default=default.peer_rounds, help="rounds of each peer's job")
    parser.add_argument("--runs", type=int, default=default.runs, help="starts of our job (P4)")
    return parser


def _some_of(known: dict[str, Any]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
