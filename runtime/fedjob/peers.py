"""What a workflow sees of the network: tasks out, answers in.

Retries, lost and late sites, deadlines, the journal and the transfer happen below `Peers`. Two implementations share one
conformance suite: `session.Session` over the wire, `testing.InMemory` in one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from .trees import Tree

Close = Literal["Deadline", "Quorum"]


@dataclass(frozen=True)
class Task:
    """A request to one or more sites. parts: name -> tensors that travel with it."""

    kind: str
    round: int
    parts: Mapping[str, Tree]


def Offer() -> Task:  # noqa: N802 - tasks are written like the messages they are
    """Ask for the initial model, which a script offered in `init(model)`."""
    return Task("Offer", 0, {})


def Train(*, round: int, params: Tree, optimizer_params: Tree | None = None) -> Task:  # noqa: N802, A002
    """Ask for an update of `params`, trained on the site's own data."""
    return Task("Train", round, _present(params=params, optimizer_params=optimizer_params))


def Evaluate(*, round: int, params: Tree) -> Task:  # noqa: N802, A002
    """Ask for the metrics of `params` on the site's own data."""
    return Task("Evaluate", round, {"params": params})


def _present(**parts: Tree | None) -> Mapping[str, Tree]:
    return {name: tree for name, tree in parts.items() if tree is not None}


@dataclass(frozen=True)
class Answer:
    """What a site sent back. num_examples: weight in the mean, > 0. metrics: scores of the model it was sent."""

    sender: str
    kind: str
    round: int
    num_examples: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Tree] = field(default_factory=dict)


class Peers(Protocol):
    """The verbs. A key (round, kind, n-th ask of that kind in the round, site) makes each ask idempotent over restarts."""

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of all sites of the job, sorted; never who happens to be connected."""

    def ask(self, to: str, task: Task) -> Answer:
        """One site's answer. Raises PeerFailed if it declines, is refused, is lost or misses the round's deadline."""

    def ask_all(self, to: Sequence[str], task: Task, *, quorum: int = 1, close: Close = "Deadline") -> Iterator[Answer]:
        """The answers as they arrive, until the round closes. Raises JobFailed if too few can come (QuorumNotMet).

        quorum: fewest answers; 0: as many as come, required sites or not. close: "Deadline" waits for all until the round's deadline; "Quorum" closes with the quorum-th answer.
        """
