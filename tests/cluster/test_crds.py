"""O6: the API server takes every definition, every example and sample, and each rule of the definitions refuses an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controlplane import ControlPlane
from cluster.kube import APPLY, Kube, RefusedError
from cluster.samples import changed, job, sample
from fedjob.api import JobFileError, load, validate
from fedjob_operator.crd import RESOURCES, Resource
from fedjob_operator.names import FEDERATED_JOB, FEDERATED_SITE, KINDS, SITE_JOB, SITE_POLICY, Kind

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("job*.yaml"))
NOW = "2026-01-31T12:00:00Z"

pytestmark = pytest.mark.measure("O6")
every_kind = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind.name)


def make(admin: Kube, namespace: str, document: Any) -> Any:
    """Make an object in a namespace."""
    kind = KINDS[document["kind"]]
    return admin.call("POST", kind.path(namespace), document, fieldValidation="Strict")


def remake(admin: Kube, namespace: str, document: Any) -> Any:
    """Put a new version in the place of an object."""
    kind, name = KINDS[document["kind"]], document["metadata"]["name"]
    there = admin.get(kind, namespace, name)
    body = {**document, "metadata": {**document["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}}
    return admin.call("PUT", kind.path(namespace, name), body, fieldValidation="Strict")


def refusal(admin: Kube, namespace: str, document: Any, call: Any = make) -> str:
    """Why the API server refuses an object. Fails if it does not, or for another reason than the object's content."""
    with pytest.raises(RefusedError) as refused:
        call(admin, namespace, document)
    assert refused.value.code == 422, refused.value
    return refused.value.message


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_accepted_as_it_is(admin: Kube, namespace: str, path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    load(path)
    made = make(admin, namespace, document)
    assert made["spec"]["sites"][0]["name"] == document["spec"]["sites"][0]["name"]


def kept(given: Any, there: Any, path: str) -> None:
    """What was given is there, at its place; defaults may have been added."""
    if isinstance(given, dict):
        for name, value in given.items():
            kept(value, there[name], f"{path}.{name}")
    elif isinstance(given, list):
        assert len(given) == len(there), path
        for position, value in enumerate(given):
            kept(value, there[position], f"{path}[{position}]")
    else:
        assert given == there, path


@every_kind
def test_a_full_sample_is_accepted_and_kept_whole(admin: Kube, namespace: str, resource: Resource) -> None:
    document = sample(resource.kind.name)
    kept(document["spec"], make(admin, namespace, document)["spec"], "spec")


def test_a_job_of_ten_lines_gets_its_defaults(admin: Kube, namespace: str) -> None:
    text = (ROOT / "tests" / "api" / "ten-lines.yaml").read_text()
    spec = make(admin, namespace, yaml.safe_load(text))["spec"]
    assert spec["suspend"] is False
    assert (spec["workflow"]["type"], spec["workflow"]["close"], spec["cleanPodPolicy"]) == (
        "FedAvg",
        "Deadline",
        "Running",
    )


JOB_RULES = [
    ("metadata/name", "x" * 41, "at most 40"),
    ("metadata/name", "1st", "beginning with a letter"),
    ("spec/workflow/quorum", 3, "workflow.quorum: allowed: at most the number of sites"),
    ("spec/sites/1/required", True, "workflow.quorum: allowed: at least the number of required sites"),
    ("spec/workflow/clientsPerRound", 3, "workflow.clientsPerRound: allowed: at most the number of sites"),
    ("spec/workflow", {"rounds": 1, "quorum": 2, "clientsPerRound": 1}, "clientsPerRound: allowed: at least the quorum"),
    ("spec/workflow", {"rounds": 1, "quorum": 2, "close": "Quorum"}, "workflow.close: allowed: Deadline"),
    ("spec/workflow/stopWhen", {"metric": "loss"}, "value or patienceRounds, or both"),
    ("spec/trainer", {"files": {"main.py": ""}}, "or a file train.py in files"),
    ("spec/trainer/command", ["bash", "train.sh"], "python or python3 first"),
    ("spec/trainer/files", {"../a": "", "train.py": ""}, "a relative file name"),
    ("spec/trainer/files", {"train.py": "é" * 100_000, "b": "x" * 62_145}, "at most 262144 bytes in all"),
    ("spec/trainer/files", {"train.py": "", "lib": "", "lib/net.py": ""}, "none is the folder of another"),
    ("spec/trainer/env", [{"name": "FEDJOB_DATA", "value": ""}], "does not begin with FEDJOB_"),
    ("spec/trainer/env", [{"name": "A", "value": ""}, {"name": "A", "value": ""}], "Duplicate value"),
    ("spec/trainer/resources/limits", {"a b": "1"}, "a Kubernetes resource name"),
    ("spec/trainer/resources/requests", {"a b": "1"}, "a Kubernetes resource name"),
    ("spec/server/resources/limits", {"a b": "1"}, "a Kubernetes resource name"),
    ("spec/server/resources/requests", {"a b": "1"}, "a Kubernetes resource name"),
    ("spec/server/scheduling/nodeSelector", {"a b": "1"}, "a Kubernetes label name"),
    ("spec/server/scheduling/tolerations", [{"value": "a"}], "Exists, as there is no key"),
    ("spec/server/scheduling/tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "no value, as operator is Exists"),
    ("spec/server/exposure/annotations", {"a b": "1"}, "a Kubernetes label name"),
    ("spec/sites/0/resources/limits", {"a b": "1"}, "a Kubernetes resource name"),
    ("spec/sites/0/resources/requests", {"a b": "1"}, "a Kubernetes resource name"),
    ("spec/sites/0/env", [{"name": "FEDJOB_DATA", "value": ""}], "does not begin with FEDJOB_"),
    ("spec/sites/1/name", "server", "a name other than server"),
    ("spec/sites/1/name", "hospital-a", "Duplicate value"),
    ("spec/model/initial", {"path": "a.safetensors", "object": "a:b"}, "exactly one of path and object"),
    ("spec/model/initial", {}, "exactly one of path and object"),
    ("spec/model/exchange/maxBytes", "0", "at least 1 byte"),
    ("spec/model/exchange/include", ["a", "a"], "Duplicate value"),
    ("spec/scheduling/tolerations", [{"value": "a"}], "Exists, as there is no key"),
    ("spec/scheduling/tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "no value, as operator is Exists"),
]  # fmt: skip
RULE = {"name": "r", "onReasons": ["OOMKilled"], "action": "Restart"}
WRONG_RULES = [
    ([RULE, RULE], "each rule once"),
    ([{"name": "r", "action": "Restart"}], "exactly one of onExitCodes and onReasons"),
    ([{**RULE, "onExitCodes": {"values": [1]}}], "exactly one of onExitCodes and onReasons"),
    ([{**RULE, "role": "Server", "action": "FailSite"}], "Restart, Ignore or FailJob, as role is Server"),
]
JOB_RULES += [("spec/failurePolicy/rules", rules, why) for rules, why in WRONG_RULES]
JOB_BOUNDS = [
    (
        "spec/failurePolicy/rules",
        [{"name": "r", "action": "FailJob", "onExitCodes": {"values": [0]}}],
        "greater than or equal to 1",
    ),
    ("spec/workflow/rounds", 0, "greater than or equal to 1"),
    ("spec/workflow/rounds", 100_001, "less than or equal to 100000"),
    ("spec/workflow/type", "FedNone", "Unsupported value"),
    ("spec/sites", [], "at least 1 items"),
    ("spec/trainer/image", "a b", "should match"),
    ("spec/trainer/nodes", 65, "less than or equal to 64"),
    ("spec/server/storage/size", "much", "should match"),
    ("spec/server/storage/storageClassName", "Fast Disk", "should match"),
    ("spec/server/scheduling/priorityClassName", "High", "should match"),
    ("spec/trainer", None, "Required value"),
]


@pytest.mark.parametrize(("path", "value", "why"), [*JOB_RULES, *JOB_BOUNDS])
def test_a_wrong_job_is_refused_by_the_api_server_and_by_a_local_run(
    admin: Kube, namespace: str, path: str, value: Any, why: str
) -> None:
    document = changed(job(), path, value)
    assert why in refusal(admin, namespace, document)
    with pytest.raises(JobFileError):
        validate(document)


def test_an_unknown_field_is_refused_by_kubectl_and_dropped_for_others(admin: Kube, namespace: str) -> None:
    document = changed(job(), "spec/rounds", 3)
    with pytest.raises(RefusedError, match=r'unknown field \\?"spec\.rounds'):
        make(admin, namespace, document)
    assert "rounds" not in admin.call("POST", FEDERATED_JOB.path(namespace), document)["spec"]


OTHER_RULES = [
    (FEDERATED_SITE, "metadata/name", "server", "a name other than server"),
    (FEDERATED_SITE, "metadata/name", "a.b", "metadata.name: allowed: at most 63"),
    (FEDERATED_SITE, "spec/allowedNamespaces", ["a", "a"], "Duplicate value"),
    (FEDERATED_SITE, "spec/type", "Orbital", "Unsupported value"),
    (SITE_JOB, "spec/site", "hospital-c", "site: allowed: one of sites"),
    (SITE_JOB, "spec/trainer/command", ["bash"], "python or python3 first"),
    (SITE_JOB, "spec/trainer/env", [{"name": "FEDJOB_DATA", "value": ""}], "does not begin with FEDJOB_"),
    (SITE_JOB, "spec/trainer/files", {"/a": ""}, "a relative file name"),
    (SITE_JOB, "spec/trainer/files", {"a": "x" * 262_144, "b": "x"}, "at most 262144 bytes in all"),
    (SITE_JOB, "spec/trainer/files", {"a": "", "a/b": ""}, "none is the folder of another"),
    (SITE_JOB, "spec/trainer/resources/limits", {"a b": "1"}, "a Kubernetes resource name"),
    (SITE_JOB, "spec/trainer/resources/requests", {"a b": "1"}, "a Kubernetes resource name"),
    (SITE_JOB, "spec/workflow/stopWhen", {"metric": "loss"}, "value or patienceRounds, or both"),
    (SITE_JOB, "spec/scheduling/tolerations", [{"value": "a"}], "Exists, as there is no key"),
    (SITE_JOB, "spec/scheduling/tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "no value, as operator is"),
    *[(SITE_JOB, "spec/restarts", {"allowed": 3, "rules": rules}, why) for rules, why in WRONG_RULES],
    (SITE_JOB, "spec/job/attempt", 0, "greater than or equal to 1"),
    (SITE_JOB, "spec/approval/decision", "Maybe", "Unsupported value"),
    (SITE_POLICY, "metadata/name", "other", "default, as a namespace has one policy"),
    (SITE_POLICY, "spec/rules", [{"name": "a", "images": [{"repository": "a.example/*"}]}] * 2, "each rule once"),
    (SITE_POLICY, "spec/rules/0/images/0/repository", "*/fedjob-runtime", "should match"),
    (SITE_POLICY, "spec/rules/0/images/0/repository", "*", "should match"),
    (SITE_POLICY, "spec/rules/0/images/0/repository", "reg.example/a:1", "should match"),
    (SITE_POLICY, "spec/data", [{"name": "a", "claim": "b"}] * 2, "Duplicate value"),
    (SITE_POLICY, "spec/floor/pod/maxPerJob", {"a b": "1"}, "a Kubernetes resource name"),
    (SITE_POLICY, "spec/floor/pod/tolerations", [{"value": "a"}], "Exists, as there is no key"),
    (SITE_POLICY, "spec/floor/pod/tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "no value, as operator is"),
    (SITE_POLICY, "spec/pods/labels", {"a b": "1"}, "a Kubernetes label name"),
    (SITE_POLICY, "spec/pods/annotations", {"a b": "1"}, "a Kubernetes label name"),
    (SITE_POLICY, "spec/pods/nodeSelector", {"a b": "1"}, "a Kubernetes label name"),
    (SITE_POLICY, "spec/data/0/subPath", "../b", "should match"),
    (SITE_POLICY, "spec/data/0/supplementalGroups", [0], "greater than or equal to 1"),
    (SITE_POLICY, "spec/rules/0/images", [], "at least 1 items"),
    (SITE_POLICY, "spec/rules/0/commands", [["python", "*"]], "should match"),
    (SITE_POLICY, "spec/rules/0/commands", [[]], "at least 1 items"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "value", "why"), OTHER_RULES)
def test_a_wrong_object_of_another_kind_is_refused(
    admin: Kube, namespace: str, kind: Kind, path: str, value: Any, why: str
) -> None:
    assert why in refusal(admin, namespace, changed(sample(kind.name), path, value))


def started(admin: Kube, namespace: str) -> Any:
    """A job that has started, as its status says."""
    document = changed(job(), "spec/suspend", False)
    make(admin, namespace, document)
    admin.patch(FEDERATED_JOB, namespace, document["metadata"]["name"], {"status": {"startTime": NOW}}, "/status")
    return document


@pytest.mark.parametrize("server", [{}, {"storage": {}}, {"resources": {}}])
def test_a_job_that_says_nothing_of_its_server_can_start_and_go_on(admin: Kube, namespace: str, server: Any) -> None:
    """What a rule compares may be missing at every depth."""
    document = yaml.safe_load((ROOT / "tests" / "api" / "ten-lines.yaml").read_text())
    name = document["metadata"]["name"]
    if server:
        document["spec"]["server"] = server
    make(admin, namespace, document)
    for state in ("Starting", "Training"):
        status = {"status": {"startTime": NOW, "state": state}}
        assert admin.patch(FEDERATED_JOB, namespace, name, status, "/status")["status"]["state"] == state
    assert PAUSED in refusal(
        admin, namespace, changed(document, "spec/server", {"resources": {"limits": {"memory": "2Gi"}}}), remake
    )
    assert NEVER in refusal(
        admin, namespace, changed(document, "spec/server", {"storage": {"storageClassName": "slow"}}), remake
    )


NEVER = "cannot be changed once the job has started"
PAUSED = "can be changed while the job is paused"
JOB_EDITS = [
    ("spec/model/exchange/params", "Full", NEVER),
    ("spec/sites", [{"name": "hospital-a", "required": True}, {"name": "hospital-c"}], NEVER),
    ("spec/workflow/rounds", 11, PAUSED),
    ("spec/trainer/image", "registry.example/digits:2", PAUSED),
    ("spec/trainer/files", {"train.py": "pass"}, PAUSED),
    ("spec/trainer/env", [], PAUSED),
    ("spec/scheduling/queueName", "other", PAUSED),
    ("spec/server/resources", {"limits": {"memory": "2Gi"}}, PAUSED),
    ("spec/server/scheduling/nodeSelector", {}, PAUSED),
    ("spec/server/exposure", {"type": "ClusterIP"}, PAUSED),
    ("spec/server/storage/storageClassName", "slow", NEVER),
]


@pytest.mark.parametrize("suspend", [False, True])
def test_the_volume_of_a_job_may_grow_at_any_time(admin: Kube, namespace: str, suspend: bool) -> None:
    document = changed(started(admin, namespace), "spec/suspend", suspend)
    remake(admin, namespace, document)
    grown = remake(admin, namespace, changed(document, "spec/server/storage/size", "2Ti"))
    assert grown["spec"]["server"]["storage"] == {"size": "2Ti", "storageClassName": "fast"}


@pytest.mark.parametrize(("path", "value", "why"), JOB_EDITS)
def test_a_job_that_runs_keeps_what_it_was_started_with(
    admin: Kube, namespace: str, path: str, value: Any, why: str
) -> None:
    document = started(admin, namespace)
    assert why in refusal(admin, namespace, changed(document, path, value), remake)


@pytest.mark.parametrize(("path", "value", "why"), JOB_EDITS)
def test_a_paused_job_may_be_edited_but_for_what_its_state_depends_on(
    admin: Kube, namespace: str, path: str, value: Any, why: str
) -> None:
    paused = changed(started(admin, namespace), "spec/suspend", True)
    remake(admin, namespace, paused)
    edited = changed(paused, path, value)
    if why == NEVER:
        assert why in refusal(admin, namespace, edited, remake)
    else:
        remake(admin, namespace, edited)


@pytest.mark.parametrize(("path", "value", "why"), JOB_EDITS)
def test_a_job_that_has_not_started_may_be_edited(admin: Kube, namespace: str, path: str, value: Any, why: str) -> None:
    document = changed(job(), "spec/suspend", False)
    make(admin, namespace, document)
    remake(admin, namespace, changed(document, path, value))


@pytest.mark.parametrize("path", ["spec/activeDeadlineSeconds", "spec/ttlSecondsAfterFinished", "spec/suspend"])
def test_deadlines_and_pausing_may_be_edited_at_any_time(admin: Kube, namespace: str, path: str) -> None:
    value = True if path == "spec/suspend" else 7200
    assert remake(admin, namespace, changed(started(admin, namespace), path, value))


EDITS = [
    (FEDERATED_SITE, "spec/local/namespace", "elsewhere", "local: cannot be changed"),
    (FEDERATED_SITE, "spec/local", None, "local: cannot be changed"),
    (SITE_JOB, "spec/job/uid", "other", "an assignment is one job's"),
    (SITE_JOB, "spec/job/attempt", 1, "job.attempt: allowed: what it was, or more"),
    (SITE_JOB, "spec/restarts/forgiven", 0, "restarts.forgiven: allowed: what it was, or more"),
]


@pytest.mark.parametrize(("kind", "path", "value", "why"), EDITS)
def test_what_an_object_is_about_cannot_be_changed(
    admin: Kube, namespace: str, kind: Kind, path: str, value: Any, why: str
) -> None:
    document = sample(kind.name)
    make(admin, namespace, document)
    assert why in refusal(admin, namespace, changed(document, path, value), remake)


STATUS: dict[str, Any] = {
    "FederatedJob": {
        "observedGeneration": 1,
        "state": "Training",
        "attempt": 1,
        "startTime": NOW,
        "runningTime": NOW,
        "server": {"run": 1, "ready": True, "released": True, "restarts": 2, "endpoint": "a.b.svc:8443"},
        "siteSummary": {"total": 2, "running": 2, "out": 0, "text": "2/2"},
        "certificates": {"serverNotAfter": NOW},
        "sites": [{"name": "hospital-a", "state": "Running", "restarts": 0}],
    },
    "FederatedSite": {"observedGeneration": 1, "activeJobs": 3},
    "SiteJob": {"observedGeneration": 1, "attempt": 2, "run": 1, "restarts": 0, "certificateNotAfter": NOW},
    "SitePolicy": {"observedGeneration": 1, "activeJobs": 1},
}
CONDITIONS = [
    {"type": kind, "status": status, "reason": reason, "message": "why", "lastTransitionTime": NOW, "observedGeneration": 1}
    for kind, status, reason in (
        ("Accepted", "True", "Accepted"), ("Running", "True", "Running"), ("Finished", "False", "NotFinished"),
        ("Degraded", "False", "AllSites"), ("Failed", "False", "NotFinished"),
    )
]  # fmt: skip


@every_kind
def test_status_is_applied_whole_and_apart_from_spec(admin: Kube, namespace: str, resource: Resource) -> None:
    """The status subresource takes every field of the status, leaves spec alone, and spec's writers leave status alone."""
    kind, document = resource.kind, sample(resource.kind.name)
    name = document["metadata"]["name"]
    make(admin, namespace, {**document, "status": STATUS[kind.name]})
    assert "status" not in admin.get(kind, namespace, name)
    status = {**STATUS[kind.name], "conditions": CONDITIONS}
    resource.status.model_validate(status)
    query = {"fieldManager": "fedjob.dev/operator", "fieldValidation": "Strict"}
    body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, "status": status}
    admin.call("PATCH", kind.path(namespace, name) + "/status", body, APPLY, **query)
    there = admin.get(kind, namespace, name)
    assert there["status"] == status
    assert there["metadata"]["generation"] == 1
    remake(admin, namespace, {**document, "status": {}})
    assert admin.get(kind, namespace, name)["status"] == status


def test_two_writers_share_the_sites_of_a_job(admin: Kube, namespace: str) -> None:
    """The operator and the progress of a job's server each own their fields of one entry, and take back only their own."""
    document = job()
    name = document["metadata"]["name"]
    make(admin, namespace, document)

    def write(manager: str, **status: Any) -> Any:
        return admin.apply(FEDERATED_JOB, namespace, name, manager, "/status", status=status)["status"]

    write("fedjob.dev/operator", sites=[{"name": "hospital-a", "state": "Running", "restarts": 1}])
    both = write(
        "fedjob.dev/progress", sites=[{"name": "hospital-a", "training": "Waiting"}], progress={"completedRounds": 1}
    )
    assert both["sites"] == [{"name": "hospital-a", "state": "Running", "restarts": 1, "training": "Waiting"}]
    left = write("fedjob.dev/operator", sites=[{"name": "hospital-a", "state": "Failed"}])
    assert left["sites"] == [{"name": "hospital-a", "state": "Failed", "training": "Waiting"}]
    assert left["progress"] == {"completedRounds": 1}
    with pytest.raises(RefusedError) as refused:
        write("somebody", sites=[{"name": "hospital-a", "state": "Running"}])
    assert refused.value.code == 409


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            {"conditions": [{"type": "A", "status": "Maybe", "reason": "B", "lastTransitionTime": NOW}]},
            "Unsupported value",
        ),
        ({"conditions": [{"type": "A", "status": "True", "reason": "B", "lastTransitionTime": "now"}]}, "date-time"),
        ({"conditions": [CONDITIONS[0], CONDITIONS[0]]}, "Duplicate value"),
        ({"progress": {"percent": 101}}, "less than or equal to 100"),
        ({"attempt": -1}, "greater than or equal to 0"),
    ],
)
def test_a_status_that_is_not_one_is_refused(admin: Kube, namespace: str, status: Any, why: str) -> None:
    document = job()
    make(admin, namespace, document)

    def write(kube: Kube, place: str, _document: Any) -> None:
        kube.patch(FEDERATED_JOB, place, document["metadata"]["name"], {"status": status}, "/status")

    assert why in refusal(admin, namespace, document, write)


def columns(printed: str) -> dict[str, str]:
    """Header and first row of `kubectl get`, by where the header's words begin."""
    head, row = printed.splitlines()[:2]
    starts = [at for at, letter in enumerate(head) if letter != " " and (at == 0 or head[at - 1] == " ")]
    return {
        head[start:end].strip(): row[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)
    }


COLUMNS = {
    "FederatedJob": {"STATE": "Training", "ROUND": "4", "OF": "10", "SITES": "2/2", "RESTARTS": "2", "ETA": "61",
                     "DEGRADED": "False", "FAILURE": "NotFinished"},
    "FederatedSite": {"TYPE": "Local", "APPROVED": "true", "ORGANISATION": "Hospital A"},
    "SiteJob": {"JOB": "digits", "FROM": "team-a", "ACCEPTED": "True", "RUNNING": "True", "FINISHED": "NotFinished",
                "RESTARTS": "0", "SITE": "hospital-a", "WHY": "why"},
    "SitePolicy": {"SUSPENDED": "false", "RULES": "trial-42"},
}  # fmt: skip


@every_kind
def test_kubectl_get_tells_how_things_stand(
    plane: ControlPlane, admin: Kube, namespace: str, resource: Resource
) -> None:
    kind, document = resource.kind, sample(resource.kind.name)
    make(admin, namespace, document)
    status = {**STATUS[kind.name], "conditions": CONDITIONS}
    if kind == FEDERATED_JOB:
        status["progress"] = {"completedRounds": 4, "totalRounds": 10, "etaSeconds": 61}
    admin.patch(kind, namespace, document["metadata"]["name"], {"status": status}, "/status")
    row = columns(plane.kubectl("get", resource.short, "-n", namespace, "-o", "wide"))
    assert {name: row[name] for name in COLUMNS[kind.name]} == COLUMNS[kind.name]
    assert row["NAME"] == document["metadata"]["name"]
    assert row["AGE"]


def test_kubectl_explains_a_field(plane: ControlPlane) -> None:
    told = " ".join(plane.kubectl("explain", "fj.spec.workflow.quorum").split())
    assert "Fewest results that complete a round." in told


def test_kubectl_finds_every_kind_by_its_category(plane: ControlPlane, admin: Kube, namespace: str) -> None:
    for resource in RESOURCES:
        make(admin, namespace, sample(resource.kind.name))
    listed = plane.kubectl("get", "fedjob", "-n", namespace, "-o", "name").split()
    assert {line.partition(".")[0] for line in listed} == {r.kind.name.lower() for r in RESOURCES}


def test_every_rule_has_been_shown_refusing_an_object() -> None:
    """A message of each rule is expected by a case above."""
    cases: dict[str, list[str]] = {
        FEDERATED_JOB.name: [why for _, _, why in (*JOB_RULES, *JOB_EDITS)],
        **{kind.name: [] for kind in (FEDERATED_SITE, SITE_JOB, SITE_POLICY)},
    }
    for kind, _, _, why in (*OTHER_RULES, *EDITS):
        cases[kind.name].append(why)
    for resource in RESOURCES:
        for path, rules in resource.rules.items():
            for rule in rules:
                assert any(why in rule.message for why in cases[resource.kind.name]), (resource.kind.name, path, rule)
