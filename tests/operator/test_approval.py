"""A person's word binds to everything that was asked, and to nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.samples import sample
from fedjob.api import SiteJobSpec
from fedjob_operator import names
from fedjob_operator.desired.approval import assignment_digest, word
from fedjob_operator.desired.conditions import State
from fedjob_operator.desired.policy import judge
from fedjob_operator.names import CLIENT, SERVER

NOW = datetime(2030, 1, 1, tzinfo=UTC)
POLICY = {
    "spec": {
        "rules": [
            {"name": "trial", "images": [{"repository": "registry.example/*"}], "inlineCode": "Allow", "env": ["LR"]}
        ],
        "data": [{"name": "scans", "claim": "scans-2030"}],
        "floor": {
            "pod": {
                "queueNames": ["gpus"],
                "priorityClassNames": ["research"],
                "tolerations": [{"operator": "Exists"}],
            }
        },
        "pods": {"runtimeClassName": "nvidia"},
    }
}
# What the hub changes while a job runs, whatever its author does, and the approval itself.
UNJUDGED = {"suspend", "authorities", "job.attempt", "restarts.forgiven", "approval"}

Path = tuple[str | int, ...]


def asked() -> dict[str, Any]:
    """The spec of an assignment that sets every field, with no word on it."""
    spec = SiteJobSpec.model_validate(sample("SiteJob")["spec"]).model_dump(mode="json", by_alias=True)
    spec["trainer"]["image"] = "registry.example/digits@sha256:" + "0" * 64
    spec["workflow"]["stopWhen"]["value"] = 0.5
    spec["exchange"]["include"] = ["*lora*"]
    spec["scheduling"] |= {"priorityClassName": "research", "runtimeClassName": "nvidia"}
    spec["scheduling"]["tolerations"].append({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"})
    spec["restarts"]["rules"].append({"name": "oom", "onReasons": ["OOMKilled"], "action": "FailJob"})
    spec["workflow"]["quorum"] = 1
    del spec["approval"]
    return spec


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no mapping and no list, with the way to it."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        yield path, value
        return
    for key, part in parts:
        yield from leaves(part, (*path, key))


def put(base: Any, path: Path, value: Any) -> Any:
    """A copy with one value changed."""
    made = copy.deepcopy(base)
    *parents, last = path
    at = made
    for step in parents:
        at = at[step]
    at[last] = value
    return made


def words(schema: Any) -> Iterator[Any]:
    """Every value that some field lists."""
    if isinstance(schema, dict):
        yield from schema.get("enum", ())
        for part in schema.values():
            yield from words(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from words(part)


LISTED = sorted(set(words(SiteJobSpec.model_json_schema())))


def others(value: Any) -> list[Any]:
    """Values near `value`; most fields allow one of them."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1]
    return [f"{value}x", f"{value}1", f"1{value}", "1", "2Gi", "other", "10000", *LISTED]


def valid(spec: Any) -> bool:
    try:
        SiteJobSpec.model_validate(spec)
    except ValidationError:
        return False
    return True


ALONE = {("workflow", "type"), ("restarts", "rules", 0, "role"), ("scheduling", "tolerations", 1, "operator")}
CHANGES = [(path, value) for path, value in leaves(asked()) if value is not None]


@pytest.mark.parametrize(
    ("path", "value"), CHANGES, ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else ""
)
def test_a_change_of_any_field_needs_another_word_unless_the_hub_makes_it(path: Path, value: Any) -> None:
    base = asked()
    near = (put(base, path, other) for other in others(value) if other != value)
    changed = next((spec for spec in near if valid(spec)), None)
    if changed is None:  # there is no other value, or none beside the values of its neighbours
        assert path in ALONE
        return
    same = assignment_digest(changed) == assignment_digest(base)
    assert same == (".".join(map(str, path)) in UNJUDGED)


