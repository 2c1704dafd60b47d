"""`fedjob download` and `fedjob report`: what a job has left on its server's volume."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.kubelet_port import KubeletPort
from cluster.operator.cli.conftest import CLI_SECONDS, COMPLETE, Fedjob, place, started
from fedjob.records import HISTORY_FILE, STATUS_FILE, FinalModel, JobRef, RoundRecord, Status, append, write_status
from fedjob.stored import file_digest
from fedjob_operator import names
from fedjob_operator.names import SERVER

pytestmark = pytest.mark.timeout(CLI_SECONDS)


@pytest.fixture
def volume(tmp_path: Path, node: KubeletPort) -> Path:
    """What the server has left on its volume: a run folder with a model of a megabyte."""
    folder = tmp_path / "volume"
    run = folder / "run"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(random.Random(7).randbytes(1_000_003))
    append(run / HISTORY_FILE, RoundRecord(0, contributors=("a",), metrics={"accuracy": 0.75}))
    model = FinalModel(file_digest(run / "model.safetensors"), 1_000_003)
    write_status(
        run / STATUS_FILE, Status(job=JobRef("digits"), state="Complete", metrics={"accuracy": 0.75}, model=model)
    )
    node.folders[names.STATE_FOLDER] = folder
    return folder


def finished(kubelet: Any, admin: Any, job: Any, namespace: str, digest: str) -> None:
    """The job is complete, and its server has told of its model."""
    kubelet.end(kubelet.run(SERVER, 1)[0], 0, COMPLETE)
    job.wait("Complete", "True", "RoundsCompleted")
    status = {"model": {"digest": digest, "size": 1_000_003}}
    admin.patch(names.FEDERATED_JOB, namespace, job.name, {"status": status}, "/status")


class Hands:
    """Lets every pod that reads a volume run, as scheduler and kubelet would. `pods`: those that there were."""

    def __init__(self, admin: Any, namespace: str) -> None:
        self.pods: list[Any] = []
        self._admin, self._namespace = admin, namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Hands:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.2):
            for pod in self._admin.list(names.POD, self._namespace, f"{names.ROLE_LABEL}=reader"):
                if pod["metadata"]["uid"] not in [known["metadata"]["uid"] for known in self.pods]:
                    self.pods.append(pod)
                    place(self._admin, self._namespace, pod, "reader")


def test_a_model_is_downloaded_from_the_volume_of_a_job_that_is_over_however_often_the_stream_is_cut(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, node: KubeletPort, volume: Path,
    namespace: str, tmp_path: Path,
) -> None:  # fmt: skip
    tolerated = {"key": "example.com/pool", "operator": "Exists"}
    allowed = {"nodeLabels": {"example.com/pool": ["servers"]}, "tolerations": [tolerated]}
    start_operator("--image-pull-secrets", "registry", "--server-bounds", json.dumps(allowed))
    there = {"nodeSelector": {"example.com/pool": "servers"}, "tolerations": [tolerated]}
    job, model = submit(server={"scheduling": there}), volume / "run" / "model.safetensors"
    finished(kubelet, admin, job, namespace, file_digest(model))
    node.cut_after = [300_000, 5, 400_000]
    with Hands(admin, namespace) as hands:
        done = fedjob("download", "digits", "-o", "got.safetensors")
    assert done.stdout == "got.safetensors\n"
    assert (tmp_path / "got.safetensors").read_bytes() == model.read_bytes()
    assert not list(tmp_path.glob(".*.part"))
    offsets = [int(command[-1]) for command in node.commands]
    assert offsets == [0, 299_992, 299_992, 699_984]
    (pod,) = hands.pods
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["nodeSelector"] == there["nodeSelector"]
    assert tolerated in pod["spec"]["tolerations"]
    (mounted,) = pod["spec"]["volumes"]
    assert mounted["persistentVolumeClaim"]["readOnly"] is True
    assert pod["metadata"]["ownerReferences"][0]["uid"] == job.raw["metadata"]["uid"]
    left = admin.list(names.POD, namespace, f"{names.ROLE_LABEL}=reader")
    assert [p["metadata"]["name"] for p in left if "deletionTimestamp" not in p["metadata"]] == []
    assert fedjob("download", "digits", "-o", "got.safetensors").stderr == "got.safetensors is this model already\n"
    (tmp_path / "got.safetensors").write_bytes(b"mine")
    assert "--force" in fedjob("download", "digits", "-o", "got.safetensors", code=2).stderr


def test_a_model_that_is_not_the_one_of_the_status_is_thrown_away(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, node: KubeletPort, volume: Path,
    namespace: str, tmp_path: Path,
) -> None:  # fmt: skip
    start_operator()
    finished(kubelet, admin, submit(), namespace, "0" * 64)
    with Hands(admin, namespace):
        refused = fedjob("download", "digits", code=3)
    assert "the job's status says " + "0" * 64 in refused.stderr
    assert not list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob(".*.part"))


def test_a_report_is_built_from_the_volume_of_a_server_that_lives(
    admin: Any, start_operator: Any, submit: Any, kubelet: Any, scientist: Any, fedjob: Fedjob, node: KubeletPort, volume: Path,
    namespace: str, tmp_path: Path,
) -> None:  # fmt: skip
    start_operator()
    started(admin, kubelet, submit(), namespace)
    assert fedjob("report", "digits").stdout == "digits.html\n"
    page = (tmp_path / "digits.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "0.75" in page
    assert admin.list(names.POD, namespace, f"{names.ROLE_LABEL}=reader") == []
