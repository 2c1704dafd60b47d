"""From one authority to the next: no server and client of a job ever stop trusting each other, whatever comes late."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fedjob_operator import names
from fedjob_operator.desired import certificate
from fedjob_operator.desired.authority import Input, Move, follower, step
from fedjob_operator.observed import Certificate, Raw
from fedjob_operator.trust import Authorities, Life, Trust

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LIFE = timedelta(seconds=100)  # of a certificate
AGE = LIFE * 40  # of an authority
YOUNG = Life(NOW, NOW + AGE)


def trust(*generations: int) -> Trust:
    """The first one signs; all are trusted."""
    return Trust(str(generations[0]), " ".join(map(str, generations)))


def issued(by: Trust, now: datetime = NOW) -> Certificate:
    return Certificate(now, now + LIFE, (), "who", by.issuer, by.digest)


def accepted(end: datetime) -> Raw:
    """A SiteJob that runs, whose certificate ends then."""
    status = {
        "certificateNotAfter": f"{end:%Y-%m-%dT%H:%M:%SZ}",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}],
    }
    return {"kind": names.SITE_JOB.name, "metadata": {"namespace": "n", "name": "j"}, "spec": {}, "status": status}


@dataclass(frozen=True)
class Held:
    """A Secret's content: a certificate and the authorities beside it."""

    certificate: Certificate
    trusts: frozenset[str]


class Interleavings(RuleBasedStateMachine):
    """One job's server and two clients, their Secrets and pods, an operator that forgets, writes that land late, pods that sleep.

    The generations of the authority are numbers. The Secret that keeps them is `kept`; `memory` is what the operator believes.
    """

    OBJECTS = ("server", "client", "newcomer")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.kept = Authorities(YOUNG)
        self.generations = (1,)  # the signing one first
        self.count = 1
        self.memory = self.generations
        self.secrets: dict[str, Held] = {}
        self.known: dict[str, Certificate] = {}  # what the operator has seen of them
        self.told: dict[str, datetime] = {}  # the end of a certificate, as status tells it
        self.pods: dict[str, Held] = {}
        self.under_way: list[tuple[str, Held]] = []  # writes that have not arrived

    @initialize()
    def both_run(self) -> None:
        """Server and client have started, and a rotation is asked for."""
        self.somebody_asks_for_a_rotation()
        for name in ("server", "client"):
            self.a_pass(name)
            self.a_write_lands(0)
            self.a_pod_looks(name)

    @rule(seconds=st.sampled_from((1, 10, 34, 50, 101)))
    def time_passes(self, seconds: int) -> None:
        """At most a life of a certificate at a time."""
        self.now += timedelta(seconds=seconds)

    @rule(name=st.sampled_from(OBJECTS))
    def a_pass(self, name: str) -> None:
        """The operator looks at an object, and issues a certificate by what it believes; the write is on its way."""
        if name in self.secrets:
            self.known[name] = self.secrets[name].certificate
            self.told[name] = self.known[name].not_after
        believed = trust(*self.memory)
        wanted = certificate.Wanted(name, "who", (), believed.issuer, believed.digest)
        if certificate.violation(wanted, self.known.get(name), self.now):
            self.under_way.append((name, Held(issued(believed, self.now), frozenset(map(str, self.memory)))))

    @rule(which=st.integers(0, 5))
    def a_write_lands(self, which: int) -> None:
        """In any order, however late."""
        if which < len(self.under_way):
            name, held = self.under_way.pop(which)
            self.secrets[name], self.known[name] = held, held.certificate

    @rule()
    def every_secret_is_renewed(self) -> None:
        """Where nothing is late."""
        for name in self.OBJECTS:
            self.a_pass(name)
            while self.under_way:
                self.a_write_lands(0)
            self.a_pass(name)

    @rule(name=st.sampled_from(OBJECTS))
    def a_secret_is_renewed_and_its_pod_looks(self, name: str) -> None:
        """Where the others are late."""
        self.a_pass(name)
        self.a_write_lands(max(len(self.under_way) - 1, 0))
        self.a_pod_looks(name)

    @rule(name=st.sampled_from(OBJECTS))
    def a_pod_looks(self, name: str) -> None:
        """A pod reads its Secret: at its start, or because it has changed; or it does not for a long time."""
        if name in self.secrets:
            self.pods[name] = self.secrets[name]

    @rule()
    def the_operator_reads(self) -> None:
        """What it believes is what the Secret says."""
        self.memory = self.generations

    @rule()
    def another_operator_leads(self) -> None:
        """It reads the authority first, and knows no other Secret yet."""
        self.the_operator_reads()
        self.known = {}

    @rule()
    def somebody_asks_for_a_rotation(self) -> None:
        """By an annotation."""
        self.kept = replace(self.kept, asked=str(self.count))

    @rule()
    def turns(self) -> None:
        """Two in a row, with all Secrets renewed between them."""
        self.a_turn(crash=False)
        self.every_secret_is_renewed()
        self.a_turn(crash=False)

    @rule(crash=st.booleans())
    def a_turn(self, crash: bool) -> None:
        """The next step of a rotation, if it is time. crash: the operator dies behind the write."""
        self.the_operator_reads()
        jobs = [(name, accepted(end)) for name, end in self.told.items()]
        followers = [f for name, raw in jobs if (f := follower(raw, self.known.get(name), self.now)) is not None]
        taken = step(Input(self.kept, trust(*self.generations), followers, self.now, LIFE)).move
        if taken is not None:
            self._write(taken)
            if crash:
                self.another_operator_leads()
            else:
                self.the_operator_reads()

    def _write(self, move: Move) -> None:
        kept = replace(self.kept, followed_since=None)
        if move is Move.INTRODUCE:
            self.count += 1
            self.generations = (*self.generations, self.count)
            kept = replace(kept, next=Life(self.now, self.now + AGE), answered=kept.asked)
        elif move is Move.FOLLOWED:
            kept = replace(kept, followed_since=self.now)
        elif move is Move.SIGN:
            assert kept.next is not None
            self.generations = tuple(reversed(self.generations))
            kept = replace(kept, current=kept.next, next=None, previous=kept.current)
        else:
            self.generations = self.generations[:1]
            kept = replace(kept, previous=None)
        self.kept = kept

    @invariant()
    def server_and_clients_trust_each_other(self) -> None:
        """Whatever they hold, if it has not ended."""
        alive = {name: held for name, held in self.pods.items() if self.now < held.certificate.not_after}
        server = alive.pop("server", None)
        for name, client in alive.items():
            if server is not None:
                assert server.certificate.issuer in client.trusts, f"{name} does not trust the server"
                assert client.certificate.issuer in server.trusts, f"the server does not trust {name}"


Interleavings.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestInterleavings = Interleavings.TestCase


def test_a_rotation_comes_to_its_end_by_itself() -> None:
    world = Interleavings()
    world.both_run()
    world.somebody_asks_for_a_rotation()
    phases = []
    for _ in range(60):
        world.time_passes(10)
        world.a_turn(crash=False)
        phases.append(world.kept.phase)
        for name in ("server", "client"):
            world.a_pass(name)
            world.a_write_lands(0)
            world.a_pod_looks(name)
            world.a_pass(name)
        world.server_and_clients_trust_each_other()
    assert list(dict.fromkeys(phases)) == ["Introduced", "Signing", "Stable"]
    assert world.generations == (2,)
    assert phases[-1] == "Stable"
