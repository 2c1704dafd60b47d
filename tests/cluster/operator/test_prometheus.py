"""A real Prometheus scrapes the operator, and a server and clients of a real local run: what it reads is what happened.

Every family of the page reaches it. The values compared are those that follow from the run; those of all series of the operator are
in tests/operator/test_metrics_values.py, of jobs' processes in tests/runtime/test_metrics.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.kube import Kube
from cluster.prometheus import ROOT, Prometheus, fixed, listed, prometheus
from fedjob.records import RoundRecord, read_history
from fedjob_operator import names
from fedjob_operator.names import SERVER

pytestmark = pytest.mark.measure("C3")

# Two rounds; in the third of four, b waits for as long as a file is there. In the second, b sends what is no number.
SCRIPT = """
import os
import time
from pathlib import Path
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(500_000, np.float32)})
site = fedjob.get_site_name()
folder = os.environ["WATCHED"]
while fedjob.is_running():
    model = fedjob.receive()
    if site == "b" and model.current_round == 2:
        Path(folder, "trains").touch()
        while Path(folder, "hold").exists():
            time.sleep(0.01)
    w = model.params["w"] + (np.nan if site == "b" and model.current_round == 1 else 1)
    fedjob.log("lr", 0.1)
    fedjob.send(fedjob.FLModel(params={"w": w}, metrics={"accuracy": model.current_round / 10}))
