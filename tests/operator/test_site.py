"""A namespace that does not let the operator in: what its site says, and what becomes of jobs that name it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fedjob_operator import names
from fedjob_operator.desired.site import standing
from fedjob_operator.names import CLIENT, SERVER

WORDS = 'sitepolicies.fedjob.dev is forbidden: User "operator" cannot list in the namespace "hospital-c"'
FORBIDDEN = {"hospital-c": WORDS}


def far(world: Any) -> None:
    """A site c in a namespace of its own."""
    world.add_site("c", namespace="hospital-c")
    world.allow_all("hospital-c")


def entry(world: Any, key: Any) -> dict[str, Any]:
    """What the job's status says of c."""
    return next(dict(found) for found in world.status(key)["sites"] if found["name"] == "c")


def test_a_site_says_nothing_until_it_was_left_out_and_then_each_change_once(world: Any) -> None:
    far(world)
    place = (names.FEDERATED_SITE.name, "fedjob-system", "c")
    assert standing(world.objects[place], {}, world.now) is None
    for forbidden, expected in ((FORBIDDEN, ("False", "Forbidden")), ({}, ("True", "Reachable"))):
        status = standing(world.objects[place], forbidden, world.now)
        assert status is not None
        (condition,) = status["conditions"]
        assert (condition["status"], condition["reason"]) == expected
        world.put(names.FEDERATED_SITE, "fedjob-system", "c", status=status)
        assert standing(world.objects[place], forbidden, world.now + timedelta(minutes=1)) is None


def test_a_job_that_has_not_begun_waits_and_begins_when_it_may(world: Any) -> None:
    far(world)
    world.store.forbidden.update(FORBIDDEN)
    key = world.submit(sites=[{"name": "a"}, {"name": "c"}])
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "SiteForbidden")
    assert world.jobs(SERVER) == []
    world.store.forbidden.clear()
    world.up(key)
    assert world.condition(key, "QuorumReached") == ("True", "Reached")


def test_a_job_under_way_goes_on_and_nothing_of_the_site_is_forgotten_or_written(world: Any) -> None:
    """Also when the operator starts anew, and has never seen what lies in that namespace."""
    far(world)
    key = world.submit(sites=[{"name": "a"}, {"name": "c"}])
    world.up(key)
    (pod,) = (p for p in world.pods(CLIENT) if p["metadata"]["namespace"] == "hospital-c")
    world.end_pod(pod, 1, "out of luck")
    world.settle()
    world.now += timedelta(seconds=40)
    world.up(key)
    assert (entry(world, key)["state"], entry(world, key)["restarts"]) == ("Running", 1)

    world.store.forbidden.update(FORBIDDEN)
    hidden = {place: raw for place, raw in world.objects.items() if place[1] == "hospital-c"}
    for (kind, _, _), raw in hidden.items():
        world.store.gone(kind, raw)
    before = len(world.writes)
    world.settle()
    told = entry(world, key)
    assert (told["state"], told["reason"], told["restarts"]) == ("Running", "SiteForbidden", 1)
    assert told["message"] == WORDS
    assert world.condition(key, "Accepted") == ("True", "Accepted")
    assert world.condition(key, "QuorumReached") == ("True", "Reached"), "its pod trains on"
    assert set(world.writes[before:]) == {"status"}
    world.edit(key, suspend=True)
    world.settle()
    world.now += timedelta(hours=3)
    world.settle()
    suspended = {
        r["spec"]["site"]: r["spec"]["suspend"] for (kind, *_), r in world.objects.items() if kind == "SiteJob"
    }
    assert suspended == {"a": True, "c": False}, "the one that can be written"

    world.edit(key, suspend=False)
    world.store.forbidden.clear()
    for (kind, _, _), raw in hidden.items():
        world.store.see(kind, raw)
    world.up(key)
    assert entry(world, key).get("reason") != "SiteForbidden"
    assert entry(world, key)["restarts"] == 1
