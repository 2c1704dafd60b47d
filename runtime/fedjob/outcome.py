"""What came of a run: the files of a run folder, joined per site, for the final table and the report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedjob.quantities import round_text
from fedjob.records import (
    HISTORY_FILE,
    METRICS_FILE,
    STATUS_FILE,
    JobRef,
    LoggedValue,
    Metrics,
    RoundRecord,
    SiteStatus,
    Status,
    read_history,
    read_metrics,
    read_status,
)

# Reasons for a missing site that are not a refusal: the site sent nothing. Every other reason names a refusal.
_SENT_NOTHING = frozenset({"PeerLost", "DeadlineExceeded", "Declined"})


@dataclass(frozen=True)
class Travel:
    """Bytes of a site, both ways over its rounds: what moved, and what each choice of `model.exchange` kept from moving.

    dtype: of included tensors, by the narrower type on the wire. include: by tensors that stayed where they were.
    """

    rounds: int = 0
    moved: int = 0
    dtype: int = 0
    include: int = 0

    @property
    def whole(self) -> int:
        """What would have moved with every tensor in its own dtype."""
        return self.moved + self.dtype + self.include

    @property
    def share(self) -> float:
        """What moved of that, 0 to 1."""
        return self.moved / self.whole if self.whole else 1.0

    def __add__(self, other: "Travel") -> "Travel":
        dtype, include = self.dtype + other.dtype, self.include + other.include
        return Travel(max(self.rounds, other.rounds), self.moved + other.moved, dtype, include)


@dataclass(frozen=True)
class SiteOutcome:
    """One site over the whole run.

    examples: that it trained on in the last round that it contributed to, 0 if it never did.
    missed: reason -> number of rounds; refused: how many of them were refusals of what it sent.
    metrics: the newest global model that this site scored. logged: the last value of each key.
    """

    status: SiteStatus
    examples: float = 0.0
    contributed: int = 0
    missed: Mapping[str, int] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    logged: Metrics = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    travel: Travel = Travel()

    @property
    def name(self) -> str:
        """The site's name."""
        return self.status.name

    @property
    def refused(self) -> int:
        """Rounds in which the site's update came and was not accepted."""
        return sum(count for reason, count in self.missed.items() if reason not in _SENT_NOTHING)


@dataclass(frozen=True)
class Outcome:
    """A whole run. `rounds` are the Train records, oldest first; `evaluation` is the last Evaluate record."""

    status: Status
    rounds: tuple[RoundRecord, ...]
    evaluation: RoundRecord | None
    logged: tuple[LoggedValue, ...]
    sites: tuple[SiteOutcome, ...]

    @property
    def records(self) -> tuple[RoundRecord, ...]:
        """Every record, the evaluation last."""
        return self.rounds + ((self.evaluation,) if self.evaluation else ())

    @property
    def total_rounds(self) -> int:
        """How many rounds the job asked for."""
        return self.status.progress.total_rounds or len(self.rounds)

    @property
    def scoring(self) -> RoundRecord | None:
        """The newest record that has global scores."""
        return next((record for record in reversed(self.records) if record.metrics), None)

    @property
    def metrics(self) -> Metrics:
        """The newest global scores."""
        return self.scoring.metrics if self.scoring else self.status.metrics

    @property
    def scored_model(self) -> str:
        """Which model `metrics` scores, in words."""
        if self.scoring is None:
            return "the global model"
        if self.scoring.kind == "Evaluate":
            return "the final model"
        return f"the global model at the start of {round_text(self.scoring.round)}"

    @property
    def older_scores(self) -> list[str]:
        """Sites whose newest scores are of an older model than `scored_model`: they missed that round."""
        scoring = self.scoring
        if scoring is None:
            return []
        return [
            site.name
            for site in self.sites
            if site.metrics and not (site.name in scoring.sites and scoring.sites[site.name].metrics)
        ]

    @property
    def metric_names(self) -> list[str]:
        """Every metric of any site or round: what most sites sent first, so that one site's many names displace none."""
        return _by_sites(
            (name, site)
            for record in self.records
            for site, metrics in [("", record.metrics), *((s, part.metrics) for s, part in record.sites.items())]
            for name in metrics
        )

    @property
    def logged_keys(self) -> list[str]:
        """Every key that a script logged: what most sites logged first."""
        return _by_sites((value.key, value.site) for value in self.logged)

    @property
    def examples(self) -> float:
        """Of all sites together."""
        return sum(site.examples for site in self.sites)

    @property
    def travel(self) -> Travel:
        """Of all sites together."""
        return sum((site.travel for site in self.sites), Travel())

    @property
    def seconds(self) -> float:
        """Time inside rounds; start-up and what a crash threw away are not in it."""
        return sum(record.seconds for record in self.records)

    @property
    def bytes_in(self) -> int:
        """Bytes from the sites to the server."""
        return self.status.bytes.in_ or sum(record.bytes_in for record in self.records)

    @property
    def bytes_out(self) -> int:
        """Bytes from the server to the sites."""
        return self.status.bytes.out or sum(record.bytes_out for record in self.records)


