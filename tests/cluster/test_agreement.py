"""O6: the API server and a local run agree on every job: both take it, or both refuse it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster.kube import Kube, RefusedError
from fedjob.api import JobFileError, validate
from fedjob_operator.names import FEDERATED_JOB

pytestmark = pytest.mark.measure("O6")

NAMES = st.sampled_from(["a", "b", "c", "server", "a.b", "-a", "a" * 63, "a" * 64, "A", ""])
ENV = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["A", "B", "FEDJOB_X", "1A", "_", ""]), "value": st.just("x")}), max_size=3
)  # fmt: skip
FILES = st.dictionaries(
    st.sampled_from(["train.py", "lib", "lib/net.py", "../a", "a//b", ".a", "a b"]), st.text(max_size=5)
)
LIMITS = st.dictionaries(
    st.sampled_from(["cpu", "nvidia.com/gpu", "a b", "-a"]), st.sampled_from(["1", "500m", "1.5Gi", "-1", ""])
)


def some(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any of these fields."""
    return st.fixed_dictionaries({}, optional=optional)


WORKFLOW = st.fixed_dictionaries(
    {"rounds": st.integers(-1, 3)},
    optional={
        "quorum": st.integers(0, 4),
        "clientsPerRound": st.integers(-1, 4),
        "close": st.sampled_from(["Deadline", "Quorum", "Never"]),
        "stopWhen": st.fixed_dictionaries({"metric": st.just("loss")}, optional={"value": st.floats(-1, 1), "patienceRounds": st.integers(0, 2)}),
        "options": some(evaluate=st.booleans()),
    },
)  # fmt: skip
SITES = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"required": st.booleans(), "env": ENV, "resources": some(limits=LIMITS)}),
    max_size=3,
)  # fmt: skip
TRAINER = some(
    command=st.sampled_from([["python", "train.py"], ["bash"], []]),
    files=FILES,
    env=ENV,
    nodes=st.integers(0, 2),
    processesPerNode=st.integers(0, 2),
    resources=some(limits=LIMITS),
    sharedMemory=st.sampled_from(["1Gi", "much"]),
)
MODEL = some(
    initial=some(path=st.sampled_from(["a.safetensors", "a.pt"]), object=st.sampled_from(["a:b", "a"])),
    exchange=some(
        include=st.lists(st.sampled_from(["*", "a*", ""]), max_size=2),
        maxBytes=st.sampled_from(["1", "0", "0.5", "1.5k", "4Gi", "1m"]),
    ),
)
SCHEDULING = some(
    tolerations=st.lists(
        some(key=st.just("a"), operator=st.sampled_from(["Exists", "Equal"]), value=st.sampled_from(["", "b"])), max_size=2
    )
)  # fmt: skip
FAILURE_POLICY = some(
    rules=st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["a", "b"]), "action": st.sampled_from(["Restart", "FailSite", "FailJob", "Cry"])},
            optional={
                "role": st.sampled_from(["Client", "Server"]),
                "onExitCodes": st.fixed_dictionaries({"values": st.lists(st.integers(0, 3), max_size=2)}),
                "onReasons": st.lists(st.sampled_from(["OOMKilled", "Disrupted", "Bored"]), max_size=2),
            },
        ),
        max_size=2,
    )
)
SPEC = st.fixed_dictionaries(
    {"workflow": WORKFLOW, "sites": SITES, "trainer": TRAINER},
    optional={"model": MODEL, "scheduling": SCHEDULING, "failurePolicy": FAILURE_POLICY},
)


def taken_by_a_local_run(document: dict[str, Any]) -> bool:
    try:
        validate(document)
    except JobFileError:
        return False
    return True


def taken_by_the_api_server(admin: Kube, namespace: str, document: dict[str, Any]) -> bool:
    try:
        admin.call("POST", FEDERATED_JOB.path(namespace), document, dryRun="All", fieldValidation="Strict")
    except RefusedError as error:
        if error.code not in (400, 422):
            raise
        return False
    return True


GOOD: dict[str, Any] = {
    "workflow": {"rounds": 1, "quorum": 1},
    "sites": [{"name": "a"}, {"name": "b", "required": True}],
    "trainer": {"command": ["python", "train.py"], "nodes": 2},
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["digits", "1st", "a" * 40, "a" * 41]) | NAMES, spec=SPEC)
@example(name="digits", spec=GOOD)
def test_both_take_a_job_or_both_refuse_it(admin: Kube, namespace: str, name: str, spec: dict[str, Any]) -> None:
    document = {
        "apiVersion": FEDERATED_JOB.api_version,
        "kind": FEDERATED_JOB.name,
        "metadata": {"name": name},
        "spec": spec,
    }
    assert taken_by_the_api_server(admin, namespace, document) == taken_by_a_local_run(document)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    part=st.one_of(
        st.tuples(st.just("workflow"), WORKFLOW),
        st.tuples(st.just("sites"), SITES),
        st.tuples(st.just("trainer"), TRAINER),
        st.tuples(st.just("model"), MODEL),
        st.tuples(st.just("scheduling"), SCHEDULING),
        st.tuples(st.just("failurePolicy"), FAILURE_POLICY),
    )
)
def test_both_agree_when_one_part_of_a_good_job_changes(
    admin: Kube, namespace: str, part: tuple[str, dict[str, Any]]
) -> None:
    """Most jobs above are wrong in several places, so that one rule hides another; here one part is in question."""
    document = {
        "apiVersion": FEDERATED_JOB.api_version,
        "kind": FEDERATED_JOB.name,
        "metadata": {"name": "digits"},
        "spec": {**GOOD, part[0]: part[1]},
    }
    assert taken_by_the_api_server(admin, namespace, document) == taken_by_a_local_run(document)
