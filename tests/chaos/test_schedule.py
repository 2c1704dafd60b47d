"""A short schedule on real jobs, as `make chaos` plays a long one; and that its judge would say so if anything were wrong."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from chaos import processes
from chaos.faults import Shape, plan
from chaos.federation import Federation, federation
from chaos.play import sampled
from chaos.report import Report
from chaos.run import campaign
from chaos.verdict import Reference, Sample, reference, violations

SEED = 20261
FAULTS = 16
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # on a machine that has much else to do
def test_a_short_schedule_ends_with_the_bytes_of_undisturbed_jobs(tmp_path: Path) -> None:
    said = io.StringIO()
    report = Report(SEED, Console(file=said, width=160), tmp_path / "chaos.json")
    shapes = (Shape("short", 1_500_000, 8),)  # 9 MB
    plans = iter([plan(SEED, number, shapes, brief=True) for number in range(2)])
    asyncio.run(campaign(plans, FAULTS, report, tmp_path))
    assert not [v for o in report.outcomes for v in o.violations], said.getvalue()
    assert report.struck > FAULTS // 2, said.getvalue()


@pytest.mark.timeout(300)
def test_a_full_disk_delays_a_job_and_no_more(tmp_path: Path) -> None:
    """On a disk of its own, where this machine lets us have one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "chaos.run", "--only", "full-disk", "--result", str(tmp_path / "json")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    if "full-disk: skipped" in done.stdout:
        pytest.skip(done.stdout.splitlines()[0].strip())
    assert done.returncode == 0, done.stdout
    assert "full-disk: held" in done.stdout


def test_the_judge_finds_what_is_wrong(tmp_path: Path) -> None:
    """A run that has ended well is judged again with one thing altered."""

    async def scene() -> None:
        samples: list[Sample] = []
        async with federation(tmp_path, Shape("tiny", 1_000, 2)) as job, sampled(job, samples):
            job.start()
            await processes.until(lambda: job.exit_code is not None, 60, "the job ends")
            expected = reference(job, samples)
            assert violations(job, expected, samples) == []
            for words, wrong in _alterations(job, expected, samples).items():
                assert any(words in said for said in wrong()), words

    asyncio.run(scene())


def _alterations(job: Federation, expected: Reference, samples: list[Sample]) -> dict[str, Callable[[], list[str]]]:
    """What the judge must say -> its judgement of a run that is wrong in this way."""
    last = samples[-1]
    leaking = replace(last, usage=replace(last.usage, files=last.usage.files + 100))
    growing = replace(last, usage=replace(last.usage, anonymous=last.usage.anonymous + (1 << 30)))
    clinging = replace(last, usage=replace(last.usage, sockets=expected.sockets + last.made + 1))

    def with_file(path: Path) -> Callable[[], list[str]]:
        def judge() -> list[str]:
            path.touch()
            wrong = violations(job, expected, samples)
            path.unlink()
            return wrong

        return judge

    def with_process() -> list[str]:
        environment = {**os.environ, processes.MARK: job.mark}
        with subprocess.Popen(["sleep", "60"], env=environment) as left:
            wrong = violations(job, expected, samples)
            left.kill()
        return wrong

    return {
        "other bytes": lambda: violations(job, replace(expected, model="0" * 64), samples),
        "after rounds [1]": lambda: violations(job, replace(expected, digests=(expected.digests[0], "")), samples),
        "left in the run folder": with_file(job.run / "leftover"),
        "left in state/:": with_file(job.state / "leftover"),
        "left in state/checkpoint/": with_file(job.state / "checkpoint" / "leftover"),
        "left in TMPDIR": with_file(job.scratch / "leftover"),
        "processes left": with_process,
        "files open": lambda: violations(job, expected, [*samples, leaking]),
        "sockets open": lambda: violations(job, expected, [*samples, clinging]),
        "MiB": lambda: violations(job, expected, [*samples, growing]),
    }
