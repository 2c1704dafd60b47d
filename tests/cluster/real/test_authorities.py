"""A private authority on a real cluster: scripts trust whoever their site's administrator says, and what is missing is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster import certificates
from cluster.helm import Helm
from cluster.kube import until
from cluster.real import federation
from cluster.real.cluster import Cluster
from cluster.real.federation import HOSPITALS, TEAM, Submitted
from cluster.real.images import Images
from fedjob_operator import names
from fedjob_operator.names import CONFIG_MAP, POD, SERVICE, SITE_POLICY

BUNDLE = "company-authorities"
ROUNDS = 2
ARTIFACT = 42

# An artifact store whose certificate nobody knows whom nobody has told. Its key comes as an argument, and ssl reads files only.
STORE = """
import http.server, pathlib, ssl, sys

class Store(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[2].encode())

file = pathlib.Path("/dev/shm/store.pem")
file.write_text(sys.argv[1])
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(file)
server = http.server.ThreadingHTTPServer(("", 8443), Store)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
SCRIPT = """
import urllib.request

import numpy as np

import fedjob

start = float(urllib.request.urlopen("https://{host}:8443/model", timeout=60).read())
fedjob.init({{"w": np.full(100, start, np.float32)}})
while fedjob.is_running():
    model = fedjob.receive()
    if model is None:
        break
    fedjob.send(fedjob.FLModel(params={{"w": model.params["w"] + 1}}, meta={{"num_examples": 1}}))
"""


@pytest.fixture
def team(cluster: Cluster, hub: Helm) -> Cluster:
    """The cluster, with the operator and three hospitals."""
    return cluster


@pytest.fixture
def authority(tmp_path: Path) -> certificates.Authority:
    """A company's own; its certificate is ca.crt in the test's folder."""
    return certificates.write(tmp_path)


@pytest.fixture
def store(
    team: Cluster, namespace: str, images: Images, pod: Callable[..., Any], authority: Any, tmp_path: Path
) -> str:
    """Name of an HTTPS server that gives a number, with a certificate by that authority."""
    host = f"store.{namespace}.svc"
    authority.issue(tmp_path, "store", (host,))
    pem = (tmp_path / "store.key").read_text() + (tmp_path / "store.crt").read_text()
    pod("store", images.runtime, "python", "-c", STORE, pem, str(ARTIFACT))
    team.admin.create(SERVICE, namespace, "store", spec={"selector": {"app": "store"}, "ports": [{"port": 8443}]})
    until("the store to run", lambda: team.admin.get(POD, namespace, "store")["status"].get("phase") == "Running")
    return host


@pytest.fixture
def trusting(team: Cluster) -> Iterator[None]:
    """The site's policy names a ConfigMap of authorities, which is not there."""
    team.admin.patch(SITE_POLICY, TEAM, "default", {"spec": {"caBundle": {"configMap": BUNDLE}}})
    yield
    team.admin.patch(SITE_POLICY, TEAM, "default", {"spec": {"caBundle": None}})
    team.plane.kubectl("delete", "configmap", "--ignore-not-found", "--namespace", TEAM, BUNDLE)


@pytest.fixture
def send(team: Cluster) -> Iterator[Callable[[str, str], Submitted]]:
    """`kubectl apply` of a job of one hospital that fetches from a store; it is taken away with the test."""
    sent: list[str] = []

    def one(name: str, host: str) -> Submitted:
        sent.append(name)
        spec = {
            "workflow": {"rounds": ROUNDS},
            "trainer": {"files": {"train.py": SCRIPT.format(host=host)}},
            "sites": [{"name": HOSPITALS[0]}],
            "failurePolicy": {"siteRestarts": 0},
        }
        metadata = {"name": name}
        return federation.submit(
            team, {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": metadata, "spec": spec}
        )

    yield one
    team.plane.kubectl("delete", "federatedjobs", "--namespace", TEAM, *sent)


def message(job: Submitted) -> str:
    """What the job's status says of its hospital: reason and words."""
    [found] = job.raw.get("status", {}).get("sites") or [{}]
    return f"{found.get('reason', '')}: {found.get('message', '')}"


def test_a_script_reaches_what_a_private_authority_vouches_for_once_its_site_has_named_it(
    team: Cluster, send: Callable[[str, str], Submitted], store: str, trusting: None, tmp_path: Path
) -> None:
    """What is missing is told in turn, the ConfigMap and then its key, and the pod goes on by itself when both are there."""
    job = send("trusting", store)
    until("the missing ConfigMap to be named", lambda: f'configmap "{BUNDLE}" not found' in message(job))
    assert message(job).startswith("MountFailed: ")
    pem = (tmp_path / "ca.crt").read_text()
    team.admin.create(CONFIG_MAP, TEAM, BUNDLE, data={"company.pem": pem})
    until("the missing key to be named", lambda: "non-existent config key: ca.crt" in message(job))
    team.admin.patch(CONFIG_MAP, TEAM, BUNDLE, {"data": {"ca.crt": pem}})
    job.complete()
    assert np.all(load_file(job.run / "model.safetensors")["w"] == ARTIFACT + ROUNDS)


def test_without_it_the_scripts_last_words_say_what_is_not_trusted(
    send: Callable[[str, str], Submitted], store: str
) -> None:
    job = send("strange", store)
    until("the job to fail", lambda: job.condition("Failed")[0] == "True", federation.JOB_SECONDS)
    assert "CERTIFICATE_VERIFY_FAILED" in json.dumps(job.condition("Failed")), job.story()
