"""Each step from one authority to the next: when its time has come, what is said of it, and what it makes of the Secret."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fedjob import identity
from fedjob_operator import names, pki
from fedjob_operator.desired.authority import LEAST_LIFE, ROTATE_AT, Follower, Input, Move, Step, follower, keeps, step
from fedjob_operator.observed import Certificate
from fedjob_operator.plan import Issue
from fedjob_operator.rotation import stepped
from fedjob_operator.settings import Settings
from fedjob_operator.trust import PHASES, Authorities, Life, Trust

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LIFE = timedelta(seconds=100)  # of a certificate
AGE = LIFE * 40  # of an authority
YOUNG = Life(NOW, NOW + AGE)
OLD = Life(NOW - LIFE * 24, NOW + LIFE * 12)  # two thirds are over


def trust(*generations: int) -> Trust:
    """The first one signs; all are trusted."""
    return Trust(str(generations[0]), " ".join(map(str, generations)))


def issued(by: Trust, now: datetime = NOW) -> Certificate:
    return Certificate(now, now + LIFE, (), "who", by.issuer, by.digest)


def given(authorities: Authorities, *followers: Follower, now: datetime = NOW) -> Input:
    return Input(authorities, trust(1, 2), followers, now, LIFE)


AGREES = Follower("n/agrees", issued(trust(1, 2)))
LATE = Follower("n/late", issued(trust(1)))  # from who signs now, and knows nothing of the next one
OTHER = Follower("n/other", replace(issued(trust(1, 2)), issuer="2"))
UNKNOWN = Follower("n/unknown", None)
INTRODUCED = Authorities(YOUNG, next=YOUNG)
FOLLOWED = replace(INTRODUCED, followed_since=NOW)
SIGNING = Authorities(YOUNG, previous=YOUNG)


OTHERS = [Follower(f"n/{name}", None) for name in "dcba"]
LEFT = "no certificate of before is left"
BEFORE = "certificates of before may be in use until 2030-01-01T00:01:40Z"
LATER = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("case", "move", "why"),
    [
        (given(Authorities(YOUNG)), None, ""),
        (given(Authorities(YOUNG, asked="1", answered="1")), None, ""),
        (given(Authorities(YOUNG, answered="1")), None, ""),
        (given(Authorities(YOUNG, asked="2", answered="1")), Move.INTRODUCE, "'2' was asked for"),
        (given(Authorities(OLD), now=NOW - LATER), None, ""),
        (given(Authorities(OLD)), Move.INTRODUCE, "the authority ends at 2030-01-01T00:20:00Z"),
        (given(replace(INTRODUCED, asked="3"), AGREES), Move.FOLLOWED, "every certificate in use agrees"),
        (given(INTRODUCED), Move.FOLLOWED, "every certificate in use agrees"),
        (given(INTRODUCED, AGREES, LATE), None, "1 of 2 certificates in use are not renewed yet: n/late"),
        (given(INTRODUCED, OTHER, AGREES), None, "1 of 2 certificates in use are not renewed yet: n/other"),
        (given(INTRODUCED, UNKNOWN, AGREES), None, "1 of 2 certificates in use are not renewed yet: n/unknown"),
        (given(INTRODUCED, *OTHERS[1:]), None, "3 of 3 certificates in use are not renewed yet: n/a, n/b, n/c"),
        (given(INTRODUCED, *OTHERS), None, "4 of 4 certificates in use are not renewed yet: n/a, n/b, n/c, …"),
        (given(FOLLOWED, now=NOW + LIFE - LATER), None, BEFORE),
        (given(FOLLOWED, LATE, now=NOW + LIFE), Move.SIGN, LEFT),
        (given(SIGNING, LATE), None, "1 of 1 certificates in use are not renewed yet: n/late"),
        (given(SIGNING, AGREES), Move.FOLLOWED, "every certificate in use agrees"),
        (given(replace(SIGNING, followed_since=NOW)), None, BEFORE),
        (given(replace(SIGNING, followed_since=NOW), now=NOW + LIFE), Move.DROP, LEFT),
        (given(replace(FOLLOWED, current=Life(NOW - AGE, NOW + LATER))), None, BEFORE),
        (given(replace(FOLLOWED, current=Life(NOW - AGE, NOW))), Move.SIGN, LEFT),
    ],
)
def test_each_step_has_its_time(case: Input, move: Move | None, why: str) -> None:
    assert step(case) == Step(move, why)


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
        (job(status=conditions(Complete=("False", ""), Failed=("Unknown", ""))), True),
        (job(metadata={"deletionTimestamp": "2030-01-01T00:00:00Z"}), False),
        (job(spec={"suspend": True}, status=conditions(Admitted=("False", "Suspending"))), True),
        (job(spec={"suspend": True}, status=conditions(Admitted=("False", "Suspended"))), False),
        (job(status=conditions(Admitted=("False", "Suspended"))), True),  # it is about to go on
        (job(spec={"suspend": True}, status=conditions(Failed=("True", "ServerFailed"))), False),
        (job(spec=None), True),
        (site_job(), False),
        (site_job(status=conditions(Accepted=("False", "Refused"))), False),
        (site_job(status=conditions(Accepted=ACCEPTED)), True),
        (site_job(spec={"suspend": True}, status=conditions(Accepted=ACCEPTED)), False),
        (site_job(status=conditions(Accepted=ACCEPTED, Finished=("True", "Succeeded"))), False),
        (site_job(status=conditions(Accepted=ACCEPTED, Finished=("False", "Running"))), True),
    ],
)
def test_only_what_may_have_pods_is_waited_for(raw: dict[str, Any], kept: bool) -> None:
    assert keeps(raw) is kept


def test_a_certificate_that_nobody_has_looked_at_is_waited_for_until_it_ends() -> None:
    end = NOW + LIFE
    told = f"{end:%Y-%m-%dT%H:%M:%SZ}"
    for raw in (
        job(status={"certificates": {"serverNotAfter": told}}),
        site_job(status={"certificateNotAfter": told, **conditions(Accepted=ACCEPTED)}),
    ):
        assert follower(raw, None, NOW) == follower(raw, None, end - LATER) == Follower("n/j", None)
        assert follower(raw, None, end) is None
    assert follower(job(), None, NOW) is None
    present = issued(trust(1))
    assert follower(raw, present, NOW) == Follower("n/j", present)
    assert follower(raw, present, present.not_after) is None
    assert follower(job(), present, NOW) == Follower("n/j", present), "though nothing is told of it yet"
    assert follower(site_job(), present, NOW) is None


def test_a_rotation_fits_into_what_is_left_of_an_authority() -> None:
    assert LEAST_LIFE * (1 - ROTATE_AT) > 2, "it takes two lives of certificates, and the time to renew them"


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


def test_a_step_changes_nothing_of_the_secret_but_what_it_is_about() -> None:
    made = pki.create("fedjob.local", NOW, AGE)
    raw = pki.to_secret(made, "system")
    own = Settings(namespace="system", runtime_image="x", identity="x", authority_life=AGE)
    noted = {names.FOLLOWED_ANNOTATION: "2030-01-01T00:00:00.000000Z"}
    metadata = {**raw["metadata"], "annotations": noted}
    assert stepped(raw, made, Move.FOLLOWED, NOW, own) == {**raw, "metadata": metadata}
    introduced = stepped({**raw, "metadata": metadata}, made, Move.INTRODUCE, NOW, own)
    assert introduced["metadata"] == {**metadata, "annotations": {names.ROTATED_ANNOTATION: ""}}
    following = pki.from_secret(introduced, "fedjob.local").next
    assert following is not None
    assert following.certificate.not_valid_after_utc == NOW + AGE


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
