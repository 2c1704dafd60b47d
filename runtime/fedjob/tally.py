"""What the processes of a job count as they go: plain numbers, added to where things happen, read when somebody asks.  PURE

Nothing here is locked: each number has one writer, or a lost addition would be of no consequence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from .api.limits import METRIC_SERIES, NAME
from .records import RoundRecord
from .text import one_line

MAX_NAMES = METRIC_SERIES.value
ACCEPTED = "Accepted"


@dataclass
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """It happened once more."""
        self.count += 1
        self.seconds += seconds


@dataclass
class Scalars:
    """The last value of each metric by site, for the first `MAX_NAMES` names; what comes under further names is only counted."""

    last: dict[tuple[str, str], float] = field(default_factory=dict)  # site, name
    names: set[str] = field(default_factory=set)
    dropped: int = 0

    def take(self, site: str, metrics: Mapping[str, float]) -> None:
        """Values that a script has sent."""
        for name, value in metrics.items():
            short = one_line(name, NAME.value)
            if short not in self.names and len(self.names) == MAX_NAMES:
                self.dropped += 1
                continue
            self.names.add(short)
            self.last[site, short] = value


@dataclass
class ServerTally:
    """What a job's server counts. up: from the sites; down: to them."""

    bytes_up: Counter[str] = field(default_factory=Counter)
    bytes_down: Counter[str] = field(default_factory=Counter)
    chunks_again: Counter[str] = field(default_factory=Counter)  # came damaged, or though they were here
    updates: Counter[tuple[str, str]] = field(default_factory=Counter)  # site, Accepted or why not
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)  # site, why a round did without it
    rounds: Counter[str] = field(default_factory=Counter)  # kind
    phases: defaultdict[str, Duration] = field(default_factory=lambda: defaultdict(Duration))
    site_phases: defaultdict[tuple[str, str], Duration] = field(default_factory=lambda: defaultdict(Duration))
    scores: Scalars = field(default_factory=Scalars)  # of answers; site "": the mean over the contributors
    logged: Scalars = field(default_factory=Scalars)

    def judged(self, site: str, accepted: bool, reason: str) -> None:
        """An answer has had its verdict."""
        self.updates[site, reason if reason or not accepted else ACCEPTED] += 1

    def complete(self, record: RoundRecord) -> None:
        """A round is complete."""
        self.rounds[record.kind] += 1
        for phase, seconds in record.phases.items():
            self.phases[phase].add(seconds)
        for missing in record.missing:
            self.missing[missing.site, missing.reason] += 1
        self.scores.take("", record.metrics)
        for name, site in record.sites.items():
            self.scores.take(name, site.metrics)
            self.site_phases[name, "download"].add(site.seconds_down)
            self.site_phases[name, "train"].add(site.seconds_train)
            self.site_phases[name, "upload"].add(site.seconds_up)


@dataclass
class ClientTally:
    """What a training process counts. up: what leaves the site; down: what comes."""

    bytes_up: int = 0
    bytes_down: int = 0
    chunks_up_again: int = 0
    chunks_down_again: int = 0
    connections: int = 0
    round: int = 0
    updates: Counter[str] = field(default_factory=Counter)  # Accepted, or why not
    phases: defaultdict[str, Duration] = field(default_factory=lambda: defaultdict(Duration))
    scores: Scalars = field(default_factory=Scalars)
    logged: Scalars = field(default_factory=Scalars)

    def judged(self, accepted: bool, reason: str) -> None:
        """An answer has had its verdict."""
        self.updates[reason if reason or not accepted else ACCEPTED] += 1
