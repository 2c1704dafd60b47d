"""The real cluster of these tests: pods run, names and Services lead to them, volumes hold, and nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.kube import Kube, RefusedError, until
from cluster.real import busybox, cgroups, layout, network, power
from cluster.real import cluster as clusters
from cluster.real.cluster import Cluster, running
from cluster.real.images import Images
from fedjob_operator.names import POD, SERVICE, VOLUME_CLAIM

ROOT = Path(__file__).parents[3]


def test_a_pod_of_the_runtime_image_runs_where_pod_security_is_restricted(
    pod: Callable[..., Any], output: Callable[[str], str], images: Images
) -> None:
    code = "import fedjob, os, torch; print(os.getuid(), torch.ones(2).sum().item(), fedjob.__file__)"
    pod("hello", images.runtime, "python", "-c", code)
    assert output("hello").startswith("65532 2.0 /opt/venv/")


def test_the_operators_image_has_no_torch_and_no_pip(
    pod: Callable[..., Any], output: Callable[[str], str], images: Images
) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'grpc', 'pip') if u.find_spec(n)], u.find_spec('kopf') is not None)"
    pod("hello", images.operator, "python", "-c", code)
    assert output("hello") == "[] True\n"


def test_a_pod_that_pod_security_forbids_is_refused(admin: Kube, namespace: str) -> None:
    with pytest.raises(RefusedError, match="violates PodSecurity"):
        admin.create(POD, namespace, "root", spec={"containers": [{"name": "main", "image": busybox.NAME}]})


def test_a_service_leads_by_its_name_to_a_pod_which_serves_what_another_left_on_a_volume(
    admin: Kube, namespace: str, pod: Callable[..., Any], output: Callable[[str], str]
) -> None:
    """The claim is bound when its first pod has a node, and keeps what that pod wrote."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    admin.create(VOLUME_CLAIM, namespace, "state", spec=spec)
    pod("writer", busybox.NAME, "sh", "-c", "echo kept > /state/page", volumes={"/state": "state"})
    assert output("writer") == ""
    pod("web", busybox.NAME, "httpd", "-f", "-p", "8080", "-h", "/state", volumes={"/state": "state"})
    admin.create(
        SERVICE, namespace, "web", spec={"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    )
    asking = f"until wget -q -O - http://web.{namespace}.svc/page 2>/dev/null; do sleep 0.2; done"
    pod("reader", busybox.NAME, "sh", "-c", asking)
    assert output("reader") == "kept\n"


def test_two_clusters_run_side_by_side_and_reach_each_others_node_ports(
    cluster: Cluster, binaries: Path, admin: Kube, namespace: str, pod: Callable[..., Any]
) -> None:
    """A pod of the second cluster fetches a page from the first one; when the second is gone, nothing of it is left."""
    pod(
        "web",
        busybox.NAME,
        "sh",
        "-c",
        "mkdir -p /dev/shm/w && echo far > /dev/shm/w/page && httpd -f -p 8080 -h /dev/shm/w",
    )
    spec = {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    port = admin.create(SERVICE, namespace, "web", spec=spec)["spec"]["ports"][0]["nodePort"]
    with running("second", binaries) as second:
        asking = f"until wget -q -O - http://{cluster.nodes[0].address}:{port}/page 2>/dev/null; do sleep 0.2; done"
        arguments = ("run", "far", "--image", busybox.NAME, "--restart=Never", "--command", "--", "sh", "-c", asking)
        second.plane.kubectl(*arguments)

        def ended() -> bool:
            return bool(second.admin.get(POD, "default", "far")["status"].get("phase") == "Succeeded")

        until("the page from the other cluster", ended)
        assert second.plane.kubectl("logs", "far") == "far\n"
        place = second.layout
    assert _traces(place) == []
    assert admin.get(POD, namespace, "web")["status"]["phase"] == "Running"


def test_containerd_and_the_api_server_die_and_a_pod_runs_on(
    cluster: Cluster, admin: Kube, namespace: str, pod: Callable[..., Any]
) -> None:
    pod("runner", busybox.NAME)
    cluster.plane.kubectl("wait", "pod/runner", "--namespace", namespace, "--for=condition=Ready", "--timeout=60s")
    [node] = cluster.nodes
    before = cgroups.pids(node.namespace, admin.get(POD, namespace, "runner")["metadata"]["uid"])
    power.containerd_restart(cluster, node)
    power.api_server_stop(cluster)
    with pytest.raises(ConnectionError):
        admin.get(POD, namespace, "runner")
    power.api_server_start(cluster)
    asking = ("exec", "runner", "--namespace", namespace, "--", "echo", "here")
    assert cluster.plane.kubectl(*asking) == "here\n"
    seen = admin.get(POD, namespace, "runner")
    assert seen["status"]["containerStatuses"][0]["restartCount"] == 0
    assert cgroups.pids(node.namespace, seen["metadata"]["uid"]) == before


def _traces(place: layout.Layout) -> list[str]:
    """What is left of a cluster on this machine."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{place.folder}/" in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().replace("\0", " ")
        except OSError:
            continue
        if f"{place.folder}/" in words:
            found.append(words)
    for machine in place.machines:
        found += [name for name in network.namespaces() if name == machine.namespace]
        found += [str(path) for path in cgroups.MOUNT.glob(f"*/{machine.namespace}")]
    return found + [str(path) for path in (place.folder, Path(f"/sys/class/net/{place.wire}")) if path.exists()]


_CRASHING = """
import sys
from pathlib import Path
from cluster.real.cluster import running
with running("crash", Path(sys.argv[1])) as made:
    made.plane.kubectl("run", "sleeper", "--image", "localhost/busybox:1")
    made.plane.kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s")
    print("stands", flush=True)
    sys.stdin.read()
"""


def test_the_next_run_removes_what_a_killed_one_left(binaries: Path) -> None:
    rooms = (str(ROOT / room) for room in ("tests", "operator", "runtime"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(rooms)}
    command = [sys.executable, "-c", _CRASHING, str(binaries)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert run.stdout is not None
    assert run.stdout.readline() == b"stands\n"
    place = layout.find("crash")
    assert place is not None
    with pytest.raises(clusters.InUseError, match=f"in use by process {run.pid}"):
        clusters.down("crash")
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    assert _traces(place) != []
    clusters.sweep()
    assert _traces(place) == []
