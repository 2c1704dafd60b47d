"""The hub's authority in its Secret, as one replica sees it: what is read late, what is lost, who writes, and who is told."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from fedjob_operator import names, pki, rotation
from fedjob_operator.cluster import ApiError, Cluster
from fedjob_operator.metrics import Metrics
from fedjob_operator.plan import Issue
from fedjob_operator.rotation import Rotation
from fedjob_operator.settings import Settings
from fedjob_operator.store import Store

NOW = datetime.now(UTC).replace(microsecond=0)
AGE = timedelta(days=100)
SETTINGS = Settings("system", "image", "me", authority_seconds=7.0, authority_life=AGE)
AWAY = ApiError(503, "Unavailable", "later", "GET secrets")
FORBIDDEN = ApiError(403, "Forbidden", "no", "GET secrets")


@dataclass
class _Api:
    """The API server, as far as one Secret and the events about it go; versions as it keeps them."""

    secret: dict[str, Any] | None = None
    version: int = 100
    fails: list[ApiError | None] = field(default_factory=list)  # the next calls, one by one
    stale: dict[str, Any] | None = None  # what the next read answers
    writers: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def put(self, secret: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        metadata = {**secret["metadata"], "uid": "u", "resourceVersion": str(self.version)}
        self.secret = {**copy.deepcopy(secret), "metadata": metadata}
        return copy.deepcopy(self.secret)

    def answer(self) -> None:
        error = self.fails.pop(0) if self.fails else None
        if error is not None:
            raise error


@dataclass
class _Client:
    """A client of it. name: whose."""

    api: _Api
    name: str

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        self.api.answer()
        assert (kind.name, namespace, name) == ("Secret", "system", pki.SECRET_NAME)
        stale, self.api.stale = self.api.stale, None
        return copy.deepcopy(stale or self.api.secret)

    async def create(self, manifest: Any) -> Any:
        self.api.answer()
        if self.api.secret is not None:
            raise ApiError(409, "AlreadyExists", "", "POST secrets")
        self.api.writers.append(f"{self.name} create")
        return self.api.put(manifest)

    async def replace(self, manifest: Any) -> Any:
        self.api.answer()
        there = self.api.secret
        if there is None or manifest["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "", "PUT secrets")
        self.api.writers.append(f"{self.name} replace")
        return self.api.put(manifest)

    async def record(self, event: Any) -> None:
        self.api.events.append(event)


@dataclass
class _Replica:
    """A replica: its view, and how often it told that trust has changed."""

    api: _Api
    view: Rotation = field(init=False)
    changes: int = 0
    metrics: Metrics = field(default_factory=Metrics)
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        leading, free = (cast(Cluster, _Client(self.api, name)) for name in ("leader", "anybody"))
        self.view = Rotation(leading, free, self.store, SETTINGS, self.metrics, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def trust(self) -> Any:
        return self.view.authority().trust

    def turn(self) -> None:
        asyncio.run(self.view._turn())


def authority(begin: datetime = NOW) -> pki.Authority:
    return pki.create("fedjob.local", begin, AGE)


def kept(made: pki.Authority, **notes: str) -> dict[str, Any]:
    raw = pki.to_secret(made, "system")
    return {**raw, "metadata": {**raw["metadata"], "annotations": {f"{names.GROUP}/{k}": v for k, v in notes.items()}}}


def started(made: pki.Authority, **notes: str) -> _Replica:
    """A replica that has read the authority."""
    api = _Api()
    api.put(kept(made, **notes))
    found = _Replica(api)
    asyncio.run(found.view.find())
    return found


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; the time of the test does not pass, and after five pauses the loop is cancelled."""
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) >= 5:
            raise asyncio.CancelledError

    monkeypatch.setattr(rotation.asyncio, "sleep", pause)
    return waited


def for_ever(loop: Callable[[], Awaitable[None]]) -> None:
    """A loop, until it is cancelled."""

    async def run() -> None:
        await loop()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


# ------------------------------------------------------------------------------------------------------- finding


def test_the_first_replica_makes_the_authority_and_the_next_one_takes_it() -> None:
    api = _Api()
    first, second = _Replica(api), _Replica(api)
    asyncio.run(first.view.find())
    asyncio.run(second.view.find())
    assert first.trust == second.trust
    assert api.writers == ["anybody create"], "before anybody leads"
    assert api.secret is not None
    assert (api.secret["metadata"]["namespace"], api.secret["metadata"]["name"]) == ("system", pki.SECRET_NAME)
    assert (first.changes, second.changes) == (0, 0), "there was none before"
    made = first.view.authority().current.certificate
    assert made.not_valid_after_utc - datetime.now(UTC) > AGE - timedelta(hours=1)
    assert first.metrics.ends["authority"] == made.not_valid_after_utc.timestamp()


def test_a_replica_that_comes_second_while_both_make_one_takes_the_one_that_is_kept(pauses: list[float]) -> None:
    api = _Api()
    late = _Replica(api)
    winner = kept(authority())

    async def race() -> None:
        client = late.view.free
        create = client.create

        async def beaten(manifest: Any) -> Any:
            api.put(winner)
            return await create(manifest)

        client.create = beaten  # type: ignore[method-assign]
        await late.view.find()

    asyncio.run(race())
    assert pauses == [1.0]
    assert late.trust == pki.from_secret(winner, "fedjob.local").trust
    assert api.writers == []


