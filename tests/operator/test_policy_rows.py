"""What a policy says to one assignment, row by row: each field of a rule and of the floor, each bound from both sides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedjob_operator.desired.floor import objections
from fedjob_operator.desired.policy import authorities, judge, pods, scrape_from, words_stay
from fedjob_operator.settings import CaBundle

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TRAINER: dict[str, Any] = {
    "image": "reg.example/team/digits:1",
    "command": ["python", "train.py"],
    "nodes": 2,
    "resources": {"limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}},
}
SPEC: dict[str, Any] = {
    "trustDomain": "hub.example",
    "job": {"name": "digits", "namespace": "team-a", "uid": "u", "attempt": 1},
    "site": "a",
    "workflow": {"type": "FedAvg", "rounds": 10},
    "trainer": TRAINER,
}
RULE: dict[str, Any] = {
    "name": "trial",
    "images": [{"repository": "reg.example/team/digits"}],
    "inlineCode": "Allow",
    "approval": "Automatic",
}
OTHER_IMAGE = {**RULE, "name": "other", "images": [{"repository": "elsewhere"}]}


def said(rules: list[dict[str, Any]], spec: dict[str, Any] | None = None, **policy: Any) -> tuple[str, str, str]:
    """Status, reason and message of Accepted."""
    state, _ = judge({"spec": {"rules": rules, **policy}}, {"spec": {**SPEC, **(spec or {})}}, NOW)
    return state.status, state.reason, state.message


def against(rule: dict[str, Any], spec: dict[str, Any] | None = None) -> str:
    """What one rule has against an assignment, "" for nothing."""
    status, reason, message = said([{**RULE, **rule}], spec)
    if status == "True":
        assert (reason, message) == ("Accepted", "rule trial")
        return ""
    assert (status, reason) == ("False", "Refused")
    return message.removeprefix("rule trial: ")


@pytest.mark.parametrize(
    ("rule", "spec", "says"),
    [
        ({}, {}, ""),
        ({"from": {}}, {}, ""),
        ({"from": {"hubs": ["x", "hub.example"]}}, {}, ""),
        ({"from": {"hubs": []}}, {}, "hub hub.example is not among none"),
        ({"from": {"hubs": ["x", "y"]}}, {}, "hub hub.example is not among x, y"),
        ({"from": {"namespaces": ["team-a"]}}, {}, ""),
        ({"from": {"namespaces": ["team-b"]}}, {}, "namespace team-a is not among team-b"),
        ({"workflows": ["FedAvg"]}, {}, ""),
        ({"workflows": ["Cyclic"]}, {}, "workflow FedAvg is not among Cyclic"),
        ({"data": []}, {}, ""),
        ({"validUntil": "2030-01-01T00:00:00Z"}, {}, "ended at 2030-01-01T00:00:00Z"),
        ({"validUntil": "2030-01-01T00:00:01Z"}, {}, ""),
        ({"images": []}, {}, "image reg.example/team/digits:1 is not among images"),
        (
            {"images": [{"repository": "x"}, {"repository": "reg.example/team/digits", "digests": []}]},
            {},
            "",
        ),
        ({"env": ["A"]}, {"trainer": {**TRAINER, "env": [{"name": "A", "value": "1"}]}}, ""),
        (
            {"env": ["A"]},
            {"trainer": {**TRAINER, "env": [{"name": n, "value": "1"} for n in "BAC"]}},
            "variables B, C are not among env",
        ),
        ({}, {"trainer": {**TRAINER, "env": [{"name": "A", "value": "1"}]}}, "variables A are not among env"),
        ({"inlineCode": "Allow"}, {"trainer": {**TRAINER, "files": {"train.py": ""}}}, ""),
        (
            {"inlineCode": "Deny", "commands": [["python", "train.py"]]},
            {"trainer": {**TRAINER, "files": {"train.py": ""}}},
            "code inside the job (trainer.files) is denied by inlineCode",
        ),
        ({"inlineCode": "Deny", "commands": [["python", "train.py"]]}, {}, ""),
        (
            {"commands": [["python", "-m", "x"]]},
            {},
            'trainer.command ["python", "train.py"] is not among commands',
        ),
        (
            {"images": [], "workflows": []},
            {},
            "workflow FedAvg is not among none, image reg.example/team/digits:1 is not among images",
        ),
    ],
)
def test_each_field_of_a_rule_lets_in_or_says_what_is_wrong(
    rule: dict[str, Any], spec: dict[str, Any], says: str
) -> None:
    assert against(rule, spec) == says


def test_a_rule_that_says_nothing_of_code_denies_it_and_one_that_says_nothing_of_approval_asks() -> None:
    bare = {key: value for key, value in RULE.items() if key != "inlineCode"}
    _, reason, message = said([bare])
    assert reason == "Refused"
    assert message.endswith("is not among commands, as inlineCode: Deny wants it")
    listed = {**bare, "commands": [["python", "train.py"]]}
    assert said([listed]) == ("True", "Accepted", "rule trial")


VOLUMES = [
    {"name": "labs", "claim": "l"},
    {"name": "xrays", "claim": "x", "readOnly": False},
]


@pytest.mark.parametrize(
    ("listed", "asked", "reason", "entry"),
    [
        (None, "xrays", "Accepted", VOLUMES[1]),
        (["xrays"], "xrays", "Accepted", VOLUMES[1]),
        (["labs"], "xrays", "Refused", None),
        ([], "xrays", "Refused", None),
        (["labs"], None, "Accepted", None),
        (["gone"], "gone", "DataNotFound", None),
    ],
)
def test_data_is_what_the_rule_lists_and_the_site_has(
    listed: list[str] | None, asked: str | None, reason: str, entry: Any
) -> None:
    rule = {**RULE, "data": listed} if listed is not None else RULE
    spec = {**SPEC, "data": asked} if asked is not None else SPEC
    state, found = judge({"spec": {"rules": [rule], "data": VOLUMES}}, {"spec": spec}, NOW)
    assert (state.reason, found) == (reason, entry)
    if reason == "Refused":
        assert state.message == f"rule trial: data xrays is not among {', '.join(listed or ()) or 'none'}"
    if reason == "DataNotFound":
        assert (state.status, state.message) == ("False", "spec.data of the SitePolicy has no entry gone")


def test_data_of_a_site_that_offers_none_is_not_found() -> None:
    assert said([RULE], {"data": "xrays"})[1] == "DataNotFound"


def test_the_first_rule_that_fits_decides_and_a_refusal_names_all() -> None:
    assert said([OTHER_IMAGE, RULE, {**RULE, "name": "third"}])[2] == "rule trial"
    assert said([OTHER_IMAGE, {**RULE, "workflows": ["Cyclic"]}]) == (
        "False",
        "Refused",
        "rule other: image reg.example/team/digits:1 is not among images; "
        "rule trial: workflow FedAvg is not among Cyclic",
    )
    assert said([]) == ("False", "Refused", "no rule of the policy fits this job")


def test_the_floor_comes_before_every_rule_and_names_all_that_it_has_against_a_job() -> None:
    floor = {"exchange": {"maxRounds": 9}, "pod": {"maxPerJob": {"cpu": "3"}}}
    assert said([RULE, OTHER_IMAGE], floor=floor) == (
        "False",
        "Refused",
        "cpu 2 on 2 nodes, at most 3 (floor.pod.maxPerJob); 10 rounds, at most 9 (floor.exchange.maxRounds)",
    )


def test_a_site_that_is_suspended_takes_nothing_whatever_its_rules_say() -> None:
    told = ("False", "SiteSuspended", "the site takes no jobs at the moment (spec.suspend of the SitePolicy)")
    assert said([RULE], suspend=True) == told
    assert judge({"spec": {"rules": [RULE], "suspend": True, "data": VOLUMES}}, {"spec": SPEC}, NOW)[1] is None
    assert said([RULE], suspend=False)[0] == "True"


def test_without_a_policy_nothing_is_decided() -> None:
    state, entry = judge(None, {"spec": SPEC}, NOW)
    assert (state.status, state.reason, entry) == ("Unknown", "NoPolicy", None)


@pytest.mark.parametrize(
    ("entry", "image", "fits"),
    [
        ({}, "r/x", True),
        ({}, "r/x:1", True),
        ({}, "r/x:1@sha256:aa", True),
        ({}, "r/x@sha256:aa", True),
        ({}, "r/xy:1", False),
        ({}, "r:5000/x", False),
        ({"repository": "r:5000/x"}, "r:5000/x", True),
        ({"repository": "r:5000/x"}, "r:5000/x:1", True),
        ({"digests": ["sha256:aa"]}, "r/x:1@sha256:aa", True),
        ({"digests": ["sha256:bb", "sha256:aa"]}, "r/x@sha256:aa", True),
        ({"digests": ["sha256:bb"]}, "r/x@sha256:aa", False),
        ({"digests": ["sha256:aa"]}, "r/x:1", False),
    ],
)
def test_an_image_is_its_repository_and_its_digest(entry: dict[str, Any], image: str, fits: bool) -> None:
    rule = {"images": [{"repository": "r/x", **entry}]}
    assert (against(rule, {"trainer": {**TRAINER, "image": image}}) == "") is fits


# ------------------------------------------------------------------------------------------------------- the floor


def floored(policy: dict[str, Any], **spec: Any) -> list[str]:
    """What the floor has against the assignment."""
    return list(objections(policy, {**SPEC, **spec}))


def most(**amounts: str) -> dict[str, Any]:
    """A floor that bounds amounts; `gpu` stands for a resource with a slash in its name."""
    return {
        "floor": {
            "pod": {"maxPerJob": {("nvidia.com/gpu" if name == "gpu" else name): v for name, v in amounts.items()}}
        }
    }


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({}, []),
        (most(cpu="4"), []),
        (most(cpu="3999m"), ["cpu 2 on 2 nodes, at most 3999m (floor.pod.maxPerJob)"]),
        (most(memory="8Gi", gpu="2"), []),
        (most(memory="8191Mi"), ["memory 4Gi on 2 nodes, at most 8191Mi (floor.pod.maxPerJob)"]),
        (most(gpu="1"), ["nvidia.com/gpu 1 on 2 nodes, at most 1 (floor.pod.maxPerJob)"]),
        ({"floor": {"exchange": {"maxRounds": 10}}}, []),
        ({"floor": {"exchange": {"maxRounds": 9}}}, ["10 rounds, at most 9 (floor.exchange.maxRounds)"]),
    ],
)
def test_an_amount_may_reach_its_bound_on_all_nodes_together_and_not_pass_it(
    policy: dict[str, Any], says: list[str]
) -> None:
    assert floored(policy) == says


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"limits": {"memory": "1"}}, ["no limit of cpu, at most 4 (floor.pod.maxPerJob)"]),
        ({}, ["no limit of cpu, at most 4 (floor.pod.maxPerJob)", "no limit of memory, at most 2 (floor.pod.maxPerJob)"]),
        ({"limits": {"cpu": 2, "memory": "0"}}, []),
    ],
)  # fmt: skip
def test_what_is_bounded_must_be_limited_but_for_devices_which_nobody_gets_unasked(
    resources: dict[str, Any], says: list[str]
) -> None:
    policy = most(cpu="4", memory="2", gpu="0")
    assert floored(policy, trainer={**TRAINER, "resources": resources}) == says


@pytest.mark.parametrize(
    ("entry", "asked", "covered"),
    [
        ({"key": "k", "operator": "Exists"}, {"key": "k", "operator": "Exists", "effect": "NoExecute"}, True),
        ({"key": "k", "operator": "Exists"}, {"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Exists"}, {"key": "l", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Exists"}, {"operator": "Exists"}, False),
        ({"operator": "Exists"}, {"key": "any", "value": "v", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, {"key": "k", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, {"key": "k", "effect": "NoExecute"}, False),
        ({"operator": "Exists", "effect": "NoSchedule"}, {"key": "k"}, False),
        ({"key": "k", "value": "v"}, {"key": "k", "operator": "Equal", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "v"}, {"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "v"}, {"key": "k", "value": "w"}, False),
        ({"key": "k", "value": "v"}, {"key": "k", "operator": "Exists"}, False),
        ({"key": "k"}, {"key": "k", "value": ""}, True),
        ({"key": "k"}, {"key": "k", "operator": "Exists"}, False),
        ({"key": "k", "value": ""}, {"key": "k"}, True),
    ],
)
def test_a_listed_toleration_covers_what_it_tolerates_itself(
    entry: dict[str, str], asked: dict[str, str], covered: bool
) -> None:
    for listed, fits in (([entry], covered), ([{"key": "never", "value": "x"}, entry], covered), ([], False)):
        policy = {"floor": {"pod": {"tolerations": listed}}}
        found = floored(policy, scheduling={"tolerations": [asked]})
        taint = ", ".join(f"{key}: {value}" for key, value in sorted(asked.items()))
        why = f"scheduling.tolerations {{{taint}}} is not among floor.pod.tolerations"
        assert found == ([] if fits else [why])


@pytest.mark.parametrize(
    ("field", "policy", "where"),
    [
        ("runtimeClassName", {"pods": {"runtimeClassName": "own"}}, "pods.runtimeClassName"),
        ("priorityClassName", {"floor": {"pod": {"priorityClassNames": ["own"]}}}, "floor.pod.priorityClassNames"),
        ("queueName", {"floor": {"pod": {"queueNames": ["own"]}}}, "floor.pod.queueNames"),
    ],
)
def test_a_choice_is_refused_unless_the_site_lists_it(field: str, policy: dict[str, Any], where: str) -> None:
    assert floored(policy) == floored(policy, scheduling={}) == floored(policy, scheduling={field: "own"}) == []
    assert floored(policy, scheduling={field: "x"}) == [f"scheduling.{field} x is not among own ({where})"]
    assert floored({}, scheduling={field: "x"}) == [f"scheduling.{field} x is not among none ({where})"]


# --------------------------------------------------------------------------------- what else the site's policy decides


def test_what_a_policy_leaves_out_is_nothing() -> None:
    for policy in (None, {"spec": {}}):
        assert (authorities(policy), pods(policy), scrape_from(policy), words_stay(policy)) == (None, {}, (), False)


def test_what_a_policy_says_of_its_pods() -> None:
    policy = {
        "spec": {
            "caBundle": {"configMap": "company", "key": "root.pem"},
            "pods": {"runtimeClassName": "gvisor"},
            "metrics": {"scrapeFrom": ["monitoring", "lab"]},
            "floor": {"exchange": {"lastWords": "ExitCode"}},
        }
    }
    assert authorities(policy) == CaBundle("company", "root.pem")
    assert authorities({"spec": {"caBundle": {"configMap": "company"}}}) == CaBundle("company", "ca.crt")
    assert pods(policy) == {"runtimeClassName": "gvisor"}
    assert scrape_from(policy) == ("monitoring", "lab")
    assert words_stay(policy) is True
    assert words_stay({"spec": {"floor": {"exchange": {"lastWords": "Full"}}}}) is False


def test_a_rule_holds_until_its_end_and_not_from_then_on() -> None:
    rule = {**RULE, "validUntil": "2030-01-01T00:00:00Z"}
    for now, status in ((NOW - timedelta(microseconds=1), "True"), (NOW, "False"), (NOW + timedelta(days=1), "False")):
        assert judge({"spec": {"rules": [rule]}}, {"spec": SPEC}, now)[0].status == status
