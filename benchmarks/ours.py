"""fedjob through its public command: `fedjob run job.json`, as a data scientist would start it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folders import emptied
from marks import VARIABLE, Marks, marks
from peers import CLIENTS, ROUND_SECONDS, START_SECONDS, VALUES
from processes import contained, start, succeed

COMMAND = Path(sys.executable).with_name("fedjob")
SCRIPT = Path(__file__).parent / "job" / "train.py"


@dataclass(frozen=True)
class OurRun:
    """One job: `began` is the exec of the command, on the clock of the marks; `history` the lines of history.jsonl."""

    began: float
    marks: Marks
    history: list[dict[str, Any]]

    def since_began(self, event: str) -> float:
        """Seconds from the exec of the command to the first mark of this event."""
        return self.marks.of(event)[0].seconds - self.began


def empty_rounds(name: str, rounds: int) -> OurRun:
    """Run one job of so many empty rounds in a folder of this name. Raises MeasureError."""
    work = emptied(name)
    shutil.copy(SCRIPT, work)
    log = work / "run.log"
    with contained(), marks(work) as seen:
        job = work / "job.json"
        job.write_text(json.dumps(_job(rounds, seen.path), indent=1))
        began = time.monotonic()
        process = start([COMMAND, "run", job, "--runs", work / "runs"], log, cwd=work, env={})
        seconds = START_SECONDS + rounds * ROUND_SECONDS
        seen.until(lambda all_: sum(m.event == "sent" for m in all_) == CLIENTS * rounds, process, log, seconds)
        succeed(process, log, START_SECONDS)
    history = (work / "runs" / "empty-round-01" / "history.jsonl").read_text()
    return OurRun(began, seen, [json.loads(line) for line in history.splitlines()])


def _job(rounds: int, pipe: Path) -> dict[str, Any]:
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": "empty-round"},
        "spec": {
            "workflow": {"type": "FedAvg", "rounds": rounds},
            "trainer": {
                "command": ["python", SCRIPT.name, str(VALUES)],
                "env": [{"name": VARIABLE, "value": str(pipe)}],
            },
            "sites": [{"name": f"site-{i + 1}"} for i in range(CLIENTS)],
        },
    }