def test_an_api_server_that_is_away_is_waited_for_as_long_as_it_asks(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    api = _Api(fails=[AWAY, ApiError(429, "TooMany", "", "GET secrets", retry_after=9.0), None])
    api.put(kept(authority()))
    asyncio.run(_Replica(api).view.find())
    assert pauses == [1.0, 9.0]
    told = [(r.levelname, r.message, r.__dict__["error"]) for r in caplog.records]
    assert told[0] == ("WARNING", "the authority cannot be read yet", "GET secrets: 503 Unavailable: later")


def test_missing_rights_and_a_secret_of_something_else_are_errors() -> None:
    with pytest.raises(ApiError):
        asyncio.run(_Replica(_Api(fails=[FORBIDDEN])).view.find())
    api = _Api()
    api.put({**kept(authority()), "data": {"tls.crt": "AAAA"}})
    with pytest.raises(pki.NoAuthorityError):
        asyncio.run(_Replica(api).view.find())


# ------------------------------------------------------------------------------------------------------- reading


def test_an_answer_that_comes_late_does_not_bring_back_the_authority_of_before() -> None:
    old = authority()
    replica = started(old)
    before = replica.api.secret
    replica.api.put(kept(pki.introduce(old, NOW, AGE)))
    replica.turn()
    newer = replica.trust
    assert newer != old.trust
    assert replica.changes == 1
    replica.api.stale = before
    asyncio.run(replica.view._read())
    assert replica.trust == newer
    assert replica.changes == 1


def test_versions_are_numbers() -> None:
    old = authority()
    replica = started(old)
    replica.api.version = 998
    replica.api.put(kept(pki.introduce(old, NOW, AGE)))  # 999
    asyncio.run(replica.view._read())
    replica.api.put(kept(old))  # 1000, which is less as a text
    asyncio.run(replica.view._read())
    assert replica.trust == old.trust


def test_who_trusts_is_told_of_every_change_and_of_nothing_else() -> None:
    old = authority()
    replica = started(old)
    replica.api.put(kept(old, note="somebody wrote something else"))
    asyncio.run(replica.view._read())
    assert replica.changes == 0
    introduced = pki.introduce(old, NOW, AGE)
    for count, made in enumerate((introduced, pki.sign(introduced), pki.drop(pki.sign(introduced))), start=1):
        replica.api.put(kept(made))
        asyncio.run(replica.view._read())
        assert (replica.changes, replica.trust) == (count, made.trust)


def test_a_replica_looks_at_the_secret_now_and_then_and_an_error_ends_nothing(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    old = authority()
    replica = started(old)
    replica.api.put(kept(pki.introduce(old, NOW, AGE)))
    replica.api.fails = [AWAY, AWAY]
    with caplog.at_level(logging.INFO):
        for_ever(replica.view.follow_for_ever)
    assert pauses == [7.0] * 5
    assert replica.changes == 1
    said = [(r.levelname, r.message, r.__dict__["why"]) for r in caplog.records]
    assert said == [("ERROR", "the authority cannot be read", str(AWAY))], "once"
    replica.api.put({**kept(old), "data": {}})
    pauses.clear()
    for_ever(replica.view.follow_for_ever)
    assert replica.changes == 1


# ------------------------------------------------------------------------------------------------------- turning


def test_a_secret_that_is_lost_is_written_again_with_the_authority_that_was_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica = started(pki.introduce(authority(), NOW, AGE))
    before = replica.trust
    replica.api.secret = None
    replica.turn()
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "the authority's Secret was gone, and is there again")
    ]
    assert replica.api.writers == ["leader create"]
    assert replica.api.secret is not None
    assert pki.from_secret(replica.api.secret, "fedjob.local").trust == before
    replica.turn()
    assert (replica.trust, replica.changes) == (before, 0)


def test_a_step_is_taken_up_once_it_is_kept_and_told_as_an_event(caplog: pytest.LogCaptureFixture) -> None:
    replica = started(authority(), **{"rotate-authority": "2030"})
    before = replica.trust
    with caplog.at_level(logging.INFO):
        replica.turn()
    told = [(r.levelname, r.message, r.__dict__["why"]) for r in caplog.records]
    assert told == [("INFO", "the authority: introduce", "'2030' was asked for")]
    assert replica.api.writers == ["leader replace"]
    assert replica.changes == 1
    assert replica.trust.issuer == before.issuer
    assert replica.trust.bundle.startswith(before.bundle)
    assert pki.from_secret(replica.api.secret or {}, "fedjob.local").trust == replica.trust
    (event,) = replica.api.events
    assert (event["reason"], event["message"]) == ("AuthorityIntroduced", "'2030' was asked for")
    replica.turn()
    assert len(replica.api.events) == 1, "that every certificate agrees is no event"
    notes = (replica.api.secret or {})["metadata"]["annotations"]
    assert names.FOLLOWED_ANNOTATION in notes


