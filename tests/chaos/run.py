"""Play jobs under faults until so many have struck: `python -m chaos.run --seed 7 --kills 200`.

Prints each fault when the job has got over it, then totals, and writes build/chaos.json. Exit code 1 if anything was not as
it must be, with the command that does the same again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from chaos.faults import Plan, plan
from chaos.play import Outcome, Row, play, undisturbed
from chaos.verdict import Reference

BUILD = Path(__file__).parents[2] / "build"
RESULT = BUILD / "chaos.json"
_AT_ONCE = 2  # jobs: while one waits for a restart, the other works
_COLUMNS = "{:>4}  {:<14} {:<30} {:<12} {:<24} {:<60} {:>6}"


@dataclass
class Report:
    """The table, as it grows."""

    console: Console
    struck: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def head(self) -> None:
        """The names of the columns."""
        self.console.print(
            _COLUMNS.format("", "job", "fault", "target", "moment", "what recovered", "s"), style="bold", soft_wrap=True
        )

    def row(self, row: Row) -> None:
        """One fault."""
        self.struck += 1
        action = row.fault.action
        self.kinds[type(action).__name__] += 1
        job = f"{row.plan.number} {row.plan.shape.name}"
        cells = (str(action), " ".join(action.targets), row.fault.moment, row.recovered, f"{row.seconds:.2f}")
        self.console.print(_COLUMNS.format(self.struck, job, *cells), soft_wrap=True, markup=False, highlight=False)

    def outcome(self, outcome: Outcome, seed: int) -> None:
        """What a job ended with; all of its schedule and story if that was not as it must be."""
        name = f"job {outcome.plan.number} {outcome.plan.shape.name}"
        if not outcome.violations:
            self.console.print(
                f"      {name}: same bytes as undisturbed, {len(outcome.struck)} faults, {outcome.seconds:.1f} s",
                style="green",
                highlight=False,
            )
            return
        self.console.print(f"      {name}: VIOLATION", style="bold red")
        for line in (*outcome.violations, f"seed {seed}, plan {outcome.plan.number}, {outcome.plan.shape}:"):
            self.console.print(f"      {line}", markup=False, highlight=False)
        for fault in outcome.plan.faults:
            done = "x" if any(row.fault is fault for row in outcome.struck) else " "
            self.console.print(f"      {done} {fault.moment}: {fault.action!r}", markup=False, highlight=False)
        self.console.print(outcome.story, markup=False, highlight=False)


async def campaign(seed: int, plans: Iterator[Plan], kills: int, report: Report, folder: Path) -> list[Outcome]:
    """Jobs, a few at once, until so many faults have struck."""
    references: dict[str, Reference] = {}
    making = asyncio.Lock()
    outcomes: list[Outcome] = []
    under_way = 0

    async def worker() -> None:
        nonlocal under_way
        for each in plans:
            left = kills - under_way - sum(len(o.struck) for o in outcomes)
            if left <= 0:
                return
            this = each.first(left)
            under_way += len(this.faults)
            place = folder / f"{this.number}"
            async with making:
                if this.shape.name not in references:
                    references[this.shape.name] = await undisturbed(this.shape, folder / this.shape.name)
            outcomes.append(await play(this, place, references[this.shape.name], report.row))
            under_way -= len(this.faults)
            report.outcome(outcomes[-1], seed)
            if not outcomes[-1].violations:
                shutil.rmtree(place)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())
    return outcomes


def main() -> int:
    """The exit code."""
    arguments = _parser().parse_args()
    report, began = Report(Console(width=160 if not sys.stdout.isatty() else None)), time.monotonic()
    numbers = iter([arguments.plan]) if arguments.plan is not None else iter(range(1_000_000))
    plans = (plan(arguments.seed, n, brief=arguments.brief) for n in numbers)
    report.console.print(f"seed {arguments.seed}, {arguments.kills} faults", style="bold")
    report.head()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        outcomes = asyncio.run(campaign(arguments.seed, plans, arguments.kills, report, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _conclude(arguments.seed, outcomes, report, time.monotonic() - began)


def _conclude(seed: int, outcomes: list[Outcome], report: Report, seconds: float) -> int:
    wrong = {o.plan.number: o.violations for o in outcomes if o.violations}
    _write(seed, outcomes, report, seconds)
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.most_common())
    held = max((s.usage.anonymous for o in outcomes for s in o.samples), default=0)
    report.console.print(
        f"{report.struck} faults in {len(outcomes)} jobs, {seconds:.0f} s: {kinds}. "
        f"Server: at most {held >> 20} MiB. {RESULT.relative_to(BUILD.parent)}",
        highlight=False,
    )
    for number, what in wrong.items():
        report.console.print(f"job {number}: {'; '.join(what)}", style="bold red", markup=False)
        report.console.print(f"again: make chaos SEED={seed} PLAN={number}", markup=False)
    return 1 if wrong else 0


def _write(seed: int, outcomes: list[Outcome], report: Report, seconds: float) -> None:
    """The measures, in the form of the benchmarks'."""
    wrong = {o.plan.number: o.violations for o in outcomes if o.violations}
    kills = report.kinds["Kill"] + report.kinds["Freeze"]
    common = {"goal": "the undisturbed run's bytes", "met": not wrong, "peers": {}}
    jobs = [
        {
            "number": o.plan.number,
            "shape": o.plan.shape.name,
            "seconds": round(o.seconds, 1),
            "violations": o.violations,
            "faults": [{**asdict(r.fault), "kind": str(r.fault.action), "recovered": r.recovered,
                        "seconds": round(r.seconds, 2)} for r in o.struck],
        }
        for o in outcomes
    ]  # fmt: skip
    result = {
        "F1": {"value": kills, "unit": "kills", **common, "detail": dict(report.kinds)},
        "F2": {"value": report.struck - kills, "unit": "other faults", **common, "detail": dict(report.kinds)},
        "run": {"seed": seed, "seconds": round(seconds, 1), "machine": platform.platform(), "jobs": jobs},
    }
    BUILD.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the schedule")
    parser.add_argument("--kills", type=int, default=200, help="faults in all")
    parser.add_argument("--plan", type=int, default=None, help="this job of the schedule alone")
    parser.add_argument("--brief", action="store_true", help="without what takes many seconds by its nature")
    return parser


if __name__ == "__main__":
    sys.exit(main())
