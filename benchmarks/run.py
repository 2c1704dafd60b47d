"""Take measures: `python benchmarks/run.py --only P3,P4` prints a table and writes build/bench.json.

Each measure is one module with `measure(settings) -> Figure`. Peers are installed before anything is measured.
`--smoke` runs every measure in a small size within a minute, to see that it can be taken; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import machine
import p1_transfer
import p2_round
import p3_empty_round
import p4_first_model
import p5_memory
import p6_endless
import p7_linear
import p8_path
import p9_many_sites
import plot
import profile_round
from comparison import PEERS
from figure import GIB, MIB, Figure, Settings
from folders import BUILD, ROOT
from processes import MeasureError
from rich.console import Console
from rich.table import Table

MEASURES: dict[str, Callable[[Settings], Figure]] = {
    "P1": p1_transfer.measure,
    "P2": p2_round.measure,
    "P3": p3_empty_round.measure,
    "P4": p4_first_model.measure,
    "P5": p5_memory.measure,
    "P6": p6_endless.measure,
    "P7": p7_linear.measure,
    "P8": p8_path.measure,
    "P9": p9_many_sites.measure,
    "profile": profile_round.measure,
}
SMOKE = Settings(
    folder=BUILD / "smoke", rounds=10, peer_rounds=3, starts=1, transfers=2, model=16 * MIB, large=0, model_rounds=3,
    peer_model_rounds=2, grid=((16 * MIB, 2),), sizes=(16 * MIB, 32 * MIB), clients=(2, 3), client_model=16 * MIB,
    object=64 * MIB, cuts=2, sites=4, site_rounds=8, idle_seconds=1.0,
)  # fmt: skip


def main() -> int:
    """The exit code: 0 if every measure was taken, met or not; 1 if one could not be."""
    only, keep, settings = _arguments()
    # `finally` ends the processes that we started, also when we are told to stop.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for name in settings.peers:
        PEERS[name].install()
    result, described, figures, failures = settings.folder.with_suffix(".json"), machine.describe(), {}, {}
    written: dict[str, Any] = {"machine": described}
    for name in only:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            figures[name] = MEASURES[name](settings)
        except (MeasureError, OSError, subprocess.SubprocessError) as e:
            failures[name] = str(e)
        written = _write(result, described, figures, failures, keep=keep)  # whatever happens to the next
    for form in (".svg", ".html"):
        plot.draw(written, result.with_suffix(form))
    _show(described, figures)
    print(result.relative_to(ROOT) if result.is_relative_to(ROOT) else result)
    for name, why in failures.items():
        print(f"{name} could not be measured: {why}", file=sys.stderr)
    return 1 if failures else 0


def _write(
    path: Path, described: dict[str, Any], figures: dict[str, Figure], failures: dict[str, str], *, keep: bool
) -> dict[str, Any]:
    """Write the result, and return it. keep: measures that were not taken now stay as they are in the file."""
    old: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if keep and path.exists() else {}
    new = {name: {**asdict(figure), "taken": described["date"]} for name, figure in figures.items()}
    new |= {name: {"met": False, "error": why, "taken": described["date"]} for name, why in failures.items()}
    result = {name: (old | new)[name] for name in MEASURES if name in old | new} | {"machine": described}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _show(described: dict[str, Any], figures: dict[str, Figure]) -> None:
    others = list(dict.fromkeys(name for figure in figures.values() for name in figure.peers))
    table = Table("", "measure", "fedjob", "goal", "met", *others)
    for name, figure in figures.items():
        beside = [f"{figure.peers[p]:g} {figure.unit}" if p in figure.peers else "–" for p in others]
        met = ("yes" if figure.met else "no") if figure.goal else "–"
        table.add_row(name, figure.title, f"{figure.value:g} {figure.unit}", figure.goal or "–", met, *beside)
    console = Console()
    console.print(table)
    console.print(f"{described['processor']}, {described['cores']} cores, {described['memory_gib']} GiB")


# ------------------------------------------------------------------------------------------------------ arguments


def _arguments() -> tuple[tuple[str, ...], bool, Settings]:
    """The measures, whether older ones stay in the result, and how much of each."""
    given = vars(_parser().parse_args())
    only, keep, smoke = (given.pop(name) for name in ("only", "keep", "smoke"))
    if smoke:
        given.setdefault("peers", ())
    base = SMOKE if smoke else Settings(peers=tuple(PEERS))
    return only, keep, replace(base, **given)


def _parser() -> argparse.ArgumentParser:
    """Options of the measures have the names of the settings; what is not given stays as `Settings` or the smoke has it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--only", type=_some_of(MEASURES), default=tuple(MEASURES), metavar="P3,P4", help="these alone")
    parser.add_argument("--list", action=_List, nargs=0, help="print the measures and leave")
    parser.add_argument("--smoke", action="store_true", default=False, help="small sizes of everything, no peers")
    parser.add_argument("--keep", action="store_true", default=False, help="leave other measures in the result file")
    parser.add_argument("--peers", type=_some_of(PEERS), metavar="nvflare,flower", help="these alone; '' for none")
    parser.add_argument(
        "--folder", type=lambda text: Path(text).resolve(), help="where measures work; the result is FOLDER.json"
    )
    kinds = {field.name: field for field in fields(Settings)}
    for name, (kind, example, text) in _OPTIONS.items():
        default = _text(kinds[name].default)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar=example, help=f"{text}; default {default}"
        )
    return parser


