"""The `fedjob` command with real kubelets: a job sent, followed, and brought home, through pods that really run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from cluster.helm import Helm
from cluster.kube import Kube, until
from cluster.real.cluster import Cluster
from cluster.real.federation import HOSPITALS, JOB_SECONDS, TEAM, Submitted
from cluster.real.held import HOLD, release
from fedjob_operator import names

ROUNDS = 20
SCRIPT = f"""
import numpy as np
import fedjob
{HOLD}
with fedjob.init({{"w": np.zeros(300_000, np.float32)}}):
    print("begins at", fedjob.get_site_name(), flush=True)
    while fedjob.is_running():
        model = fedjob.receive()
        params = {{"w": model.params["w"] + np.float32(1)}}
        if model.current_round == {ROUNDS - 1} and fedjob.get_site_name() == "{HOSPITALS[0]}":
            hold()
        score = float(params["w"][0]) / {ROUNDS}
        fedjob.send(fedjob.FLModel(params=params, metrics={{"score": score}}, meta={{"num_examples": 1}}))
print("ends", flush=True)
"""


class Command:
    """The command, in a folder with a job file and its script."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        spec = {
            "workflow": {"rounds": ROUNDS},
            "trainer": {"command": ["python", "train.py"]},
            "sites": [{"name": name} for name in HOSPITALS],
        }
        metadata = {"name": "by-hand"}
        document = {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": metadata, "spec": spec}
        (folder / "job.yaml").write_text(json.dumps(document))
        (folder / "train.py").write_text(SCRIPT)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """In the background."""
        place = ["--kubeconfig", str(self._cluster.kubeconfig), "-n", TEAM]
        command = [sys.executable, "-m", "fedjob.cli.main", *words, *place]
        return subprocess.Popen(command, cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str) -> str:
        """What it prints, once it has ended well."""
        with self.start(*words) as process:
            out, said = process.communicate(timeout=JOB_SECONDS)
        assert process.returncode == 0, f"{words}: {process.returncode}: {out}{said}"
        return out


@pytest.fixture
def command(cluster: Cluster, hub: Helm, tmp_path: Path) -> Command:
    """The command against the cluster, on which fedjob is installed and hospitals are registered."""
    return Command(cluster, tmp_path)


def readers(kube: Kube) -> list[Any]:
    """Pods that were made to read a volume."""
    return kube.list(names.POD, TEAM, f"{names.ROLE_LABEL}=reader")


def test_a_job_is_sent_followed_and_brought_home(command: Command, cluster: Cluster, tmp_path: Path) -> None:
    assert "code   train.py" in command.run("submit", "job.yaml")
    job = Submitted(cluster, "by-hand")
    job.round_reached(ROUNDS - 1)
    with command.start("logs", "by-hand", "-f") as following:
        assert command.run("report", "by-hand") == "by-hand.html\n"
        assert "score" in (tmp_path / "by-hand.html").read_text()
        assert readers(cluster.admin) == [], "while the server lives, it is read there"
        release(job)
        assert command.run("status", "by-hand", "--wait", "--timeout", "5m") == ""
        followed, said = following.communicate(timeout=60)
    assert following.returncode == 0, said
    lines = {tuple(line.split(maxsplit=1)) for line in followed.splitlines()}
    assert {(name, f"begins at {name}") for name in HOSPITALS} <= lines
    assert {(name, "ends") for name in HOSPITALS} <= lines
    assert any(source == "server" and "complete" in text for source, text in lines)
    assert len(command.run("logs", "by-hand", "--server", "--tail", "3").splitlines()) == 3

    assert command.run("download", "by-hand", "-o", "model.safetensors") == "model.safetensors\n"
    assert load_file(tmp_path / "model.safetensors")["w"].tolist() == [float(ROUNDS)] * 300_000
    until("the reader to be gone", lambda: not readers(cluster.admin))
    command.run("report", "by-hand", "-o", "end.html")
    assert f"{ROUNDS} of {ROUNDS}" in (tmp_path / "end.html").read_text()
    command.run("cancel", "by-hand", "--yes")
    until("the job to be gone", lambda: cluster.admin.get(names.FEDERATED_JOB, TEAM, "by-hand") is None)
