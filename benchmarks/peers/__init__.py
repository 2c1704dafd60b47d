"""Other systems, measured in the same run: each in an environment of its own, made on first use.

All run the same job: FedAvg, two clients, a model of `VALUES` fp32 numbers, no training, every client returns
what it received. All run as deployed (one process or more for the server and for each client), over TLS, on 127.0.0.1.
"""

from __future__ import annotations

from dataclasses import dataclass

CLIENTS = 2
VALUES = 2560  # fp32, one tensor: 10 KiB
START_SECONDS = 180.0  # from the start of a deployment to its first model at a client, at most
ROUND_SECONDS = 30.0  # for one empty round, at most


@dataclass(frozen=True)
class PeerRun:
    """One job of a peer.

    deployment: what ran, in words.
    round_seconds: from a site's receiving the model to its receiving the next, every site and round.
    first_model_seconds: from the command that submits the job to the first model at a client.
    first_model_includes: what happens in that time, in words.
    with_deployment_seconds: the same from the start of the server, where the command does not start it.
    """

    deployment: str
    versions: dict[str, str]
    round_seconds: list[float]
    first_model_seconds: float
    first_model_includes: str
    with_deployment_seconds: float | None = None
