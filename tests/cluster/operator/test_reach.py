"""An operator that has its rights namespace by namespace: one that forbids stops nobody else, and comes back by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controlplane import LIMITED
from cluster.kube import RefusedError
from cluster.operator.conftest import allow_all
from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

ROOT = Path(__file__).parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SYSTEM = "fedjob-system"
COMPLETE = json.dumps({"reason": "RoundsCompleted", "message": ""})
EVERYWHERE, OWN = yaml.safe_load_all((ROOT / "operator" / "role.yaml").read_text())


def grant(admin: Any, namespace: str, *roles: Any) -> None:
    """Give the limited operator rights in a namespace, as the charts do."""
    subject = {"kind": "User", "name": "limited", "apiGroup": "rbac.authorization.k8s.io"}
    for number, role in enumerate(roles):
        name, place = f"limited-{number}", f"{RBAC}/namespaces/{namespace}"
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        admin.call("POST", f"{place}/roles", {"metadata": {"name": name}, "rules": role["rules"]})
        body = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        admin.call("POST", f"{place}/rolebindings", body)


def withdraw(admin: Any, namespace: str) -> None:
    """Take all of them away."""
    for kind in ("rolebindings", "roles"):
        for found in admin.call("GET", f"{RBAC}/namespaces/{namespace}/{kind}")["items"]:
            if found["metadata"]["name"].startswith("limited-"):
                admin.call("DELETE", f"{RBAC}/namespaces/{namespace}/{kind}/{found['metadata']['name']}")


@pytest.fixture
def hospital(admin: Any, namespace: str, kubelet: Any) -> Iterator[Any]:
    """The kubelet of a site's own namespace, where the operator has no rights; the site is called like it. The job's has them."""
    made = str(
        admin.call("POST", "/api/v1/namespaces", {"metadata": {"generateName": "hospital-"}})["metadata"]["name"]
    )
    spec = {"approved": True, "allowedNamespaces": [namespace], "local": {"namespace": made}}
    admin.create(names.FEDERATED_SITE, SYSTEM, made, spec=spec)
    allow_all(admin, made)
    grant(admin, namespace, EVERYWHERE)
    grant(admin, SYSTEM, EVERYWHERE, OWN)
    yield type(kubelet)(admin, made)
    withdraw(admin, SYSTEM)


@pytest.fixture
def start(start_operator: Any, namespace: str, hospital: Any) -> Callable[[], Any]:
    """Starts an operator that should look after both namespaces."""

    def begin() -> Any:
        return start_operator("--watch-namespaces", f"{namespace},{hospital.namespace}", token=LIMITED)

    return begin


def reachable(admin: Any, site: str) -> tuple[str, str]:
    """What a FederatedSite says of its namespace."""
    status = admin.get(names.FEDERATED_SITE, SYSTEM, site).get("status") or {}
    found = [c for c in status.get("conditions") or () if c["type"] == "Reachable"]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


def entry(job: Any, site: str) -> Any:
    """A site in a job's status."""
    return next((found for found in job.status.get("sites") or () if found["name"] == site), {})


def completes(job: Any, kubelet: Any, site: Any, until: Any) -> None:
    """The one server's pod of the namespace and the site's clients run, and the job ends well."""
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    site.run(CLIENT, 1)
    kubelet.end(kubelet.live(SERVER)[0], 0, COMPLETE)
    job.wait("Complete", "True", "RoundsCompleted")


def test_a_namespace_without_the_role_keeps_no_other_from_starting_and_comes_in_when_it_grants_it(
    admin: Any, start: Any, submit: Any, kubelet: Any, hospital: Any, until: Any
) -> None:
    site = hospital.namespace
    operator = start()
    waits = submit("waits", sites=[{"name": site}])
    waits.wait("Accepted", "False", "SiteForbidden")
    until("the site to say so", lambda: reachable(admin, site) == ("False", "Forbidden"))
    told = next(c for c in waits.status["conditions"] if c["type"] == "Accepted")["message"]
    assert told.startswith(f"{site}: the site's namespace does not let the operator in"), told
    assert f'in the namespace "{site}"' in told
    goes = submit("goes", sites=[{"name": f"a-{kubelet.namespace}"}])
    completes(goes, kubelet, kubelet, until)
    assert f'fedjob_namespace_forbidden{{watched_namespace="{site}"}} 1.0' in operator.scrape()
    assert operator.log.read_text().count("a namespace forbids us") == 1

    grant(admin, site, EVERYWHERE)
    completes(waits, kubelet, hospital, until)
    until("the site to say so", lambda: reachable(admin, site) == ("True", "Reachable"))
    assert f'fedjob_namespace_forbidden{{watched_namespace="{site}"}} 0.0' in operator.scrape()
    assert operator.alive


def forbidden(plane: Any, namespace: str) -> bool:
    """Whether the API server has heard that the operator's rights are gone: it does so a moment later."""
    try:
        plane.user(LIMITED).list(names.SITE_POLICY, namespace)
    except RefusedError as error:
        return error.code == 403
    return False


def test_a_namespace_that_takes_the_role_away_stops_no_job_and_is_as_it_was_when_it_gives_it_back(
    plane: Any, admin: Any, start: Any, submit: Any, kubelet: Any, hospital: Any, until: Any
) -> None:
    site = hospital.namespace
    grant(admin, site, EVERYWHERE)
    operator = start()
    job = submit(sites=[{"name": f"a-{kubelet.namespace}"}, {"name": site}])
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 1)
    (client,) = hospital.run(CLIENT, 1)
    until("the site to run", lambda: entry(job, site).get("state") == "Running")

    withdraw(admin, site)
    until("the API server to forbid it", lambda: forbidden(plane, site))
    hospital.end(client, 1, "out of luck")  # a watch that is open goes on; what it leads to is refused
    until("the job to say so", lambda: entry(job, site).get("reason") == "SiteForbidden")
    until("the site to say so", lambda: reachable(admin, site) == ("False", "Forbidden"))
    assert entry(job, site)["state"] == "Running", "its pod may well go on"
    assert job.condition("Accepted") == ("True", "Accepted")
    kubelet.end(kubelet.live(SERVER)[0], 137, "out of memory")
    until("the second run", lambda: job.status["server"]["run"] == 2)
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    again = operator.stop(), start()
    until("the new process to act", lambda: "fedjob_operator_leader 1.0" in again[1].scrape())
    other = submit("other", sites=[{"name": f"b-{kubelet.namespace}"}])
    other.wait("Accepted", "True", "Accepted")
    until("its server", lambda: len(kubelet.live(SERVER)) == 2)

    grant(admin, site, EVERYWHERE)
    hospital.run(CLIENT, 1)
    until("the site to run", lambda: (entry(job, site)["state"], entry(job, site).get("restarts")) == ("Running", 1))
    assert entry(job, site).get("reason") != "SiteForbidden"
    assert again[1].alive


def test_an_operator_without_rights_in_its_own_namespace_ends_and_says_why(
    admin: Any, start: Any, hospital: Any, until: Any
) -> None:
    until("a Role", lambda: admin.call("GET", f"{RBAC}/namespaces/{SYSTEM}/roles")["items"])
    withdraw(admin, SYSTEM)
    grant(admin, SYSTEM, OWN)
    operator = start()
    until("it to end", lambda: not operator.alive)
    assert '"the API server refuses"' in operator.log.read_text()
    assert f'in the namespace \\"{SYSTEM}\\"' in operator.log.read_text()
