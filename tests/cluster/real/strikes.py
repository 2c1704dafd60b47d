"""What strikes a job on a real cluster: each a function with a name, which returns when the fault is over or others must mend it.

A round is open at each of them, and sites are about to end it or are held at its end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from chaos.disk import Disk
from fedjob.conditions import CERTIFICATE_EXPIRED, DISK_FULL
from fedjob.records import STATUS_FILE, Status, read_status
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER
from fedjob_operator.observed import moment

from ..kube import until
from . import installation, power
from .cluster import Cluster
from .federation import HOSPITALS, TEAM, Submitted
from .layout import Node
from .volumes import Gate

CERTIFICATE_SECONDS = 75  # how long a certificate lives: renewed after 42 to 58, and a pod has it 15 seconds later
_SLACK_SECONDS = 30.0


@dataclass(frozen=True)
class Stage:
    """What is struck. chance: dice, of which a strike throws what it likes. outage_seconds: how long what goes away stays away."""

    job: Submitted
    gate: Gate
    disk: Disk
    chance: random.Random
    outage_seconds: float

    @property
    def cluster(self) -> Cluster:
        """Where the job runs."""
        return self.job.cluster

    @property
    def node(self) -> Node:
        """The node of it all."""
        [node] = self.cluster.nodes
        return node

    def told(self) -> Status:
        """What the server writes on its volume, also while nobody is there to hear it."""
        return until("the server's status", lambda: read_status(self.job.run / STATUS_FILE))  # type: ignore[no-any-return]

    def rounds(self) -> int:
        """Complete rounds, as the server's volume has them."""
        return len(self.job.history())


def server_pod_deleted(stage: Stage) -> None:
    """As a drain does."""
    stage.job.delete_pod(SERVER)


def server_killed(stage: Stage) -> None:
    """SIGKILL to the process."""
    stage.job.strike(SERVER)


def client_pod_deleted(stage: Stage) -> None:
    """Of any hospital."""
    stage.job.delete_pod(CLIENT, stage.chance.choice(HOSPITALS))


def script_killed(stage: Stage) -> None:
    """SIGKILL to the script of any hospital."""
    stage.job.strike(CLIENT, stage.chance.choice(HOSPITALS))


def operators_killed(stage: Stage) -> None:
    """All replicas at once, without a word."""
    place = ("--namespace", installation.SYSTEM, "--selector", installation.SELECTOR)
    stage.cluster.plane.kubectl("delete", "pod", *place, "--grace-period=0", "--force")


def containerd_restarted(stage: Stage) -> None:
    """Under pods that run."""
    power.containerd_restart(stage.cluster, stage.node)


def api_server_away(stage: Stage) -> None:
    """The open round ends meanwhile: a job needs no API server for its rounds."""
    back = time.monotonic() + stage.outage_seconds
    held = stage.gate.held
    assert stage.rounds() <= held  # where the server's volume is, the API server says
    power.api_server_stop(stage.cluster)
    try:
        stage.gate.let(held + 1)
        until("a round without the API server", lambda: stage.rounds() > held)
        time.sleep(max(back - time.monotonic(), 0.0))  # the fault itself
    finally:
        power.api_server_start(stage.cluster)


def node_stopped(stage: Stage) -> None:
    """A power cut of the only node, with the server, every site and the operator on it."""
    back = time.monotonic() + stage.outage_seconds
    power.node_stop(stage.cluster, stage.node)
    time.sleep(max(back - time.monotonic(), 0.0))  # the fault itself
    power.node_start(stage.cluster, stage.node)


def disk_full(stage: Stage) -> None:
    """The server's volume has no byte left when sites want to send. The job says so, ends no round, and says when it is over."""
    held = stage.gate.held

    def told() -> bool:
        stage.disk.fill()  # again and again: the server gives up what it kept to write over
        stage.gate.let(held + 1)
        return stage.job.condition("Progressing")[:2] == ("False", DISK_FULL)

    until("the job to say that the disk is full", told)
    assert stage.rounds() <= held, "a round ended on a full disk"
    stage.disk.clear()
    until("the job to say that it goes on", lambda: stage.job.condition("Progressing")[:2] == ("True", "Training"))


def certificates_expired(stage: Stage) -> None:
    """The operator is away for so long that the server's certificate and those of all sites end, under an open round."""
    held, labels = stage.gate.held, f"{names.UID_LABEL}={stage.job.raw['metadata']['uid']}"
    _scale_the_operator(stage.cluster, 0)
    try:
        secrets = stage.job.kube.list(names.SECRET, TEAM, labels)
        ends = [moment(secret["metadata"]["annotations"][names.NOT_AFTER_ANNOTATION]) for secret in secrets]
        assert len(ends) == 1 + len(HOSPITALS)
        last = max(end for end in ends if end is not None)
        patience = CERTIFICATE_SECONDS + _SLACK_SECONDS
        until("every certificate to end", lambda: datetime.now(UTC) > last, patience)
        until("the server to say so", lambda: CERTIFICATE_EXPIRED in {c.type for c in stage.told().conditions})
        until("every connection to end", lambda: {site.state for site in stage.told().sites} == {"Lost"})
        stage.gate.let(held + 1)  # sites want to send, and cannot
    finally:
        _scale_the_operator(stage.cluster, installation.REPLICAS)
    assert stage.rounds() <= held, "a round ended with certificates that are over"


def _scale_the_operator(cluster: Cluster, replicas: int) -> None:
    """Returns when no replica is left, for none; at once otherwise."""
    place = ("--namespace", installation.SYSTEM)
    cluster.plane.kubectl("scale", "deployment", installation.NAME, *place, f"--replicas={replicas}")
    if replicas == 0:
        system = installation.SYSTEM, installation.SELECTOR
        until("the operator to go", lambda: not cluster.admin.list(names.POD, *system))


@dataclass(frozen=True)
class Strike:
    """act: does it. ends: roles of the job that have another process after it; the pods of the others live on.

    excused: it counts as no restart of the script.
    """

    act: Callable[[Stage], None]
    ends: frozenset[str] = frozenset()
    excused: bool = False


_SERVER, _CLIENT = frozenset({SERVER}), frozenset({CLIENT})
STRIKES: Mapping[str, Strike] = {
    "server pod deleted": Strike(server_pod_deleted, _SERVER),
    "server killed": Strike(server_killed, _SERVER),
    "client pod deleted": Strike(client_pod_deleted, _CLIENT, excused=True),
    "script killed": Strike(script_killed, _CLIENT),
    "operators killed": Strike(operators_killed),
    "containerd restarted": Strike(containerd_restarted),
    "API server away": Strike(api_server_away),
    "node stopped": Strike(node_stopped, _SERVER | _CLIENT),
    "disk full": Strike(disk_full),
    "certificates expired": Strike(certificates_expired),
}


@dataclass(frozen=True)
class Blow:
    """One strike of a schedule. at: the round that is open. running: the round is let end as the strike falls, not after it."""

    at: int
    strike: str
    running: bool


def schedule(seed: int, more: int) -> tuple[Blow, ...]:
    """Every strike once, in an order by dice, and `more` by dice after them: a function of its arguments."""
    chance = random.Random(seed)
    order = [*STRIKES]
    chance.shuffle(order)
    order += chance.choices([*STRIKES], k=more)
    at, blows = 0, []
    for strike in order:
        at += chance.randint(2, 3)
        blows.append(Blow(at, strike, chance.random() < 0.5))
    return tuple(blows)
