"""What the server knows of each site: connected or not, and what it is doing. Guarded by the session's lock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from .causes import cause
from .records import SiteRound, SiteState
from .wire_pb2 import Downward

Push = Callable[[Downward], None]
_RETURN_SECONDS = 30.0  # between the first site that comes back after an outage and the last one that is waited for
_MOVE_SECONDS = 10.0  # a life line that moves is up again at once, or not at all


@dataclass
class Site:
    """One site. Times are the caller's monotonic seconds."""

    name: str
    push: Push | None = None  # sends to the open life line; None: no live process
    # It has a renewed certificate: its next life line is the same process's, and nothing else changes.
    moving: bool = False
    moved_in: SiteState | None = None  # what it was doing when it was lost, or moved
    gone_since: float = 0.0
    ever_attended: bool = False
    left: str = ""  # why it went for good
    said: str = ""  # how its last process ended, in its own words, since it was asked
    told: bool = False  # that the job is over
    state: SiteState = "Absent"
    message: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    examples: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    asked_at: float = 0.0
    fetched_at: float = 0.0
    sending_at: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0

    def attend(self, push: Push) -> None:
        """A process of this site is there."""
        self.push, self.ever_attended, self.left, self.message = push, True, "", ""
        if self.moving and self.moved_in is not None:
            self.state = self.moved_in
        elif self.state in ("Absent", "Lost", "Left"):
            self.state = "Waiting"

    def tell(self, event: Downward) -> None:
        """Say something to its process, if there is one."""
        if self.push is not None:
            self.push(event)

    def lose(self, now: float) -> None:
        """Its process is gone, or its connection."""
        self.push, self.gone_since = None, now
        if self.state not in ("Answered", "Declined", "Refused", "Left"):
            self.moved_in, self.state = self.state, "Left" if self.told else "Lost"

    def shown(self, now: float) -> SiteState:
        """What people are told that it is doing: while it moves to a connection with a renewed certificate, what it did before."""
        moves = self.state == "Lost" and self.moving and now - self.gone_since < _MOVE_SECONDS
        return self.moved_in if moves and self.moved_in is not None else self.state

    def has_hung_up(self, long_gone: float) -> bool:
        """Whether it has heard of the job's end and is gone, or went before `long_gone` and will not come for it."""
        return self.push is None and bool(self.told or self.left or self.gone_since < long_gone)

    def ask(self, now: float) -> None:
        """A task goes out."""
        if self.moving:
            return  # it has the task already
        self.asked_at = self.fetched_at = now
        self.sending_at = 0.0
        self.done_bytes = self.total_bytes = 0
        self.state, self.message = ("Waiting" if self.push else self.state), ""

    def fetch(self, now: float, done: int, total: int) -> None:
        """It has `done` of `total` bytes of the task."""
        self.done_bytes, self.total_bytes, self.fetched_at = done, total, now
        self.state = "Downloading" if done < total else "Training"

    def upload(self, now: float, done: int, total: int) -> None:
        """`done` of `total` bytes of its answer are here."""
        self.sending_at = self.sending_at or now
        self.done_bytes, self.total_bytes, self.state = done, total, "Uploading"

    def settle(self, state: SiteState, message: str = "") -> None:
        """Its part in the round is over."""
        self.state, self.message, self.done_bytes, self.total_bytes = state, message, 0, 0

    def round_record(self, now: float) -> SiteRound:
        """Its part in the round, as history tells it."""
        sending = self.sending_at or now
        return SiteRound(
            examples=self.examples,
            metrics=dict(self.metrics),
            bytes_down=self.bytes_down,
            bytes_up=self.bytes_up,
            seconds_down=round(self.fetched_at - self.asked_at, 4),
            seconds_train=round(max(sending - self.fetched_at, 0.0), 4),
            seconds_up=round(max(now - sending, 0.0), 4),
        )


def forgive_outage(sites: Collection[Site], now: float, lost_seconds: float) -> None:
    """To be called as a site comes. If none was there, that was no site's own fault: the others get time to come as well."""
    if all(site.push is None for site in sites):
        for site in sites:
            site.gone_since = max(site.gone_since, now - max(lost_seconds - _RETURN_SECONDS, 0.0))


def unheard(what: str, said: str) -> str:
    """That a site gave no answer, behind what its script said last, which is mostly why."""
    return f"{cause(said)} ({what})" if said else what


def silence(site: Site) -> str:
    """What to say of a site that is there, and has not answered when its round closes."""
    what = "no answer when the round closed"
    if site.state == "Training" and site.total_bytes and not site.said:  # an ask that sends nothing has no bytes
        return f"{what}: the script has received the model, and has not called fedjob.send() since"
    return unheard(what, site.said)


def absences(sites: Iterable[Site], now: float, lost_seconds: float) -> tuple[dict[str, str], dict[str, str]]:
    """Of sites without a process: who has left for good, and who is lost and may come back. Each: site -> reason."""
    left, lost = dict[str, str](), dict[str, str]()
    for site in sites:
        if site.left:
            left[site.name] = f"PeerLost: {site.left}"
        elif now - site.gone_since >= lost_seconds:
            lost[site.name] = f"PeerLost: {unheard(f'no live process for {lost_seconds:.0f} s', site.said)}"
    return left, lost
