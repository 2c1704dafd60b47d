"""Other systems, measured in the same run: each in an environment of its own, made on first use.

All run the same `Work`. All run as deployed (one process or more for the server and for each client), over TLS, on 127.0.0.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

START_SECONDS = 180.0  # from the start of a deployment to its first model at a client, at most
ROUND_SECONDS = 30.0  # for one empty round, at most


@dataclass(frozen=True)
class Work:
    """The job that all systems run: FedAvg, every client gives back what it received.

    tensors, values: the model has so many fp32 tensors of so many values; one tensor: 10 KiB, sent back unchanged; more:
    random content, and every client adds a number of its own. seconds: how long it may take.
    """

    clients: int = 2
    rounds: int = 1
    tensors: int = 1
    values: int = 2560
    seconds: float = START_SECONDS

    @property
    def size(self) -> int:
        """Bytes of the model."""
        return 4 * self.tensors * self.values


@dataclass(frozen=True)
class PeerRun:
    """One job of a peer.

    deployment: what ran, in words.
    round_seconds: from a site's receiving the model to its receiving the next, every site and round.
    first_model_seconds: from the command that submits the job to the first model at a client.
    first_model_includes: what happens in that time, in words.
    with_deployment_seconds: the same from the start of the server, where the command does not start it.
    usage: for each role, processes, peak of anonymous memory and CPU seconds of the whole job.
    """

    deployment: str
    versions: dict[str, str]
    round_seconds: list[float]
    first_model_seconds: float
    first_model_includes: str
    with_deployment_seconds: float | None = None
    usage: dict[str, Any] | None = None