def test_no_field_is_left_out_of_this_test() -> None:
    """Whoever adds a field to SiteJob gives `asked` a value for it."""
    unset = {path for path, value in leaves(asked()) if value is None}
    once_set = {tuple(step for step in path if isinstance(step, str)) for path, _ in CHANGES}
    assert {path for path in unset if tuple(step for step in path if isinstance(step, str)) not in once_set} == set()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "command"), ["python", "train.py --lr", "1"]),
        (("trainer", "command"), ["python", "train.py", "--lr 1"]),
        (("trainer", "files"), {"train.py": "pas", "s": ""}),
        (("trainer", "files"), {}),
        (("trainer", "env"), []),
        (("trainer", "env"), [{"name": "LR", "value": "0.1"}, {"name": "L", "value": "R0.1"}]),
        (("sites",), ["hospital-a"]),
        (("data",), None),
    ],
)
def test_text_that_moves_between_neighbours_is_a_change(path: Path, value: Any) -> None:
    base = put(asked(), ("trainer", "command"), ["python", "train.py", "--lr", "1"])
    assert assignment_digest(put(base, path, value)) != assignment_digest(base)


def test_a_value_that_is_the_default_may_be_left_out() -> None:
    """So a later version may add a field, and what was approved goes on."""
    base = asked()
    del base["trainer"]["nodes"]
    assert assignment_digest(base) == assignment_digest(asked())


def test_the_whole_of_a_sha256_is_compared() -> None:
    """Half of it can be made to collide on two cores in minutes, and whoever writes a job knows its UID."""
    digest = assignment_digest(asked())
    assert len(bytes.fromhex(digest)) == 32
    state, _ = judge(POLICY, {"spec": {**asked(), "approval": {"decision": "Approved", "digest": digest[:16]}}}, NOW)
    assert (state.status, state.reason) == ("Unknown", "NeedsApproval")
    assert "16 of 64 digits" in state.message
    assert digest in state.message


@pytest.mark.parametrize(
    ("decision", "status", "reason"), [("Approved", "True", "Accepted"), ("Denied", "False", "Denied")]
)
def test_a_word_holds_for_this_assignment_and_for_no_other(decision: str, status: str, reason: str) -> None:
    state, _ = judge(POLICY, {"spec": asked()}, NOW)
    assert (state.status, state.reason) == ("Unknown", "NeedsApproval")
    digest = assignment_digest(asked())
    assert digest in state.message
    decided = {**asked(), "approval": {"decision": decision, "digest": digest, "by": "Dr. Jay"}}
    state, _ = judge(POLICY, {"spec": decided}, NOW)
    assert (state.status, state.reason) == (status, reason)
    assert "Dr. Jay" in state.message
    other = put(decided, ("trainer", "files"), {"train.py": "steal()"})
    state, _ = judge(POLICY, {"spec": other}, NOW)
    assert (state.status, state.reason) == ("Unknown", "NeedsApproval")
    assert f"spec.approval is for {digest}" in state.message
    assert f"digest: {assignment_digest(other)}" in state.message


def test_what_was_approved_before_an_upgrade_stays_approved() -> None:
    """The digest of an assignment is one for ever, in whatever order its keys come; a default of its workflow is part of it."""
    spec = {
        "trustDomain": "hub.example",
        "job": {"name": "digits", "namespace": "team-a", "uid": "5f0c5a3e-0000-4000-8000-000000000001", "attempt": 2},
        "site": "hospital-a",
        "sites": ["hospital-a", "hospital-b"],
        "server": {"address": "fj-digits.team-a.svc:8443", "name": "fj-digits.team-a.svc"},
        "authorities": "-----BEGIN CERTIFICATE-----\n",
        "workflow": {"rounds": 3, "stopWhen": {"metric": "loss", "value": 0.5}},
        "trainer": {
            "image": "registry.example/digits:1",
            "command": ["python", "b.py"],
            "files": {"b.py": "ü", "a": ""},
        },
        "restarts": {"allowed": 3},
    }
    assert assignment_digest(spec) == "760e256996ccb4793b55cf1d2ef14ec637496713a988e5af5557658c511966d6"
    spec["trainer"] = dict(reversed(spec["trainer"].items())) | {"files": {"a": "", "b.py": "ü"}}
    assert (
        assignment_digest(dict(reversed(spec.items())))
        == "760e256996ccb4793b55cf1d2ef14ec637496713a988e5af5557658c511966d6"
    )


