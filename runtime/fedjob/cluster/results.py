"""What a job leaves: its model and its report, brought from the server's volume."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..api.names import FEDERATED_JOB
from ..records import HISTORY_FILE, METRICS_FILE, STATUS_FILE, FinalModel, Status, from_json
from ..report import build
from ..terminal import say
from .connection import Connection
from .download import Tell, fetch, part_of, settle
from .failures import ClusterError
from .jobs import Raw, find, verdict
from .running import EXIT_USAGE, program
from .view import line
from .volume import NoSuchFile, Volume

MODEL_FILE = "model.safetensors"


class InTheWay(ClusterError):  # noqa: N818 - what was found
    """There is a file of this name here already."""

    exit_code = EXIT_USAGE


async def download(cluster: Connection, name: str, target: Path, image: str, *, force: bool) -> int:
    """The final model of a job to `target`, checked against the digest in the job's status."""
    job = await find(cluster, name)
    end = verdict(job)
    if end is None:
        raise ClusterError(f"{name} has no final model yet: {line(job)}; {program()} status {name} --wait waits for it")
    if not end[0]:
        raise ClusterError(f"{name} has no final model: {end[1]}")
    async with Volume(cluster, job, image) as volume:
        model = await _described(job, volume)
        if target.exists() and not force:
            if await asyncio.to_thread(_is, target, model):
                say(f"{target} is this model already", err=True)
                return 0
            raise InTheWay(f"{target} is there and is another file: name another with -o, or replace it with --force")
        part = part_of(target, model.digest)
        with _bar(target.name, model.size) as tell:
            await fetch(lambda offset: volume.read(MODEL_FILE, offset), part, tell)
    await asyncio.to_thread(settle, part, target, model.digest)
    say(target)
    return 0


async def _described(job: Raw, volume: Volume) -> FinalModel:
    """Digest and size of the model: as the job's status has them, else, where servers do not report, as its own server wrote them."""
    told = (job.get("status") or {}).get("model") or {}
    if told.get("digest"):
        return FinalModel(told["digest"], int(told.get("size") or 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, STATUS_FILE)
        await _bring(volume, path)
        model = from_json(Status, json.loads(path.read_text(encoding="utf-8"))).model
    if not model.digest:
        raise ClusterError(
            f"{job['metadata']['name']} was run by an older server, which has noted no digest of its model"
        )
    return model


def _is(path: Path, model: FinalModel) -> bool:
    from ..stored import file_digest  # numpy, which the other commands need not wait for

    return path.stat().st_size == model.size and file_digest(path) == model.digest


async def report(cluster: Connection, name: str, target: Path, image: str) -> int:
    """The page of a run, built here from what the server has written so far."""
    job = await find(cluster, name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with Volume(cluster, job, image) as volume:
            try:
                await _bring(volume, folder / STATUS_FILE)
            except NoSuchFile:
                raise ClusterError(f"{name} has nothing to report yet: {line(job)}") from None
            for file in (HISTORY_FILE, METRICS_FILE):
                try:
                    await _bring(volume, folder / file)
                except NoSuchFile:
                    (folder / file).touch()  # before the first round, before the first value
        (folder / "job.yaml").write_text(_job_text(job), encoding="utf-8")
        page = await asyncio.to_thread(build, folder)
        target.write_bytes(page.read_bytes())
    say(target)
    return 0


async def _bring(volume: Volume, path: Path) -> None:
    await fetch(lambda offset: volume.read(path.name, offset), path, lambda *_: None)


def _job_text(job: Raw) -> str:
    """The job as it is on the cluster, without what the cluster adds."""
    metadata = {key: job["metadata"][key] for key in ("name", "namespace")}
    document = {
        "apiVersion": FEDERATED_JOB.api_version,
        "kind": FEDERATED_JOB.name,
        "metadata": metadata,
        "spec": job["spec"],
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


@contextmanager
def _bar(name: str, size: int) -> Iterator[Tell]:
    """A progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from ..screen import console

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console(stderr=True)) as progress:
        task = progress.add_task(name, total=size or None)
        yield lambda here, total: progress.update(task, completed=here, total=total)
