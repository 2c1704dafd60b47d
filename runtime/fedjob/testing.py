"""Run a workflow without network, processes or waiting: in-memory peers, one thread, a virtual clock, seeded faults.

    from fedjob import testing
    from fedjob.api import FedAvg

    result = testing.run(FedAvg(rounds=3), {"w": numpy.zeros(2)}, {"a": train_a, "b": train_b})
    assert result.params["w"] ...

`train_a` takes the FLModel that a script would receive and returns the one that it would send. A server that is killed and
started again (`Faults.kill_before`) must end with the same bytes, and train nobody twice: `for k in range(result.calls)`.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import checkpoint, narrow, values
from .acceptance import Header, Refusal, check_header
from .api import Exchange, Workflow
from .asks import Open, sent_parts
from .codec import Inflow, Outflow, flatten
from .errors import JobFailed, PeerFailed
from .limits import Limits
from .model import PARTS, FLModel, ParamsType
from .peers import Answer, Close, Task
from .quantities import round_text
from .quorum import Asked, Closed, NotMet, Rule, decide
from .records import SiteRound
from .stored import Stored, open_stored, stored_form, write, write_values
from .trees import Tree, flowing
from .workflows import WORKFLOWS

Client = Callable[[FLModel], FLModel]
Key = tuple[str, int, int]  # kind, round, n-th ask


class Killed(BaseException):
    """The server process ends here, as by SIGKILL: no handler of the workflow's may see it."""


