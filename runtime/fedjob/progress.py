"""What the server tells people: status.json while it runs, a line of history.jsonl for each round."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from .acceptance import mean_metrics
from .api import StopWhen
from .api.limits import STATUS_METRICS, STATUS_SITE_METRICS
from .records import (
    FinalModel,
    JobRef,
    JobState,
    Metrics,
    Missing,
    Progress,
    RoundKind,
    RoundRecord,
    SiteStatus,
    Status,
    Traffic,
)
from .session import Session
from .tally import ServerTally


@dataclass
class Story:
    """What has happened so far, besides what the session knows."""

    job: JobRef
    total_rounds: int
    completed_rounds: int = 0
    state: JobState = "Starting"
    reason: str = ""
    message: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    round_seconds: list[float] = field(default_factory=list)
    round_metrics: list[Metrics] = field(default_factory=list)
    bytes_before: tuple[int, int] = (0, 0)  # in, out: of earlier server processes
    tally: ServerTally = field(default_factory=ServerTally)
    model: FinalModel = field(default_factory=FinalModel)
    unscored: tuple[Missing, ...] = ()  # who did not evaluate the final model
    pausing: bool = False  # asked to stop between this round and the next
    recalled_rounds: int = 0  # of those that are complete: before this process
    contributors: int = 0  # to the last of those

    def pause(self) -> None:
        """Stop once the running round is complete."""
        self.pausing = True

    def scores(self, rule: StopWhen | None) -> list[float]:
        """The metric that a stop condition watches, for each round that had it."""
        return [m[rule.metric] for m in self.round_metrics if rule.metric in m] if rule else []


def status(story: Story, session: Session) -> Status:
    """The job as it stands."""
    now = time.monotonic()
    last = story.round_seconds[-1] if story.round_seconds else 0.0
    return Status(
        job=story.job,
        state=story.state,
        reason=story.reason,
        message=story.message,
        conditions=session.conditions.now(),
        progress=Progress(
            current_round=min(session.round, max(story.total_rounds - 1, 0)),
            completed_rounds=story.completed_rounds,
            recalled_rounds=story.recalled_rounds,
            contributors=story.contributors,
            total_rounds=story.total_rounds,
            round_elapsed_seconds=round(session.round_seconds(), 2),
            last_round_seconds=last,
            eta_seconds=_eta_seconds(story, session),
        ),
        bytes=Traffic(story.bytes_before[0] + session.bytes_in, story.bytes_before[1] + session.bytes_out),
        metrics=dict(list(story.metrics.items())[: STATUS_METRICS.value]),
        metrics_left_out=max(len(story.metrics) - STATUS_METRICS.value, 0),
        sites=tuple(
            SiteStatus(
                name=s.name,
                state=s.shown(now),
                done_bytes=s.done_bytes,
                total_bytes=s.total_bytes,
                examples=s.examples,
                metrics=_few(s.metrics, story.metrics),
                message=s.message,
            )
            for s in session.sites()
        ),
        model=story.model,
        updated_at=time.time(),
    )


def _eta_seconds(story: Story, session: Session) -> float | None:
    """How long the rounds that are left will take, if they take as long as the recent ones; None if nobody can say.

    That is in the final evaluation, of which there is none to go by, and in a last round that takes longer than the others.
    """
    left, recent = story.total_rounds - story.completed_rounds, story.round_seconds[-5:]
    if story.state != "Running" or not recent or left <= 0 or story.model != FinalModel():
        return None
    mean = sum(recent) / len(recent)
    running = session.round >= story.completed_rounds  # else the session is still at the round that was just completed
    seconds = (left - 1) * mean + max(mean - (session.round_seconds() if running else 0.0), 0.0)
    return seconds or None


def _few(own: Metrics, shared: Metrics) -> Metrics:
    """What people see of a site's scores while the job runs: first those that most sites sent."""
    names = [*(name for name in shared if name in own), *(name for name in own if name not in shared)]
    return {name: own[name] for name in names[: STATUS_SITE_METRICS.value]}


def round_record(
    session: Session, kind: RoundKind, number: int, phases: dict[str, float], traffic: tuple[int, int], digest: str
) -> RoundRecord:
    """A completed round's line of history. phases: seconds. traffic: bytes in and out during the round."""
    answers, records, missing = session.outcome(kind)
    included, wire = session.sizes(kind)
    return RoundRecord(
        round=number,
        kind=kind,
        seconds=round(sum(phases.values()), 4),
        phases={k: round(v, 4) for k, v in phases.items()},
        contributors=tuple(sorted(answers)),
        missing=tuple(missing),
        sites={name: records[name] for name in sorted(records) if name in answers},
        metrics=mean_metrics([(a.num_examples, a.metrics) for a in answers.values()]),
        bytes_in=traffic[0],
        bytes_out=traffic[1],
        bytes_included=included,
        bytes_wire=wire,
        model_digest=digest,
    )