def test_a_step_that_somebody_overtook_is_not_taken_up() -> None:
    replica = started(authority(), **{"rotate-authority": "2030"})
    before = replica.trust
    replica.api.fails = [None, ApiError(409, "Conflict", "", "PUT secrets")]
    with pytest.raises(ApiError):
        replica.turn()
    assert (replica.trust, replica.changes, replica.api.events) == (before, 0, [])


def _signing(introduced: pki.Authority, since: datetime) -> dict[str, Any]:
    return kept(introduced, **{"followed-since": f"{since:%Y-%m-%dT%H:%M:%SZ}"})


def test_the_next_one_signs_and_the_one_before_is_dropped_a_certificates_life_after_all_agreed() -> None:
    introduced = pki.introduce(authority(), NOW, AGE)
    replica = started(introduced)
    life = SETTINGS.certificate_life
    replica.api.put(_signing(introduced, NOW - life + timedelta(hours=1)))
    replica.turn()
    assert replica.api.writers == []
    replica.api.put(_signing(introduced, NOW - life))
    replica.turn()
    assert replica.trust.issuer == pki.sign(introduced).trust.issuer
    replica.api.put(_signing(replica.view.authority(), NOW - life))
    replica.turn()
    assert replica.trust == pki.drop(pki.sign(introduced)).trust
    assert [event["reason"] for event in replica.api.events] == ["AuthoritySigns", "AuthorityDropped"]
    about = {event["involvedObject"]["name"] for event in replica.api.events}
    assert about == {pki.SECRET_NAME}


def _job(name: str, not_after: datetime) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "uid": name, "resourceVersion": "1"}
    status = {"certificates": {"serverNotAfter": f"{not_after:%Y-%m-%dT%H:%M:%SZ}"}}
    kind = names.FEDERATED_JOB
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": {}, "status": status}


def _site_job(name: str) -> dict[str, Any]:
    status = {
        "certificateNotAfter": f"{NOW + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
        "conditions": [{"type": "Accepted", "status": "True"}],
    }
    spec = {"job": {"name": "j", "namespace": "n", "uid": "u"}, "site": "a"}
    return {**_job(name, NOW), "kind": names.SITE_JOB.name, "spec": spec, "status": status}


def test_every_certificate_in_use_is_waited_for_and_who_is_late_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    replica = started(pki.introduce(authority(), NOW, AGE))
    replica.store.see(names.FEDERATED_JOB.name, _job("late", NOW + timedelta(days=1)))
    replica.store.see(names.FEDERATED_JOB.name, _job("over", NOW - timedelta(days=1)))
    replica.store.see(names.SITE_JOB.name, _site_job("site"))
    with caplog.at_level(logging.INFO):
        replica.turn()
        replica.turn()
    said = [r.__dict__["why"] for r in caplog.records if r.message == "the authority is being rotated"]
    assert said == ["2 of 2 certificates in use are not renewed yet: n/late, n/site"]
    assert replica.api.writers == []
    series = replica.metrics.registry.get_sample_value
    assert series("fedjob_authority_rotation_awaited_certificates") == 2
    assert series("fedjob_authority_rotation", {"phase": "Introduced"}) == 1
    for secret in (names.base("late", "late"), "site"):
        issue = Issue({"metadata": {"name": secret, "namespace": "n"}}, "u", "a", (), timedelta(days=7))
        _, replica.store.certificates[("n", secret)] = pki.fill(issue, replica.view.authority(), NOW)
    replica.turn()
    assert replica.api.writers == ["leader replace"]
    assert series("fedjob_authority_rotation_awaited_certificates") == 0


def test_a_lost_race_is_no_error_and_anything_else_is_said_and_tried_again(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    replica = started(authority(), **{"rotate-authority": "2030"})
    conflict = ApiError(409, "Conflict", "", "PUT secrets")
    replica.api.fails = [None, conflict, AWAY, None, None]
    with caplog.at_level(logging.INFO):
        for_ever(replica.view.turn_for_ever)
    assert pauses == [7.0] * 5
    errors = [(r.message, r.__dict__["why"]) for r in caplog.records if r.levelname == "ERROR"]
    assert errors == [("the authority cannot be looked after", str(AWAY))]
    assert replica.changes == 1


def test_nobody_is_waited_for_while_nothing_is_being_rotated() -> None:
    replica = started(authority())
    replica.store.see(names.FEDERATED_JOB.name, _job("late", NOW + timedelta(days=1)))
    replica.turn()
    series = replica.metrics.registry.get_sample_value
    assert series("fedjob_authority_rotation_awaited_certificates") == 0
    assert series("fedjob_authority_rotation", {"phase": "Stable"}) == 1
    assert replica.view._input(replica.api.secret or {}).followers == ()


def test_an_authority_that_is_old_is_introduced_a_successor_that_nobody_asked_for() -> None:
    replica = started(authority(NOW - AGE * 0.7))
    replica.turn()
    notes = (replica.api.secret or {})["metadata"]["annotations"]
    assert notes == {names.ROTATED_ANNOTATION: ""}
    assert [event["reason"] for event in replica.api.events] == ["AuthorityIntroduced"]
