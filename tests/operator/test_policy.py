"""The site's word: rows of policy and assignment, and the law that a floor only takes away."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedjob.api.job import Resources
from fedjob_operator.desired.policy import authorities, judge, scrape_from, words_stay
from fedjob_operator.quantity import number
from fedjob_operator.settings import CaBundle

NOW = datetime(2030, 1, 1, tzinfo=UTC)

SPEC = {
    "trustDomain": "hub.example",
    "job": {"name": "digits", "namespace": "team-a", "uid": "u", "attempt": 1},
    "site": "a",
    "suspend": True,
    "workflow": {"type": "FedAvg", "rounds": 10},
    "trainer": {
        "image": "reg.example:5000/team/digits:1", "command": ["python", "train.py"], "files": {"train.py": "x"}, "env": [{"name": "LR", "value": "1"}],
        "resources": {"limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}}, "nodes": 2,
    },
    "restarts": {"allowed": 3, "forgiven": 0},
    "data": "xrays",
}  # fmt: skip
RULE = {
    "name": "trial", "images": [{"repository": "reg.example:5000/team/*"}], "inlineCode": "Allow", "env": ["LR"],
    "approval": "Automatic",
}  # fmt: skip
POLICY = {"spec": {"rules": [RULE], "data": [{"name": "xrays", "claim": "xrays-2030"}]}}


def changed(base: Any, path: str, value: Any) -> Any:
    """A copy with one value changed; None removes it."""
    found = copy.deepcopy(base)
    *parents, last = path.split(".")
    at = found
    for step in parents:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return found


def test_a_rule_that_fits_accepts_and_gives_the_volume() -> None:
    state, data = judge(POLICY, {"spec": SPEC}, NOW)
    assert (state.status, state.reason) == ("True", "Accepted")
    assert data == {"name": "xrays", "claim": "xrays-2030"}


def test_authorities_are_those_that_the_policy_names() -> None:
    assert authorities(changed(POLICY, "spec.caBundle", {"configMap": "company"})) == CaBundle("company", "ca.crt")
    assert authorities(changed(POLICY, "spec.caBundle", {"configMap": "c", "key": "k"})) == CaBundle("c", "k")
    assert authorities(POLICY) is authorities(None) is None


def test_only_the_site_says_who_reads_metrics_of_its_pods_and_whether_last_words_are_told() -> None:
    assert scrape_from(POLICY) == scrape_from(None) == ()
    assert scrape_from(changed(POLICY, "spec.metrics", {"scrapeFrom": ["monitoring"]})) == ("monitoring",)
    assert not words_stay(POLICY)
    assert words_stay(changed(POLICY, "spec.floor", {"exchange": {"lastWords": "ExitCode"}}))
    assert not words_stay(changed(POLICY, "spec.floor", {"exchange": {"lastWords": "Full"}}))


def test_no_policy_no_run() -> None:
    assert judge(None, {"spec": SPEC}, NOW)[0].reason == "NoPolicy"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        pytest.param("spec.rules.0.images", [{"repository": "other/*"}], "image", id="an image of another repository"),
        pytest.param(
            "spec.rules.0.images",
            [{"repository": "reg.example:5000/team/*", "digests": ["sha256:1"]}],
            "image",
            id="a tag where a digest is asked",
        ),
        pytest.param("spec.rules.0.inlineCode", "Deny", "trainer.files", id="code inside the job"),
        pytest.param("spec.rules.0.env", [], "LR", id="a variable that is not allowed"),
        pytest.param("spec.rules.0.from", {"namespaces": ["team-b"]}, "namespace team-a", id="another team"),
        pytest.param("spec.rules.0.from", {"hubs": ["other.example"]}, "hub", id="another hub"),
        pytest.param("spec.rules.0.workflows", ["Cyclic"], "workflow FedAvg", id="a workflow that is not allowed"),
        pytest.param("spec.rules.0.validUntil", "2029-12-31T00:00:00Z", "ended", id="a rule that has ended"),
        pytest.param(
            "spec.floor", {"pod": {"maxPerJob": {"memory": "7Gi"}}}, "memory 4Gi on 2 nodes", id="too much memory"
        ),
        pytest.param("spec.floor", {"exchange": {"maxRounds": 9}}, "10 rounds", id="too many rounds"),
    ],
)
def test_a_refusal_names_what_is_wrong(path: str, value: Any, says: str) -> None:
    state, _ = judge(changed(POLICY, path, value), {"spec": SPEC}, NOW)
    assert (state.status, state.reason) == ("False", "Refused")
    assert says in state.message


DENY = {**RULE, "inlineCode": "Deny"}
CODE = ["python", "-c", "import os; open(os.environ['FEDJOB_DATA'])"]
IN_THE_IMAGE = ["python", "/app/train.py", "--lr=0.1"]


def of_the_image(command: list[str]) -> dict[str, Any]:
    """An assignment without files."""
    return {**SPEC, "trainer": {**SPEC["trainer"], "files": {}, "command": command}}


@pytest.mark.parametrize(
    ("rule", "command", "fits"),
    [
        pytest.param(DENY, CODE, False, id="code in the command"),
        pytest.param(DENY, IN_THE_IMAGE, False, id="no command is listed"),
        pytest.param({**DENY, "commands": []}, IN_THE_IMAGE, False, id="an empty list"),
        pytest.param({**DENY, "commands": [IN_THE_IMAGE]}, IN_THE_IMAGE, True, id="word for word"),
        pytest.param({**DENY, "commands": [IN_THE_IMAGE[:2]]}, IN_THE_IMAGE, False, id="an argument more than listed"),
        pytest.param({**DENY, "commands": [IN_THE_IMAGE]}, IN_THE_IMAGE[:2], False, id="an argument less"),
        pytest.param({**DENY, "commands": [["python", "/app/train.py", "--lr=*"]]}, IN_THE_IMAGE, True, id="any rate"),
        pytest.param({**DENY, "commands": [["python", "/app/*.py"]]}, ["python", "/app/a.py"], True, id="any script"),
        pytest.param(
            {**DENY, "commands": [["python", "/app/*.py"]]},
            ["python", "/app/../data/a.py"],
            False,
            id="* leads nowhere",
        ),
        pytest.param({**DENY, "commands": [["./[ab].sh"]]}, ["./a.sh"], False, id="brackets are brackets"),
        pytest.param({**DENY, "commands": [["run", "x"], ["run"]]}, ["run"], True, id="the second of two"),
        pytest.param(RULE, CODE, True, id="whoever lets code in lets any command in"),
        pytest.param({**RULE, "commands": [IN_THE_IMAGE]}, CODE, False, id="a list holds for code that is let in, too"),
    ],
)
def test_a_command_is_code(rule: dict[str, Any], command: list[str], *, fits: bool) -> None:
    state, data = judge({"spec": {**POLICY["spec"], "rules": [rule]}}, {"spec": of_the_image(command)}, NOW)
    assert (state.reason, data is not None) == (("Accepted", True) if fits else ("Refused", False))
    assert fits or f"trainer.command {json.dumps(command)} is not among commands" in state.message


@pytest.mark.parametrize(
    ("repository", "image", "fits"),
    [
        ("reg.example/team/digits", "reg.example/team/digits:1", True),
        ("reg.example/team/digits", "reg.example/team/digits", True),
        ("reg.example/team/digits", f"reg.example/team/digits:1@sha256:{'0' * 64}", True),
        ("reg.example/team/*", "reg.example/team/digits:1", True),
        ("reg.example/team/*", "reg.example/team/sub/digits:1", False),
        ("reg.example/*/digits", "reg.example/x/y/digits:1", False),
        ("reg.example:5000/digits", "reg.example:5000/digits:1", True),
        ("reg.example/digits", "evil.example/reg.example/digits:1", False),
        ("*fedjob-runtime", "evil.example/x/fedjob-runtime:1", False),
        ("*/fedjob-runtime", "evil.example/x/fedjob-runtime:1", False),
        ("reg.example/team/digit[s]", "reg.example/team/digits:1", False),
        ("fedjob-runtime", "fedjob-runtime:1", True),
    ],
)
def test_a_pattern_of_images_ends_at_a_slash(repository: str, image: str, *, fits: bool) -> None:
    policy = changed(POLICY, "spec.rules.0.images", [{"repository": repository}])
    assert judge(policy, {"spec": changed(SPEC, "trainer.image", image)}, NOW)[0].reason == (
        "Accepted" if fits else "Refused"
    )


@pytest.mark.parametrize(("length", "shown"), [(196, '["' + "ü" * 196 + '"]'), (197, '["' + "ü" * 197 + '"…')])
def test_a_command_that_fills_the_message_is_cut(length: int, shown: str) -> None:
    policy = {"spec": {**POLICY["spec"], "rules": [DENY]}}
    state, _ = judge(policy, {"spec": of_the_image(["ü" * length])}, NOW)
    why = f"trainer.command {shown} is not among commands, as inlineCode: Deny wants it"
    assert state.message == f"rule trial: {why}"


SPOT = {"key": "spot", "operator": "Exists"}


@pytest.mark.parametrize(
    ("scheduling", "spec", "says"),
    [
        pytest.param({}, {}, "", id="nothing is chosen"),
        pytest.param({"priorityClassName": "high"}, {}, "priorityClassName high is not among none (floor.pod.priority", id="priority"),
        pytest.param({"priorityClassName": "high"}, {"floor": {"pod": {"priorityClassNames": ["low"]}}}, "among low", id="other"),
        pytest.param({"priorityClassName": "low"}, {"floor": {"pod": {"priorityClassNames": ["low"]}}}, "", id="listed priority"),
        pytest.param({"queueName": "q"}, {}, "queueName q is not among none (floor.pod.queueNames)", id="a queue"),
        pytest.param({"queueName": "q"}, {"floor": {"pod": {"queueNames": ["q"]}}}, "", id="a listed queue"),
        pytest.param({"runtimeClassName": "runc"}, {}, "runtimeClassName runc is not among none (pods.runtime", id="runtime class"),
        pytest.param({"runtimeClassName": "runc"}, {"pods": {"runtimeClassName": "gvisor"}}, "among gvisor", id="not the site's"),
        pytest.param({"runtimeClassName": "gvisor"}, {"pods": {"runtimeClassName": "gvisor"}}, "", id="the site's own"),
        pytest.param({}, {"pods": {"runtimeClassName": "gvisor"}}, "", id="the site's, unasked"),
        pytest.param({"tolerations": [SPOT]}, {}, "{key: spot, operator: Exists} is not among floor.pod.tolerations", id="a taint"),
        pytest.param({"tolerations": [SPOT]}, {"floor": {"pod": {"tolerations": [SPOT]}}}, "", id="a listed taint"),
    ],
)  # fmt: skip
def test_a_job_chooses_for_its_pods_what_the_site_lists(scheduling: Any, spec: dict[str, Any], says: str) -> None:
    state, _ = judge({"spec": {**POLICY["spec"], **spec}}, {"spec": {**SPEC, "scheduling": scheduling}}, NOW)
    assert (state.reason, says in state.message) == ("Refused" if says else "Accepted", True)


tolerations = st.fixed_dictionaries(
    {"operator": st.sampled_from(["Exists", "Equal"])},
    optional={
        "key": st.sampled_from(["a", "b"]),
        "value": st.sampled_from(["", "x"]),
        "effect": st.sampled_from(["NoSchedule", "NoExecute"]),
    },
).filter(
    lambda one: ("key" in one or one["operator"] == "Exists") and not (one["operator"] == "Exists" and one.get("value"))
)


def tolerates(toleration: dict[str, str], taint: tuple[str, str, str]) -> bool:
    """As Kubernetes decides it."""
    key, value, effect = taint
    return (
        toleration.get("effect", effect) == effect
        and toleration.get("key", key) == key
        and (toleration["operator"] == "Exists" or toleration.get("value", "") == value)
    )


@given(listed=tolerations, asked=tolerations)
def test_a_toleration_is_let_in_exactly_if_it_opens_no_node_that_the_listed_one_does_not(
    listed: Any, asked: Any
) -> None:
    policy = {"spec": {**POLICY["spec"], "floor": {"pod": {"tolerations": [listed]}}}}
    state, _ = judge(policy, {"spec": {**SPEC, "scheduling": {"tolerations": [asked]}}}, NOW)
    effects = ["NoSchedule", "NoExecute", "PreferNoSchedule"]
    taints = [(key, value, effect) for key in ("a", "b", "c") for value in ("", "x", "y") for effect in effects]
    opens_more = any(tolerates(asked, taint) and not tolerates(listed, taint) for taint in taints)
    assert state.reason == ("Refused" if opens_more else "Accepted")


def test_data_without_a_volume_is_a_reason_of_its_own() -> None:
    assert judge(changed(POLICY, "spec.data", []), {"spec": SPEC}, NOW)[0].reason == "DataNotFound"


floors = st.fixed_dictionaries(
    {},
    optional={
        "pod": st.fixed_dictionaries({"maxPerJob": st.dictionaries(st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), st.sampled_from(["1", "2", "8", "100Gi"]))}),
        "exchange": st.fixed_dictionaries({"maxRounds": st.integers(1, 20)}),
    },
)  # fmt: skip


@given(floor=floors)
def test_a_floor_never_turns_a_refusal_into_a_yes(floor: dict[str, Any]) -> None:
    strict = changed(POLICY, "spec.rules.0.env", [])
    assert judge(changed(strict, "spec.floor", floor), {"spec": SPEC}, NOW)[0].status == "False"


@pytest.mark.parametrize(
    ("text", "value"), [("500m", "0.5"), ("2", "2"), ("2Gi", "2147483648"), ("1.5k", "1500"), ("3e2", "300")]
)
def test_quantities(text: str, value: str) -> None:
    assert number(text) == Decimal(value)


@given(
    st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,6})?", fullmatch=True, alphabet=st.characters(codec="ascii")),
    st.sampled_from(["", "m", "k", "M", "E", "Ki", "Ei", "e0", "E99", "e99", "e100", "e9999999"]),
)
def test_whatever_a_job_may_write_is_a_number_that_can_be_multiplied(digits: str, unit: str) -> None:
    try:
        Resources.model_validate({"limits": {"cpu": digits + unit}})
    except ValidationError:
        assert unit in ("e100", "e9999999"), "an exponent without bound is no number that can be compared"
    else:
        assert number(digits + unit) * 64 >= 0


@pytest.mark.parametrize("text", ["", "Gi", "2Xi", "two"])
def test_what_is_no_quantity_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        number(text)