DIGEST = assignment_digest(asked())
TAGGED = put(asked(), ("trainer", "image"), "registry.example/digits:1")
HOW = f"set spec.approval to {{decision: Approved, digest: {DIGEST}}}, or decision: Denied"


@pytest.mark.parametrize(
    ("spec", "status", "reason", "message"),
    [
        (asked(), "Unknown", "NeedsApproval", f"rule trial leaves it to a person: {HOW}"),
        (
            TAGGED,  # an approval binds to the words of the assignment: what a tag stands for is decided elsewhere
            "Unknown",
            "NeedsApproval",
            f"rule trial leaves it to a person: {HOW.replace(DIGEST, assignment_digest(TAGGED))} (image "
            "registry.example/digits:1 is a tag: whoever may push it can change what runs)",
        ),
        (
            asked() | {"approval": {"decision": "Approved", "digest": DIGEST[:16]}},
            "Unknown",
            "NeedsApproval",
            "rule trial leaves it to a person, and spec.approval.digest has 16 of 64 digits, which binds to nothing: "
            + HOW,
        ),
        (
            asked() | {"approval": {"decision": "Denied", "digest": "0" * 64}},
            "Unknown",
            "NeedsApproval",
            f"rule trial leaves it to a person, and spec.approval is for {'0' * 64}: the assignment was changed since: "
            + HOW,
        ),
        (
            asked() | {"approval": {"decision": "Approved", "digest": DIGEST}},
            "True",
            "Accepted",
            "rule trial, approved by a person",
        ),
        (
            asked() | {"approval": {"decision": "Denied", "digest": DIGEST, "by": "Dr. Jay"}},
            "False",
            "Denied",
            "denied by Dr. Jay",
        ),
        (
            put(asked(), ("trainer", "novelty"), 1),
            "False",
            "Refused",
            "the assignment cannot be judged: spec.trainer.novelty: Extra inputs are not permitted; the operators of hub "
            "and site must be of one version",
        ),
        (
            {k: v for k, v in asked().items() if k != "serverLostSeconds"} | {"server_lost_seconds": 600},
            "False",
            "Refused",
            "the assignment cannot be judged: spec.server_lost_seconds: Extra inputs are not permitted; the "
            "operators of hub and site must be of one version",
        ),
    ],
)
def test_what_a_person_reads_while_the_assignment_is_theirs_to_judge(
    spec: dict[str, Any], status: str, reason: str, message: str
) -> None:
    assert word("trial", spec) == State(status, reason, message)


def test_what_is_swapped_while_a_job_is_paused_waits_for_another_word(world: Any) -> None:
    """Submit, approve, run, pause, swap, go on: no pod of what nobody has read."""
    rule = {"name": "reviewed", "images": [{"repository": "fedjob-runtime"}], "inlineCode": "Allow"}
    world.put(names.SITE_POLICY, "team-a", "default", spec={"rules": [rule]})
    key = world.submit(trainer={"files": {"train.py": "honest()"}})
    world.up(key)
    assert world.jobs(CLIENT) == []
    world.approve_all()
    world.up(key)
    assert len(world.jobs(CLIENT)) == 2
    world.edit(key, suspend=True)
    world.settle()
    world.end_pod(world.pods(SERVER)[0], 143)
    world.settle()
    world.orphans_die()
    world.edit(key, suspend=False, trainer={"files": {"train.py": "hostile()"}})
    world.up(key)
    assert world.jobs(CLIENT) == []
    for raw in [raw for (kind, _, _), raw in world.objects.items() if kind == names.SITE_JOB.name]:
        accepted = next(c for c in raw["status"]["conditions"] if c["type"] == "Accepted")
        assert (accepted["status"], accepted["reason"]) == ("Unknown", "NeedsApproval")
        assert "the assignment was changed since" in accepted["message"]
    world.approve_all()
    world.up(key)
    assert len(world.jobs(CLIENT)) == 2
