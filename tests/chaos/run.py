"""Play jobs under faults until so many have struck, then each scenario: `python -m chaos.run --seed 7 --faults 200`.

Prints each fault when the job has got over it, then totals, and writes build/chaos.json. Exit code 1 if anything was not as
it must be, with the command that does the same again.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from chaos.faults import Plan, plan
from chaos.play import play, undisturbed
from chaos.processes import CannotHere
from chaos.report import Report, Staged
from chaos.scenarios import SCENARIOS
from chaos.verdict import Reference

_AT_ONCE = 2  # jobs: while one waits for a restart, the other works


async def campaign(plans: Iterator[Plan], faults: int, report: Report, folder: Path) -> None:
    """Jobs, a few at once, until so many faults have struck."""
    references: dict[str, Reference] = {}
    making = asyncio.Lock()
    under_way = 0

    async def worker() -> None:
        nonlocal under_way
        for each in plans:
            left = faults - under_way - sum(len(o.struck) for o in report.outcomes)
            if left <= 0:
                return
            this = each.first(left)
            under_way += len(this.faults)
            place, shape = folder / f"{this.number}", this.shape
            async with making:
                if shape.name not in references:
                    references[shape.name] = await undisturbed(shape, folder / shape.name)
            outcome = await play(this, place, references[shape.name], report.row)
            under_way -= len(this.faults)
            report.outcome(outcome)
            if not outcome.violations:
                shutil.rmtree(place)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())


async def stage(name: str, report: Report, folder: Path) -> None:
    """One scenario."""
    began = time.monotonic()

    def tell(became: str, said: str) -> None:
        report.stage(Staged(name, became, said, time.monotonic() - began))  # type: ignore[arg-type]

    try:
        tell("held", await SCENARIOS[name](folder / name))
    except CannotHere as e:
        tell("skipped", str(e))
    except AssertionError as e:
        tell("violated", str(e))


def main() -> int:
    """The exit code."""
    arguments = _parser().parse_args()
    console = Console(width=160 if not sys.stdout.isatty() else None)
    report = Report(arguments.seed, console, arguments.result)
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="chaos-"))
    numbers = iter([arguments.plan]) if arguments.plan is not None else iter(range(1_000_000))
    plans = (plan(arguments.seed, n, brief=arguments.brief) for n in numbers)
    alone = arguments.plan is not None or arguments.only
    try:
        if not arguments.only:
            report.console.print(f"seed {arguments.seed}, {arguments.faults} faults", style="bold")
            report.head()
            asyncio.run(campaign(plans, arguments.faults, report, folder))
        for name in arguments.only or ([] if alone else SCENARIOS):
            asyncio.run(stage(name, report, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report.conclude(time.monotonic() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the schedule")
    parser.add_argument("--faults", type=int, default=200, help="in all, of every kind; about a third are kills")
    parser.add_argument("--plan", type=int, help="this job of the schedule alone, without scenarios")
    parser.add_argument("--only", type=_scenarios, help=f"these scenarios alone: {', '.join(SCENARIOS)}")
    parser.add_argument("--result", type=Path, default=Path("build/chaos.json"), help="where the measures go")
    parser.add_argument("--brief", action="store_true", help="without what takes many seconds by its nature")
    return parser


def _scenarios(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(SCENARIOS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