class _List(argparse.Action):
    def __call__(self, *_: Any) -> None:
        print(*MEASURES, sep="\n")
        sys.exit(0)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(GiB|MiB)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: 1GiB, 256MiB, 0")
    return int(float(found[1]) * {"GiB": GIB, "MiB": MIB, None: 1}[found[2]])


def _grid(text: str) -> tuple[tuple[int, int], ...]:
    cells = [cell.split("x") for cell in text.split(",")]
    return tuple((_size(size), int(clients)) for size, clients in cells)


def _pair(kind: Callable[[str], int]) -> Callable[[str], tuple[int, int]]:
    def parse(text: str) -> tuple[int, int]:
        first, second = text.split(",")
        return kind(first), kind(second)

    return parse


def _some_of(known: dict[str, Any]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return parse


def _text(value: Any) -> str:
    """A default as it would be given."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ",".join(f"{_text(size)}x{n}" for size, n in value)
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value / GIB:g}GiB" if isinstance(value, int) and value >= MIB else f"{value:g}"


_OPTIONS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "rounds": (int, "N", "rounds of our empty job (P3)"),
    "peer_rounds": (int, "N", "rounds of each peer's empty job (P3, P4)"),
    "starts": (int, "N", "starts of our job (P4)"),
    "transfers": (int, "N", "transfers in each direction (P1)"),
    "model": (_size, "SIZE", "what P1, P2 and the profile move"),
    "large": (_size, "SIZE", "the larger model of P2, ours alone; 0 for none"),
    "model_rounds": (int, "N", "rounds of our jobs of a large model (P2, profile)"),
    "grid_rounds": (int, "N", "rounds of each job of the grid (P5, P7)"),
    "peer_model_rounds": (int, "N", "rounds of each peer's job of a large model (P2)"),
    "grid": (_grid, "SIZExN,…", "sizes and clients (P5)"),
    "sizes": (_pair(_size), "SIZE,SIZE", "sizes to compare (P7)"),
    "clients": (_pair(int), "N,N", "numbers of clients to compare (P7)"),
    "client_model": (_size, "SIZE", "the model with which numbers of clients are compared (P7)"),
    "object": (_size, "SIZE", "the object of P6"),
    "cuts": (int, "N", "cuts of the connection (P6)"),
    "seed": (int, "N", "of the cuts (P6)"),
    "sites": (int, "N", "sites of a small model (P9)"),
    "site_rounds": (int, "N", "rounds of many sites (P9)"),
    "idle_seconds": (float, "SECONDS", "how long many sites wait (P9)"),
}


if __name__ == "__main__":
    sys.exit(main())
