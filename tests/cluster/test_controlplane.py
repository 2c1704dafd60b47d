"""The control plane of these tests: real controllers, real rights, a log of every call, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import controlplane
from cluster.controlplane import ADMIN, OPERATOR, ControlPlane
from cluster.kube import Kube, RefusedError, until
from fedjob_operator.names import CONFIG_MAP, JOB, POD

POD_SPEC: dict[str, Any] = {
    "restartPolicy": "Never",
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "main",
            "image": "example",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def test_the_job_controller_makes_a_pod_and_believes_what_is_written_of_it(admin: Kube, namespace: str) -> None:
    """The test is the kubelet: it writes the pod's status, and the Job becomes complete."""
    admin.create(JOB, namespace, "work", spec={"backoffLimit": 0, "template": {"spec": POD_SPEC}})
    pod = until("a pod", lambda: admin.list(POD, namespace))[0]
    admin.patch(POD, namespace, pod["metadata"]["name"], {"status": {"phase": "Succeeded"}}, "/status")

    def complete() -> bool:
        conditions = admin.get(JOB, namespace, "work")["status"].get("conditions") or ()
        return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)

    until("the Job to be complete", complete)


def test_what_an_object_owns_goes_with_it(admin: Kube, namespace: str) -> None:
    owner = admin.create(CONFIG_MAP, namespace, "owner")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    admin.create(CONFIG_MAP, namespace, "owned", metadata={"ownerReferences": [reference]})
    admin.delete(CONFIG_MAP, namespace, "owner")
    until("the owned object to go", lambda: admin.get(CONFIG_MAP, namespace, "owned") is None)


def test_a_pod_that_pod_security_forbids_is_refused(admin: Kube, namespace: str) -> None:
    with pytest.raises(RefusedError, match="violates PodSecurity"):
        admin.create(POD, namespace, "root", spec={"containers": [{"name": "main", "image": "example"}]})


def test_a_user_has_no_rights_but_those_that_are_given_and_every_call_is_logged(
    plane: ControlPlane, namespace: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        plane.user(ADMIN, as_user="somebody").create(CONFIG_MAP, namespace, "a")
    assert refused.value.code == 403
    with pytest.raises(RefusedError) as refused:
        plane.user(OPERATOR).create(
            POD, namespace, "a"
        )  # which no role of the operator's allows, whatever test gave it one
    assert refused.value.code == 403
    mine = [event for event in plane.audit("operator") if event.get("objectRef", {}).get("namespace") == namespace]
    assert [(event["verb"], event["responseStatus"]["code"]) for event in mine] == [("create", 403)]


_CRASHING = """
import sys
from pathlib import Path
from cluster.controlplane import control_plane
with control_plane(Path(sys.argv[1])) as plane:
    print(plane.folder, *[process.pid for process in plane.processes.started], flush=True)
    sys.stdin.read()
"""


def _runs(pid: str) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_a_run_that_is_killed_leaves_no_process_and_the_next_one_sweeps_its_folder(plane: ControlPlane) -> None:
    tests, operator, runtime = (str(Path(__file__).parents[2] / room) for room in ("tests", "operator", "runtime"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((tests, operator, runtime))}
    command = [sys.executable, "-c", _CRASHING, str(plane.binaries)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert run.stdout is not None
    folder, *pids = run.stdout.readline().decode().split()
    assert len(pids) == 3
    assert all(_runs(pid) for pid in pids)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    until("its processes to end", lambda: not any(_runs(pid) for pid in pids))
    assert Path(folder).exists()
    controlplane.sweep()
    assert not Path(folder).exists()
    assert plane.folder.exists()