def read_outcome(run_folder: Path) -> Outcome:
    """Read a run folder, complete or not. Raises ValueError, naming the file, if one of its files is broken."""
    history = read_history(run_folder / HISTORY_FILE)
    logged = read_metrics(run_folder / METRICS_FILE)
    status = read_status(run_folder / STATUS_FILE) or Status(
        job=JobRef(run_folder.name),
        state="Interrupted",
        reason="NoStatus",
        message="The run folder has no status.json: the server stopped before it could write one. See logs/server.log.",
    )
    seen = [name for record in history for name in (*record.sites, *(missing.site for missing in record.missing))]
    known = {site.name: site for site in status.sites}
    names = _distinct([*known, *sorted(seen), *(value.site for value in logged)])
    last_logged: dict[str, dict[str, float]] = {name: {} for name in names}
    for value in logged:
        last_logged[value.site][value.key] = value.value
    return Outcome(
        status=status,
        rounds=tuple(record for record in history if record.kind == "Train"),
        evaluation=next((record for record in reversed(history) if record.kind == "Evaluate"), None),
        logged=tuple(logged),
        sites=tuple(_site_outcome(known.get(name, SiteStatus(name)), history, last_logged[name]) for name in names),
    )


def _site_outcome(site: SiteStatus, history: Sequence[RoundRecord], logged: Metrics) -> SiteOutcome:
    name = site.name
    parts = [record.sites[name] for record in history if name in record.sites]
    training = [record for record in history if record.kind == "Train"]
    trained = [record.sites[name] for record in training if name in record.sites]
    return SiteOutcome(
        status=site,
        examples=trained[-1].examples if trained else 0.0 if training else site.examples,
        contributed=sum(name in record.contributors for record in training),
        missed=Counter(missing.reason for record in training for missing in record.missing if missing.site == name),
        metrics=next((part.metrics for part in reversed(parts) if part.metrics), site.metrics),
        logged=logged,
        bytes_down=sum(part.bytes_down for part in parts),
        bytes_up=sum(part.bytes_up for part in parts),
        seconds=sum(part.seconds_down + part.seconds_train + part.seconds_up for part in parts),
        travel=_travel(name, [record for record in history if name in record.sites]),
    )


def _travel(name: str, records: Sequence[RoundRecord]) -> Travel:
    parts = [record.sites[name] for record in records]
    whole = max((part.bytes_whole for part in parts), default=0)  # an evaluation sends no model, and does not say
    ways = [2 if record.kind == "Train" else 1 for record in records]
    return Travel(
        rounds=len(records),
        moved=sum(part.bytes_down + part.bytes_up for part in parts),
        dtype=sum(
            n * max(record.bytes_included - record.bytes_wire, 0) for n, record in zip(ways, records, strict=True)
        ),
        include=sum(
            n * max(whole - record.bytes_included, 0) for n, record in zip(ways, records, strict=True) if whole
        ),
    )


def _by_sites(sent: Iterable[tuple[str, str]]) -> list[str]:
    """Names, those of the most sites first, else in order of appearance. sent: (name, site), as often as it was sent."""
    sites = Counter(name for name, _ in dict.fromkeys(sent))
    return sorted(sites, key=lambda name: -sites[name])


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
