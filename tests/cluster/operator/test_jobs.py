"""Jobs on a real control plane: the operator with its real role, the test as the kubelet."""

from __future__ import annotations

import json
from typing import Any

from cluster.operator.conftest import SYSTEM, sites_of
from cluster.samples import sample
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER, Kind

_ACCOUNT = Kind("ServiceAccount", "", "v1", "serviceaccounts")
COMPLETE = json.dumps({"reason": "RoundsCompleted", "message": ""})


def test_a_job_runs_and_completes(start_operator: Any, submit: Any, kubelet: Any) -> None:
    start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    job.wait("CertificatesReady", "True", "Issued")
    kubelet.end(kubelet.live(SERVER)[0], 0, COMPLETE)
    job.wait("Complete", "True", "RoundsCompleted")
    assert job.status["observedGeneration"] == 1


def test_pods_have_the_pull_secrets_of_their_namespaces_service_account(
    admin: Any, namespace: str, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    """So a site has a registry of its own, where the installation names no secrets for all."""
    until("the service account", lambda: admin.get(_ACCOUNT, namespace, "default"))
    secrets = [{"name": "registry"}]
    admin.patch(_ACCOUNT, namespace, "default", {"imagePullSecrets": secrets})
    start_operator()
    submit()
    kubelet.run(SERVER, 1)
    kubelet.run(CLIENT, 2)
    pods = [*kubelet.live(SERVER), *kubelet.live(CLIENT)]
    assert [pod["spec"]["imagePullSecrets"] for pod in pods] == [secrets] * 3


def test_a_server_that_dies_is_followed_by_one_other(
    start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    start_operator()
    job = submit()
    (first,) = kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.end(first, 137, "out of memory")
    until("the second run", lambda: job.status.get("server", {}).get("run") == 2)
    (second,) = kubelet.run(SERVER, 1)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    job.wait("ServerReady", "True", "Ready")
    assert "137" in job.status["server"]["lastTermination"]
    assert (job.status["server"]["restarts"], job.status["attempt"]) == (1, 1)
    assert len(kubelet.live(SERVER)) == 1


def test_a_pod_that_is_deleted_is_replaced_only_when_it_is_gone(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    start_operator()
    job = submit(failurePolicy={"serverRestarts": 0})
    (pod,) = kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    admin.patch(names.POD, job.namespace, pod["metadata"]["name"], {"metadata": {"finalizers": ["test.dev/held"]}})
    admin.delete(names.JOB, job.namespace, job.status["server"]["job"])
    until("the pod to be leaving", lambda: [p for p in kubelet.pods(SERVER) if "deletionTimestamp" in p["metadata"]])
    until("the reason", lambda: job.condition("ServerReady")[1] in ("Restarting", "NodeLost"))
    assert len(kubelet.live(SERVER)) == 1
    admin.patch(names.POD, job.namespace, pod["metadata"]["name"], {"metadata": {"finalizers": None}})
    kubelet.bury()
    until("another pod", lambda: [p for p in kubelet.live(SERVER) if p["metadata"]["uid"] != pod["metadata"]["uid"]])
    assert job.condition("Failed")[0] == "False"


def test_an_operator_that_was_away_goes_on_where_the_cluster_is(
    start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    first = start_operator()
    job = submit()
    (server,) = kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    first.kill()
    kubelet.end(server, 70, "a bug")
    start_operator(identity="replica-2")  # another pod: it must wait for the Lease
    until("the second run", lambda: job.status.get("server", {}).get("run") == 2)
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    assert job.status["server"]["restarts"] == 1


def test_suspend_takes_all_pods_and_resume_brings_a_new_attempt(
    start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    job.edit(suspend=True)
    job.wait("Admitted", "False", "Suspended")
    until("no pods", lambda: kubelet.bury() or not [*kubelet.pods(SERVER), *kubelet.pods(CLIENT)])
    job.edit(suspend=False)
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    assert (job.status["attempt"], job.status["server"]["run"], job.status["server"]["restarts"]) == (2, 2, 0)


def test_a_job_is_deleted_while_the_operator_is_down(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    """No finalizer: the garbage collector is enough, for the job and all that it made."""
    operator = start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    assert operator.stop() == 0
    admin.delete(names.FEDERATED_JOB, job.namespace, job.name)
    kinds = (
        names.FEDERATED_JOB, names.SITE_JOB, names.JOB, names.POD, names.SERVICE, names.CONFIG_MAP, names.SECRET,
        names.DISRUPTION_BUDGET, names.NETWORK_POLICY,
    )  # fmt: skip

    def left() -> list[str]:
        kubelet.bury()
        found = [raw["metadata"]["name"] for kind in kinds for raw in admin.list(kind, job.namespace)]
        return [name for name in found if name != "kube-root-ca.crt"]

    until("nothing to be left", lambda: not left())


def test_a_second_replica_waits_and_takes_over(start_operator: Any, submit: Any, kubelet: Any, until: Any) -> None:
    first = start_operator()
    until("the first to lead", lambda: "fedjob_operator_leader 1.0" in first.scrape())
    second = start_operator(identity="replica-2")
    until("the second to listen", lambda: '"listening"' in second.log.read_text())
    assert "fedjob_operator_leader 0.0" in second.scrape()
    assert first.stop() == 0
    until("the second to lead", lambda: "fedjob_operator_leader 1.0" in second.scrape())
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")


def test_events_tell_what_has_happened_once(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")

    def reasons() -> list[str]:
        events = admin.list(names.EVENT, job.namespace)
        return [e["reason"] for e in events if e["involvedObject"]["kind"] == "FederatedJob"]

    until("the event Ready", lambda: "Ready" in reasons())
    assert len(reasons()) == len(set(reasons()))
    assert "Accepted" in reasons()


def test_keys_are_nowhere_but_in_secrets(admin: Any, start_operator: Any, submit: Any, kubelet: Any) -> None:
    operator = start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    kinds = (names.FEDERATED_JOB, names.SITE_JOB, names.CONFIG_MAP, names.EVENT, names.JOB, names.POD)
    everything = json.dumps([admin.list(kind, job.namespace) for kind in kinds]) + operator.log.read_text()
    assert "PRIVATE KEY" not in everything
    secrets = admin.list(names.SECRET, job.namespace)
    assert len(secrets) == 3
    assert all(set(secret["data"]) == {"tls.key", "tls.crt", "ca.crt"} for secret in secrets)


def test_all_traces_of_a_finished_job_go_when_its_time_is_over(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    start_operator()
    job = submit(ttlSecondsAfterFinished=2, cleanPodPolicy="All", sites=[{"name": f"a-{kubelet.namespace}"}])
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 1)
    kubelet.end(kubelet.live(SERVER)[0], 0, COMPLETE)
    until("the job to be gone", lambda: job.raw is None)
    until("its children to be gone", lambda: kubelet.bury() or not admin.list(names.SITE_JOB, job.namespace))


def test_a_site_whose_approval_is_withdrawn_loses_its_assignment(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    site = job.raw["spec"]["sites"][1]["name"]
    admin.patch(names.FEDERATED_SITE, "fedjob-system", site, {"spec": {"approved": False}})
    until("one assignment", lambda: len(admin.list(names.SITE_JOB, job.namespace)) == 1)


def test_an_assignment_of_a_job_that_is_gone_goes_and_one_that_others_made_stays(
    admin: Any, namespace: str, start_operator: Any, until: Any
) -> None:
    ours = {names.MANAGED_BY: names.MANAGER}
    for name, labels in {"fj-a": {}, "fj-b": {names.MANAGED_BY: "helm"}, "fj-c": ours}.items():
        admin.create(names.SITE_JOB, namespace, name, metadata={"labels": labels}, spec=sample("SiteJob")["spec"])
    operator = start_operator("--resync-seconds", "1")
    until("the operator's own to be gone", lambda: not admin.get(names.SITE_JOB, namespace, "fj-c"))
    assert {raw["metadata"]["name"] for raw in admin.list(names.SITE_JOB, namespace)} == {"fj-a", "fj-b"}
    assert "a SiteJob without a job stays" not in operator.log.read_text(), "nobody tries to delete what is not theirs"


def test_a_job_made_anew_under_the_same_name_is_another_job(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    start_operator()
    first = submit()
    kubelet.run(SERVER, 1)
    first.wait("ServerReady", "True", "Ready")
    kubelet.end(kubelet.live(SERVER)[0], 0, COMPLETE)
    first.wait("Complete", "True", "RoundsCompleted")
    admin.delete(names.FEDERATED_JOB, first.namespace, first.name)
    until("the first to be gone", lambda: first.raw is None)
    second = submit()
    second.wait("Accepted", "True", "Accepted")
    until("a server of its own", lambda: kubelet.live(SERVER))
    assert second.condition("Complete") == ("False", "NotFinished")


def test_a_quota_that_keeps_the_server_from_being_made_is_a_reason_and_is_noticed_when_it_is_raised(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    quotas = f"/api/v1/namespaces/{kubelet.namespace}/resourcequotas"
    admin.call("POST", quotas, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    until("the quota to count", lambda: "hard" in admin.call("GET", f"{quotas}/none").get("status", {}))
    start_operator()
    job = submit()
    job.wait("ServerReady", "False", "QuotaExceeded")
    ready = next(c for c in job.status["conditions"] if c["type"] == "ServerReady")
    assert ready["message"].startswith("exceeded quota: none, requested: pods=1")
    assert job.status["state"] == "QuotaExceeded"
    admin.call("DELETE", f"{quotas}/none")
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")


def test_a_pod_whose_ca_bundle_is_missing_says_so_and_runs_once_it_is_there(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    """The kubelet's word is an event; what it says of the pod itself is only that it is not ready for containers."""
    admin.patch(names.SITE_POLICY, kubelet.namespace, "default", {"spec": {"caBundle": {"configMap": "company"}}})
    start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    pods = until("both clients", lambda: len(found := kubelet.live(CLIENT)) == 2 and found)
    words = 'MountVolume.SetUp failed for volume "ca-bundle" : configmap "company" not found'
    for pod in pods:
        volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "ca-bundle")
        assert volume["configMap"]["name"] == "company"
        waits = {"phase": "Pending", "conditions": [{"type": "PodReadyToStartContainers", "status": "False"}]}
        kubelet.write(pod, waits)
        kubelet.tell(pod, "FailedMount", words)

    def told() -> list[str]:
        return [
            site.get("message", "") for site in job.status.get("sites") or () if site.get("reason") == "MountFailed"
        ]

    said = until("both sites to say so", lambda: len(found := told()) == 2 and found)
    assert all(words in message for message in said), said
    for pod in pods:
        kubelet.start(pod)
    until("both sites to say no more of it", lambda: not told())


def test_a_site_whose_pods_the_api_server_refuses_is_named_with_its_words(
    admin: Any, namespace: str, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    lets = {"spec": {"floor": {"pod": {"priorityClassNames": ["nowhere"]}}}}
    admin.patch(names.SITE_POLICY, namespace, "default", lets)
    start_operator()
    job = submit(scheduling={"priorityClassName": "nowhere"})
    kubelet.run(SERVER, 1)

    def refused() -> list[str]:
        sites = job.status.get("sites") or ()
        return [site["message"] for site in sites if site.get("reason") == "PodRefused"]

    said = until("both sites to say so", lambda: len(found := refused()) == 2 and found)
    assert said == ["no PriorityClass with name nowhere was found"] * 2
    assert (
        "PodRefused: no PriorityClass"
        in next(c for c in job.status["conditions"] if c["type"] == "QuorumReached")["message"]
    )


def test_a_site_whose_namespace_is_not_there_holds_up_nobody_else(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, until: Any, namespace: str
) -> None:
    """Its SiteJob cannot be made; the server and the other site start, and the status has the API server's words."""
    lost, _ = sites_of(namespace)
    admin.delete(names.FEDERATED_SITE, SYSTEM, lost)
    spec = {"approved": True, "allowedNamespaces": [namespace], "local": {"namespace": "not-there"}}
    until("the site is gone", lambda: admin.get(names.FEDERATED_SITE, SYSTEM, lost) is None)
    admin.create(names.FEDERATED_SITE, SYSTEM, lost, spec=spec)
    start_operator()
    job = submit(workflow={"type": "FedAvg", "rounds": 3, "quorum": 1})
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 1)

    def told() -> bool:
        site: dict[str, Any] = next((entry for entry in job.status.get("sites") or () if entry["name"] == lost), {})
        return site.get("reason") == "Forbidden" and "not-there" in site["message"]

    until("the site's reason", told)
