"""What a run of the harness tells: the table as it grows, totals, and build/chaos.json in the form of the measures."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from chaos.play import Outcome, Row

_COLUMNS = "{:>4}  {:<14} {:<30} {:<14} {:<24} {:<60} {:>6}"


@dataclass(frozen=True)
class Staged:
    """What became of a scenario. said: what was seen, what was wrong, or why it was left out."""

    name: str
    became: Literal["held", "violated", "skipped"]
    said: str
    seconds: float


@dataclass
class Report:
    """Everything that was done, and the table of it. seed: of the schedule. result: the file of the measures."""

    seed: int
    console: Console
    result: Path
    struck: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: list[Outcome] = field(default_factory=list)
    staged: list[Staged] = field(default_factory=list)

    def head(self) -> None:
        """The names of the columns."""
        self._line(_COLUMNS.format("", "job", "fault", "target", "moment", "what recovered", "s"), "bold")

    def row(self, row: Row) -> None:
        """One fault."""
        self.struck += 1
        action = row.fault.action
        self.kinds[type(action).__name__] += 1
        job = f"{row.plan.number} {row.plan.shape.name}"
        cells = (str(action), " ".join(action.targets), row.fault.moment, row.recovered, f"{row.seconds:.2f}")
        self._line(_COLUMNS.format(self.struck, job, *cells))

    def outcome(self, outcome: Outcome) -> None:
        """What a job ended with; its schedule and its story as well if that was not as it must be."""
        self.outcomes.append(outcome)
        name = f"job {outcome.plan.number} {outcome.plan.shape.name}"
        if not outcome.violations:
            faults = f"{len(outcome.struck)} faults, {outcome.seconds:.1f} s"
            self._line(f"      {name}: same bytes as undisturbed, nothing left behind, {faults}", "green")
            return
        self._line(f"      {name}: VIOLATION", "bold red")
        for line in (*outcome.violations, f"seed {self.seed}, plan {outcome.plan.number}, {outcome.plan.shape}:"):
            self._line(f"      {line}")
        for fault in outcome.plan.faults:
            done = "x" if any(row.fault is fault for row in outcome.struck) else " "
            self._line(f"      {done} {fault.moment}: {fault.action!r}")
        self._line(outcome.story)

    def stage(self, staged: Staged) -> None:
        """What became of a scenario."""
        self.staged.append(staged)
        style = {"held": "green", "violated": "bold red", "skipped": "yellow"}[staged.became]
        self._line(f"      {staged.name}: {staged.became}: {staged.said}, {staged.seconds:.1f} s", style)

    def conclude(self, seconds: float) -> int:
        """Totals, and how to do again what went wrong; the exit code."""
        self._write(seconds)
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        held = max((s.usage.anonymous for o in self.outcomes for s in o.samples), default=0)
        totals = f"{self.struck} faults in {len(self.outcomes)} jobs and {len(self.staged)} scenarios, {seconds:.0f} s"
        self._line(f"{totals}: {kinds}. Server: at most {held >> 20} MiB. {self.result}", "bold")
        for o in self.outcomes:
            if o.violations:
                self._line(f"job {o.plan.number}: {'; '.join(o.violations)}", "bold red")
                self._line(f"again: make chaos SEED={self.seed} PLAN={o.plan.number}")
        for staged in self.staged:
            if staged.became == "violated":
                self._line(f"again: make chaos ONLY={staged.name}")
        return 1 if self._wrong() else 0

    def _wrong(self) -> list[str]:
        return [v for o in self.outcomes for v in o.violations] + [
            f"{s.name}: {s.said}" for s in self.staged if s.became == "violated"
        ]

    def _write(self, seconds: float) -> None:
        kills = self.kinds["Kill"] + self.kinds["Freeze"]
        common: dict[str, Any] = {"goal": "the undisturbed run's bytes", "met": not self._wrong(), "peers": {}}
        run = {
            "seed": self.seed,
            "seconds": round(seconds, 1),
            "machine": platform.platform(),
            "jobs": [_job(o) for o in self.outcomes],
            "scenarios": [asdict(s) for s in self.staged],
        }
        result = {
            "F1": {"value": kills, "unit": "kills", **common, "detail": dict(self.kinds)},
            "F2": {"value": self.struck - kills + len(self.staged), "unit": "other faults", **common, "detail": run},
        }
        self.result.parent.mkdir(exist_ok=True)
        self.result.write_text(json.dumps(result, indent=1) + "\n")

    def _line(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def _job(outcome: Outcome) -> dict[str, Any]:
    rows = [
        {"fault": str(r.fault.action), "targets": r.fault.action.targets, "moment": r.fault.moment,
         "recovered": r.recovered, "seconds": round(r.seconds, 2)}
        for r in outcome.struck
    ]  # fmt: skip
    return {
        "number": outcome.plan.number,
        "shape": outcome.plan.shape.name,
        "seconds": round(outcome.seconds, 1),
        "violations": outcome.violations,
        "faults": rows,
    }