class Decline(Exception):  # noqa: N818
    """A client raises it to sit a round out."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, all of it repeatable.

    seed: order of arrival. kill_before: numbers of the calls (asks, and answers handed over) before which the server is
    killed. silent: site -> rounds in which it never answers.
    """

    seed: int = 0
    kill_before: frozenset[int] = frozenset()
    silent: Mapping[str, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came of a run. params: the final model as the clients get it; file: its bytes; calls: see `Faults`."""

    rounds: int
    params: Any
    file: bytes
    calls: int
    trained: Counter[tuple[str, int]]
    missing: Mapping[Key, Mapping[str, Refusal]]


@dataclass
class World:
    """What outlives a server: the clients, their answers, and the count of calls."""

    clients: Mapping[str, Client]
    faults: Faults
    folder: Path
    answers: dict[tuple[Key, str], Answer] = field(default_factory=dict)
    out: dict[Key, dict[str, Refusal]] = field(default_factory=dict)
    closed: dict[Key, list[str]] = field(default_factory=dict)
    trained: Counter[tuple[str, int]] = field(default_factory=Counter)
    calls: int = 0
    exchange: Exchange = field(default_factory=Exchange)

    def call(self) -> None:
        """Count a call, and be killed before it if that is planned."""
        number, self.calls = self.calls, self.calls + 1
        if number in self.faults.kill_before:
            raise Killed


class InMemory:
    """Implements `peers.Peers`. One is one life of the server; what its successor finds is in the world."""

    def __init__(self, world: World, workflow: Workflow, required: frozenset[str], wait_seconds: float = 0.0) -> None:
        self.clients = tuple(sorted(world.clients))
        self._world = world
        self._workflow = workflow
        self._required = required
        self._wait_seconds = wait_seconds
        self._count: Counter[tuple[str, int]] = Counter()

    def ask(self, to: str, task: Task) -> Answer:
        """See `Peers.ask`."""
        try:
            return next(iter(self.ask_all([to], task)))
        except JobFailed as e:
            raise PeerFailed(to, "PeerLost", e.message) from None

    def ask_all(self, to: Sequence[str], task: Task, *, quorum: int = 1, close: Close = "Deadline") -> Iterator[Answer]:
        """See `Peers.ask_all`. Answers arrive in a seeded order, one virtual second apart."""
        w = self._world
        w.call()
        key = (task.kind, task.round, self._count[task.kind, task.round])
        self._count[task.kind, task.round] += 1
        seconds = float(self._workflow.round_timeout_seconds)
        limits = Limits(
            seconds, self._wait_seconds, seconds, seconds, seconds, "", w.exchange.dtype, w.exchange.max_size
        )
        sent = sent_parts(task, (task.kind, key[2]), w.folder, limits)
        rule = Rule(quorum, self._workflow.round_timeout_seconds, close, self._required, self._wait_seconds)
        came = [s for s in w.closed.get(key, to) if (key, s) in w.answers]
        waiting = [] if key in w.closed else self._arrivals(key, to)
        now = 0.0
        while True:
            for site in came:
                w.call()
                yield w.answers[key, site]
            if key in w.closed:
                return
            answered = frozenset(s for s in to if (key, s) in w.answers)
            asked = Asked(frozenset(to), answered, {s: r.reason for s, r in w.out.get(key, {}).items()})
            step = decide(rule, asked, now)
            if isinstance(step, NotMet):
                raise JobFailed("QuorumNotMet", f"{round_text(task.round)}: {step.message}")
            came = []
            if isinstance(step, Closed):
                w.closed[key] = sorted(answered)
            elif waiting:
                site, now = waiting.pop(0), now + 1.0
                came = (
                    [site]
                    if self._answer(Open((key[0], key[2]), key[1], frozenset(to), rule, sent, task.parts), site)
                    else []
                )
            else:
                now = step.until_seconds

    def _arrivals(self, key: Key, to: Sequence[str]) -> list[str]:
        w = self._world
        done = {s for k, s in w.answers if k == key} | set(w.out.get(key, {}))
        sites = [s for s in to if s not in done and key[1] not in w.faults.silent.get(s, ())]
        random.Random(f"{w.faults.seed}/{key}").shuffle(sites)
        return sites

    def _answer(self, opened: Open, site: str) -> bool:
        """Let a site work on a task; whether its answer counts."""
        w, kind = self._world, opened.ask[0]
        key = (kind, opened.round, opened.ask[1])
        w.trained[site, opened.round] += kind == "Train"
        trees = {name: _values(part) for name, part in opened.parts.items()}
        model = FLModel(**trees, current_round=opened.round, total_rounds=self._workflow.rounds, meta={"task": kind})
        try:
            back = w.clients[site](model)
        except Decline as e:
            w.out.setdefault(key, {})[site] = Refusal("Declined", str(e))
            return False
        parts: dict[str, Stored] = {}
        for name in PARTS:
            if kind != "Evaluate" and (tree := getattr(back, name)) is not None:
                outflow = self._outgoing(back, opened.parts[name]) if name == "params" else flatten(tree)
                parts[name] = write(w.folder / f"{'-'.join(map(str, key))}-{site}-{name}", flowing(outflow))
        params_type = ParamsType.DIFF if "params" in parts and w.exchange.params == "Diff" else ParamsType.FULL
        base = opened.parts["params"].digest
        header = Header(back.num_examples, values.scores(back.metrics), values.notes(back.meta), params_type, base)
        most = self._workflow.max_examples
        if problem := check_header(header, params_type, base, most) or opened.check_answer(header, parts, {}):
            w.out.setdefault(key, {})[site] = problem
            return False
        w.answers[key, site] = opened.take(site, "", header, parts, SiteRound())
        return True

    def _outgoing(self, back: FLModel, received: Tree) -> Outflow:
        exchange = self._world.exchange
        base = received if exchange.params == "Diff" and back.params_type == ParamsType.FULL else None
        return narrow.outgoing(flatten(back.params, narrow.chooser(exchange.include)), exchange.dtype, base)


def run(
    workflow: Workflow,
    model: Any,
    clients: Mapping[str, Client],
    *,
    required: Sequence[str] = (),
    faults: Faults = Faults(),
    exchange: Exchange = Exchange(),
) -> Result:
    """Run a workflow from an initial model (a tree of arrays) to its end, through as many lives of the server as it takes.

    exchange: what travels between the sites and the server, as in a job file.
    Raises JobFailed as a real job would, with the same reasons.
    """
    module = WORKFLOWS[workflow.type]
    with tempfile.TemporaryDirectory() as name:
        world = World(clients, faults, Path(name), exchange=exchange)
        folder = world.folder / "checkpoint"
        master = narrow.master_form(write_values(world.folder / "initial", model), exchange.include)
        checkpoint.save(folder, module.start(master), 0.0)
        while True:
            peers = InMemory(world, workflow, frozenset(required))
            try:
                for state in module.server(peers, _state(folder, module), workflow):
                    checkpoint.save(folder, state, 0.0)
                break
            except Killed:
                continue
        state = _state(folder, module)
        final = _stored(world.folder / "final", narrow.own_form(state.model))
        return Result(
            state.round,
            _values(final),
            final.path.read_bytes(),
            world.calls,
            world.trained,
            dict(world.out),
        )


def _state(folder: Path, module: Any) -> Any:
    saved = checkpoint.load(folder, module.State)
    assert saved is not None
    return saved[0]


def _stored(path: Path, tree: Tree) -> Stored:
    return stored_form(tree) or write(path, tree)


def _values(stored: Stored) -> Any:
    """The tree in a file as a client gets it."""
    inflow = Inflow()
    inflow.write(open_stored(stored.path, stored.digest).path.read_bytes())
    return inflow.tree()
