"""What must hold when a job under faults is over: its bytes are those of an undisturbed one, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from chaos.federation import Federation
from chaos.processes import Usage

_RUN_FOLDER = {
    "history.jsonl", "job.yaml", "logs", "metrics.jsonl", "model.safetensors", "report.html", "sites", "state", "status.json",
}  # fmt: skip
_STATE = {"checkpoint", "conclusion.json", "departures.json", "lock", "run.json", "sites"}  # sites: judged file by file
_CHECKPOINT = {"checkpoint.json", "durable.json"}
_SETTLED_SECONDS = 30.0  # after these a server has let go of a connection that was broken
_SPARE_FILES = 12  # answers of a round, history and status while they are written
_SPARE_BYTES = 256 << 20  # connections that were cut while they carried something; malloc gives back above 128 MiB only


@dataclass(frozen=True)
class Sample:
    """What a server held at a time. made: connections that the sites had made by then."""

    at: float
    made: int
    usage: Usage


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run of a shape ends with, and the most that its server held.

    digests: of the model after each round, as history tells them. model: of the final file.
    """

    digests: tuple[str, ...]
    model: str
    files: int
    sockets: int
    anonymous: int


def reference(job: Federation, samples: Sequence[Sample]) -> Reference:
    """Of a run that nothing disturbed."""
    used = [s.usage for s in samples]
    return Reference(
        tuple(r.model_digest for r in job.history),
        _model(job),
        max(u.files for u in used),
        max(u.sockets for u in used),
        max(u.anonymous for u in used),
    )


def _model(job: Federation) -> str:
    return str(blake3((job.run / "model.safetensors").read_bytes()).hexdigest())


def violations(job: Federation, expected: Reference, samples: Sequence[Sample]) -> list[str]:
    """All that is wrong with a run that has ended."""
    return [*_wrong_result(job, expected), *_left_behind(job), *_grown(expected, samples)]


def _wrong_result(job: Federation, expected: Reference) -> Iterable[str]:
    if job.exit_code != 0:
        yield f"exit code {job.exit_code}"
        return
    history = job.history
    told = [r.round for r in history]
    if told != list(range(job.shape.rounds)):
        yield f"rounds told: {told}"
    if wrong := [r.round for r, digest in zip(history, expected.digests, strict=False) if r.model_digest != digest]:
        yield f"other models than undisturbed after rounds {wrong}"
    if _model(job) != expected.model:
        yield "the final model has other bytes than undisturbed"


def _left_behind(job: Federation) -> Iterable[str]:
    if left := job.pids():
        yield f"processes left: {left}"
    if scratch := sorted(p.name for p in job.scratch.iterdir()):
        yield f"left in TMPDIR: {scratch}"
    if more := {p.name for p in job.run.iterdir()} - _RUN_FOLDER:
        yield f"left in the run folder: {sorted(more)}"
    if state := {p.name for p in job.state.iterdir()} - _STATE:
        yield f"left in state/: {sorted(state)}"
    bases = 1 if job.shape.params == "Diff" else 0  # the model that a site's next difference would be taken from
    for site in job.state.glob("sites/*"):
        kept = sorted(p.name for p in site.iterdir())
        if len(kept) > bases or not all(name.startswith("base-") for name in kept):
            yield f"left in state/sites/{site.name}: {kept}"
    checkpoint = {p.name for p in (job.state / "checkpoint").iterdir()} - _CHECKPOINT
    if len(checkpoint) != 1:  # the model
        yield f"left in state/checkpoint/: {sorted(checkpoint)}"


def _grown(expected: Reference, samples: Sequence[Sample]) -> Iterable[str]:
    for sample in samples:
        used = sample.usage
        recent = sample.made - max((s.made for s in samples if s.at < sample.at - _SETTLED_SECONDS), default=0)
        if used.files > expected.files + _SPARE_FILES:
            yield f"the server had {used.files} files open, undisturbed {expected.files}"
            return
        if used.sockets > expected.sockets + recent:
            yield f"the server had {used.sockets} sockets open, undisturbed {expected.sockets}, {recent} made lately"
            return
        if used.anonymous > expected.anonymous + _SPARE_BYTES:
            yield f"the server held {used.anonymous >> 20} MiB, undisturbed {expected.anonymous >> 20} MiB"
            return
