"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-Efficient Learning of Deep Networks from Decentralized
Data, AISTATS 2017, Algorithm 1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .. import aggregation
from ..api import FedAvg
from ..peers import Evaluate, Peers, Train
from ..quantities import round_text
from ..sampling import sample
from ..trees import Tree

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """Everything that must survive a restart between rounds. round: completed rounds."""

    round: int
    model: Tree
    optimizer: Tree | None = None


def start(model: Tree) -> State:
    """The state before the first round."""
    return State(0, model)


def server(peers: Peers, s: State, w: FedAvg) -> Iterator[State]:
    """Server executes: one State after each round, the last one after a final evaluation if the options ask for it."""
    by = aggregation.uniform if w.options.weighting == "Uniform" else aggregation.examples
    for t in range(s.round, w.rounds):
        chosen = sample(peers.clients, w.clients_per_round, w.seed, t)  # S_t
        task = Train(round=t, params=s.model, optimizer_params=s.optimizer)
        updates = list(peers.ask_all(chosen, task, quorum=w.quorum or 1, close=w.close))  # w_k, in parallel
        model = aggregation.mean(updates, "params", by=by)  # Σ n_k w_k / Σ n_k
        carried = aggregation.agree(updates, "optimizer_params")
        if why := aggregation.unlike(updates, "optimizer_params"):
            log.warning("%s: optimizer_params are dropped, the next round begins without any: %s", round_text(t), why)
        s = State(t + 1, model, aggregation.mean(updates, "optimizer_params", by=by) if carried else None)
        yield s
    if w.options.evaluate and s.round == w.rounds:
        list(
            peers.ask_all(peers.clients, Evaluate(round=w.rounds, params=s.model), quorum=0)
        )  # the model is trained already
        yield replace(s, round=w.rounds + 1)
