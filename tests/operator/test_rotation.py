"""From one authority to the next: no server and client of a job ever stop trusting each other, whatever comes late."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fedjob import identity
from fedjob_operator import names, pki
from fedjob_operator.desired import certificate
from fedjob_operator.desired.authority import LEAST_LIFE, ROTATE_AT, Follower, Input, Move, follower, keeps, step
from fedjob_operator.observed import Certificate
from fedjob_operator.plan import Issue
from fedjob_operator.rotation import stepped
from fedjob_operator.settings import Settings
from fedjob_operator.trust import PHASES, Authorities, Life, Trust

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LIFE = timedelta(seconds=100)  # of a certificate
AGE = LIFE * 40  # of an authority
YOUNG = Life(NOW, NOW + AGE)


def trust(*generations: int) -> Trust:
    """The first one signs; all are trusted."""
    return Trust(str(generations[0]), " ".join(map(str, generations)))


def issued(by: Trust, now: datetime = NOW) -> Certificate:
    return Certificate(now, now + LIFE, (), "who", by.issuer, by.digest)


# ------------------------------------------------------------------------------------------------- the steps


def given(authorities: Authorities, *followers: Follower, now: datetime = NOW) -> Input:
    return Input(authorities, trust(1, 2), followers, now, LIFE)


AGREES = Follower("n/agrees", issued(trust(1, 2)))
LATE = Follower("n/late", issued(trust(1)))
UNKNOWN = Follower("n/unknown", None)
INTRODUCED = Authorities(YOUNG, next=YOUNG)
FOLLOWED = replace(INTRODUCED, followed_since=NOW)
SIGNING = Authorities(YOUNG, previous=YOUNG)


@pytest.mark.parametrize(
    ("case", "move", "why"),
    [
        (given(Authorities(YOUNG)), None, ""),
        (given(Authorities(YOUNG, asked="1", answered="1")), None, ""),
        (given(Authorities(YOUNG, asked="2", answered="1")), Move.INTRODUCE, "'2' was asked for"),
        (given(Authorities(YOUNG), now=NOW + AGE * 0.66), None, ""),
        (given(Authorities(YOUNG), now=NOW + AGE * 0.67), Move.INTRODUCE, "the authority ends at"),
        (given(replace(INTRODUCED, asked="3"), AGREES), Move.FOLLOWED, "every certificate in use agrees"),
        (given(INTRODUCED), Move.FOLLOWED, "every certificate in use agrees"),
        (given(INTRODUCED, AGREES, LATE), None, "1 of 2 certificates in use are not renewed yet: n/late"),
        (given(INTRODUCED, UNKNOWN, AGREES), None, "1 of 2 certificates in use are not renewed yet: n/unknown"),
        (given(FOLLOWED, now=NOW + LIFE * 0.99), None, "may be in use until 2030-01-01T00:01:40Z"),
        (given(FOLLOWED, now=NOW + LIFE), Move.SIGN, "no certificate of before is left"),
        (given(SIGNING, LATE), None, "not renewed yet"),
        (given(SIGNING, AGREES), Move.FOLLOWED, "every certificate in use agrees"),
        (given(replace(SIGNING, followed_since=NOW), now=NOW + LIFE * 0.5), None, "may be in use until"),
        (given(replace(SIGNING, followed_since=NOW), now=NOW + LIFE), Move.DROP, "no certificate of before is left"),
        (given(replace(FOLLOWED, current=Life(NOW - AGE, NOW))), Move.SIGN, "no certificate of before is left"),
    ],
)
def test_each_step_has_its_time(case: Input, move: Move | None, why: str) -> None:
    found = step(case)
    assert found.move == move
    assert (why in found.why) if why else found.why == ""


def job(**parts: Any) -> dict[str, Any]:
    return {"kind": names.FEDERATED_JOB.name, "metadata": {"namespace": "n", "name": "j"}, "spec": {}, **parts}


def site_job(**parts: Any) -> dict[str, Any]:
    return {**job(**parts), "kind": names.SITE_JOB.name}


def conditions(**found: tuple[str, str]) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": why} for kind, (status, why) in found.items()]}


ACCEPTED = ("True", "Accepted")


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (job(), True),
        (job(status=conditions(Complete=("True", "RoundsCompleted"))), False),
        (job(status=conditions(Failed=("True", "ServerFailed"))), False),
        (job(metadata={"deletionTimestamp": "2030-01-01T00:00:00Z"}), False),
        (job(spec={"suspend": True}, status=conditions(Admitted=("False", "Suspending"))), True),
        (job(spec={"suspend": True}, status=conditions(Admitted=("False", "Suspended"))), False),
        (site_job(), False),
        (site_job(status=conditions(Accepted=("False", "Refused"))), False),
        (site_job(status=conditions(Accepted=ACCEPTED)), True),
        (site_job(spec={"suspend": True}, status=conditions(Accepted=ACCEPTED)), False),
        (site_job(status=conditions(Accepted=ACCEPTED, Finished=("True", "Succeeded"))), False),
    ],
)
def test_only_what_may_have_pods_is_waited_for(raw: dict[str, Any], kept: bool) -> None:
    assert keeps(raw) is kept


def test_a_certificate_that_nobody_has_looked_at_is_waited_for_until_it_ends() -> None:
    end = NOW + LIFE
    raw = job(status={"certificates": {"serverNotAfter": f"{end:%Y-%m-%dT%H:%M:%SZ}"}})
    assert follower(raw, None, NOW) == Follower("n/j", None)
    assert follower(raw, None, end) is None
    assert follower(job(), None, NOW) is None
    present = issued(trust(1))
    assert follower(raw, present, NOW) == Follower("n/j", present)
    assert follower(raw, present, present.not_after) is None


# ------------------------------------------------------------------------------------------ the law of trust


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
        raws = [(name, {"certificateNotAfter": f"{end:%Y-%m-%dT%H:%M:%SZ}"}) for name, end in self.told.items()]
        jobs = [(n, site_job(status={**status, **conditions(Accepted=ACCEPTED)})) for n, status in raws]
        followers = [f for n, raw in jobs if (f := follower(raw, self.known.get(n), self.now)) is not None]
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


# ----------------------------------------------------------------------------------------------- the Secret


def test_an_authority_in_each_phase_survives_its_secret_and_keeps_no_key_that_signs_no_more() -> None:
    first = pki.create("fedjob.local", NOW, AGE)
    introduced = pki.introduce(first, NOW, AGE)
    signing = pki.sign(introduced)
    stable = pki.drop(signing)
    for phase, made in (("Stable", first), ("Introduced", introduced), ("Signing", signing), ("Stable", stable)):
        raw = pki.to_secret(made, "system")
        again = pki.from_secret(raw, "fedjob.local")
        assert again.trust == made.trust
        assert pki.authorities(raw, again).phase == phase
    data = pki.to_secret(signing, "system")["data"]
    old_key = pki.to_secret(first, "system")["data"]["tls.key"]
    assert old_key not in data.values()
    assert set(data) == {"tls.key", "tls.crt", "ca.crt", "previous.crt"}
    assert "PrivateKey" not in repr(introduced)
    assert signing.trust.issuer != first.trust.issuer
    assert introduced.trust.issuer == first.trust.issuer


def test_each_step_is_what_the_secret_says_afterwards() -> None:
    raw = pki.to_secret(pki.create("fedjob.local", NOW, AGE), "system")
    notes = {names.ROTATE_ANNOTATION: "2030", "team/note": "ours"}
    raw["metadata"] |= {"resourceVersion": "7", "managedFields": [], "annotations": notes}
    own = Settings(namespace="system", runtime_image="x", identity="x", authority_life=AGE)
    seen = []
    for move in (Move.INTRODUCE, Move.FOLLOWED, Move.SIGN, Move.FOLLOWED, Move.DROP):
        raw = stepped(raw, pki.from_secret(raw, "fedjob.local"), move, NOW, own)
        found = pki.authorities(raw, pki.from_secret(raw, "fedjob.local"))
        seen.append((found.phase, found.followed_since))
        assert (found.asked, found.answered) == ("2030", "2030")
        assert raw["metadata"]["annotations"]["team/note"] == "ours"
        assert raw["metadata"]["resourceVersion"] == "7"
        assert "managedFields" not in raw["metadata"]
    introduced, signing = ("Introduced", "Signing")
    assert seen == [(introduced, None), (introduced, NOW), (signing, None), (signing, NOW), ("Stable", None)]


def test_a_next_authority_whose_key_is_another_ones_is_no_authority() -> None:
    made = pki.introduce(pki.create("fedjob.local", NOW, AGE), NOW, AGE)
    raw = pki.to_secret(made, "system")
    raw["data"]["next.key"] = raw["data"]["tls.key"]
    with pytest.raises(ValueError, match="holds no authority"):
        pki.from_secret(raw, "fedjob.local")


def test_a_certificate_of_either_authority_is_told_by_its_issuer_among_those_of_one_name() -> None:
    introduced = pki.introduce(pki.create("fedjob.local", NOW, AGE), NOW, AGE)
    signing = pki.sign(introduced)
    manifest = {"metadata": {"name": "s", "namespace": "n"}}
    for made in (introduced, signing):
        secret, present = pki.fill(Issue(manifest, "uid-1", "a", (), LIFE), made, NOW)
        assert present.issuer == made.trust.issuer
        assert present.bundle == made.trust.digest
        held = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        credentials = identity.Credentials(held["tls.key"], held["tls.crt"], held["ca.crt"])
        assert identity.problems(credentials, NOW, identity.Identity("fedjob.local", "uid-1", "a")) == []
        assert held["ca.crt"].count(b"BEGIN CERTIFICATE") == 2
    assert introduced.current.certificate.subject == signing.current.certificate.subject
    assert introduced.current.certificate.public_bytes(Encoding.PEM) in signing.bundle


def test_every_phase_has_its_series() -> None:
    assert {a.phase for a in (Authorities(YOUNG), INTRODUCED, SIGNING)} == set(PHASES)


def test_a_rotation_fits_into_what_is_left_of_an_authority() -> None:
    assert LEAST_LIFE * (1 - ROTATE_AT) > 2, "it takes two lives of certificates, and the time to renew them"