"""
JOB = {
    "apiVersion": names.API_VERSION,
    "kind": "FederatedJob",
    "metadata": {"name": "watched"},
    "spec": {
        "workflow": {"rounds": 4, "quorum": 1},
        "trainer": {"command": ["python", "train.py"]},
        "sites": [{"name": "a"}, {"name": "b"}],
    },
}


@pytest.fixture
def run_folder(tmp_path: Path, until: Any) -> Iterator[Path]:
    """The folder of a local run whose site b trains in the third round."""
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "job.yaml").write_text(json.dumps(JOB))
    (tmp_path / "hold").touch()
    command = [sys.executable, "-m", "fedjob.cli.main", "run", "job.yaml", "--metrics"]
    with (tmp_path / "output").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=out,
            stderr=out,
            env={**os.environ, "OMP_NUM_THREADS": "1", "WATCHED": str(tmp_path)},
        )
    folder = tmp_path / "runs" / "watched-01"
    until("b to train in round 2", lambda: (tmp_path / "trains").exists() or process.poll() is not None)
    yield folder
    (tmp_path / "hold").unlink()
    assert process.wait(60) == 0, (tmp_path / "output").read_text()


def test_every_family_reaches_prometheus_and_what_follows_from_the_run_has_its_value(
    start_operator: Callable[..., Any], submit: Any, kubelet: Any, admin: Kube, run_folder: Path, tmp_path: Path,
    until: Any, measured: Callable[..., None],
) -> None:  # fmt: skip
    operator, job = start_operator(), submit("digits")
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    admin.patch(
        names.FEDERATED_JOB, job.namespace, "digits", {"status": {"progress": {"completedRounds": 2}}}, "/status"
    )
    targets = run_folder / "targets.json"
    with prometheus(tmp_path, fixed(f"127.0.0.1:{operator.metrics}"), listed(targets)) as watching:
        until("four targets", lambda: sum(watching.query("up").values()) == 4)
        of_the_operator(watching, job.namespace, until)
        of_the_run(watching, read_history(run_folder / "history.jsonl"), until)
        page = set(re.findall(r"^\| `(fedjob_[a-z_]+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M))
        told = watching.known()
        missing = {name for name in page if name not in told and name.removesuffix("_total") not in told}  # by format
        measured(
            len(page - missing), "families", f"{len(page)} that the page names", not missing, missing=sorted(missing)
        )
        assert missing == set()
        assert watching.firing(job.namespace) == {}
        on_the_dashboard(watching, until)


def on_the_dashboard(watching: Prometheus, until: Any) -> None:
    """Every panel has something to show."""
    board = json.loads((ROOT / "charts" / "fedjob" / "files" / "dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__range", "1m").replace("$namespace", ".*").replace("$job", ".*")
            until(f"data for {panel['title']}", lambda q=query: watching.query(q))


def of_the_operator(watching: Prometheus, namespace: str, until: Any) -> None:
    """What the operator says of itself and of the job."""
    assert watching.query("fedjob_operator_leader") == {(): 1}
    mine = f'{{namespace="{namespace}", federated_job="digits"}}'
    until("the round", lambda: watching.query(f"fedjob_job_round{mine}") == {("digits", namespace): 2})
    assert watching.query(f"fedjob_job_rounds_target{mine}") == {("digits", namespace): 3}
    assert watching.query(f'fedjob_job_condition{{namespace="{namespace}", type="ServerReady"}}') == {
        ("digits", namespace, "Ready", "True", "ServerReady"): 1
    }
    assert watching.query(f'sum(fedjob_jobs{{namespace="{namespace}"}})') == {(): 1}
    assert watching.query('fedjob_reconcile_total{controller="hub", result=~"success|requeue"} > 0')
    assert watching.query('sum(fedjob_api_requests_total{code=~"403|422|5.."}) or vector(0)') == {(): 0}
    [left] = watching.query('fedjob_certificate_not_after_timestamp_seconds{role="hub"} - time()').values()
    assert 6.5 * 86400 < left < 7 * 86400


def of_the_run(watching: Prometheus, history: list[RoundRecord], until: Any) -> None:
    """What the server and the clients of the run say, beside what the run has written."""
    until("b to train", lambda: watching.query('fedjob_server_site_state{site="b", state="Training"}'))
    query = watching.query
    assert len(history) == 2
    assert query("fedjob_server_round") == {("watched", "server"): 2}
    assert query("fedjob_server_completed_rounds") == {("watched", "server"): 2}
    assert query("fedjob_server_last_round_seconds") == {("watched", "server"): history[-1].seconds}
    assert query('fedjob_server_metric{name="accuracy"}') == {("watched", "accuracy", "server"): 0.1}
    assert query("fedjob_server_site_metric") == {
        ("watched", "accuracy", "server", "a"): 0.1, ("watched", "accuracy", "server", "b"): 0.0,
    }  # fmt: skip
    assert query('fedjob_server_updates_total{result="NotFinite"}') == {("watched", "server", "NotFinite", "b"): 1}
    assert query('fedjob_server_missing_total{site="b"}') == {("watched", "server", "NotFinite", "b"): 1}
    for way in ("up", "down"):
        of = f'bytes_total{{direction="{way}"}}'
        until(
            f"the same bytes {way} at both ends",
            lambda of=of: query(f"sum by (site) (fedjob_server_{of})") == query(f"sum by (site) (fedjob_client_{of})"),
        )
        assert query(f"sum by (site) (fedjob_server_{of})")["b",] > 2 * 2_000_000
    assert query("sum(fedjob_client_connected)") == {(): 2}
    assert query('fedjob_client_phase_seconds_count{phase="train", site="b"}') == {("watched", "train", "b", "b"): 2}
    assert query("min(process_resident_memory_bytes) > 1e7")


def test_an_alert_reaches_whoever_is_on_call(
    start_operator: Callable[..., Any], submit: Any, kubelet: Any, tmp_path: Path, until: Any
) -> None:
    operator, job = start_operator(), submit("digits", failurePolicy={"serverRestarts": 0})
    kubelet.end(kubelet.run(SERVER, 1)[0], 1, '{"reason": "QuorumNotMet", "message": "round 0"}')
    job.wait("Failed", "True", "QuorumNotMet")
    with prometheus(tmp_path, fixed(f"127.0.0.1:{operator.metrics}")) as watching:
        found = until("the alert", lambda: watching.firing(job.namespace).get("FedjobJobFailed"))
        assert found == f"Job {job.namespace}/digits has failed: QuorumNotMet."
