"""The store: what a watch never told is seen in the lists."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.metrics import Metrics
from fedjob_operator.names import Kind
from fedjob_operator.reach import Reach
from fedjob_operator.resync import Resync
from fedjob_operator.routes import Key
from fedjob_operator.settings import HUB, Settings
from fedjob_operator.store import Store, place_of


def thing(kind: Kind, name: str, version: int, **labels: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "team-a",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "labels": labels,
    }
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}


SERVER = {names.JOB_LABEL: "digits", names.UID_LABEL: "u", names.ROLE_LABEL: names.SERVER}
DIGITS = Key(HUB, "team-a", "digits")


def test_what_a_list_of_names_lacks_is_gone_and_its_job_hears_of_it() -> None:
    store = Store()
    here, gone = thing(names.JOB, "here", 5, **SERVER), thing(names.JOB, "gone", 6, **SERVER)
    store.listed(names.JOB.name, [here, gone])
    assert store.keep(names.JOB.name, [""], {place_of(names.JOB.name, here)}, 7) == (DIGITS,)
    assert store.sizes()[names.JOB.name] == 1


def test_what_lies_in_a_namespace_that_was_not_listed_stays() -> None:
    store = Store()
    store.see(names.JOB.name, thing(names.JOB, "there", 5, **SERVER))
    assert store.keep(names.JOB.name, ["team-b"], set(), 7) == ()
    assert store.keep(names.JOB.name, ["team-a", "team-b"], set(), 7) == (DIGITS,)


def test_what_is_newer_than_the_list_stays() -> None:
    store = Store()
    store.see(names.JOB.name, thing(names.JOB, "new", 9, **SERVER))
    assert store.keep(names.JOB.name, [""], set(), 8) == ()
    assert store.sizes()[names.JOB.name] == 1


def test_a_stream_is_late_by_what_it_has_not_told_in_its_newest_version() -> None:
    store = Store()
    store.see(names.POD.name, thing(names.POD, "a", 5))
    listed = [thing(names.POD, "a", 5), thing(names.POD, "a", 6), thing(names.POD, "b", 1)]
    assert store.late(names.POD.name, listed) == listed[1:]


def test_a_stream_that_has_told_of_the_end_is_not_late_by_what_a_list_had_before() -> None:
    store = Store()
    listed = [thing(names.POD, "a", 7), thing(names.POD, "b", 8)]
    store.see(names.POD.name, thing(names.POD, "a", 5))
    late = store.late(names.POD.name, listed)
    store.gone(names.POD.name, thing(names.POD, "a", 9))
    store.gone(names.POD.name, thing(names.POD, "b", 10))
    assert (len(late), store.late(names.POD.name, late)) == (2, [])


def test_a_comparison_leaves_out_what_is_seen_to_go_while_it_is_patient() -> None:
    """The watch tells of both in time; neither is missed, and what has gone does not come back."""

    class Lists:
        """The API server as it was when the list was made."""

        async def pages(self, kind: Kind, *_: Any, **__: Any) -> Any:
            yield [thing(kind, "gone", 7), thing(kind, "new", 8)], 9

    async def story() -> tuple[set[str], dict[str, int]]:
        store = Store()
        settings = Settings("fedjob-system", "runtime:1", "test")
        reach = Reach(store, settings, Metrics())
        resync = Resync(Lists(), store, reach, Metrics(), lambda _: None, patience_seconds=0.05)  # type: ignore[arg-type]
        comparing = asyncio.create_task(resync._compare(names.POD))
        await asyncio.sleep(0)
        store.see(names.POD.name, thing(names.POD, "new", 8))
        store.see(names.POD.name, thing(names.POD, "gone", 7))
        store.gone(names.POD.name, thing(names.POD, "gone", 10))
        await comparing
        return resync.dead, store.sizes()

    dead, sizes = asyncio.run(story())
    assert dead == set()
    assert sizes[names.POD.name] == 1


def test_a_child_has_drifted_when_somebody_wrote_it_and_not_when_a_status_changed() -> None:
    store, kind = Store(), names.DISRUPTION_BUDGET
    job = thing(names.FEDERATED_JOB, "digits", 1)
    job["metadata"]["uid"] = "u"
    store.see(names.FEDERATED_JOB.name, job)
    ours = {"manager": "fedjob.dev/operator", "operation": "Apply", "time": "2030-01-01T00:00:00Z"}
    counted = {**ours, "manager": "kube-controller-manager", "subresource": "status"}
    edited = {**ours, "manager": "kubectl-edit"}

    def drifted(version: int, *writers: dict[str, str]) -> bool:
        child = thing(kind, "budget", version, **SERVER)
        child["metadata"]["managedFields"] = list(writers)
        store.listed(kind.name, [child])
        seen = store.job(DIGITS)
        assert seen is not None
        return seen.children[0].drifted

    assert not drifted(5, ours)
    assert not drifted(6, ours, counted)
    assert drifted(7, ours, counted, edited)


@pytest.mark.parametrize("text", ["x", "-1", "٣", "9" * 5000, ""])
def test_whatever_number_a_stranger_writes_on_a_pod_or_a_job_is_taken_for_none(text: str) -> None:
    store = Store()
    for kind in (names.POD, names.JOB):
        store.listed(kind.name, [thing(kind, "theirs", 1, **SERVER, **{names.RUN_LABEL: text})])
    job = thing(names.FEDERATED_JOB, "digits", 2)
    job["metadata"]["uid"] = "u"
    store.see(names.FEDERATED_JOB.name, job)
    seen = store.job(DIGITS)
    assert seen is not None
    assert [found.run for found in (*seen.pods, *seen.server_jobs)] == [0, 0]
