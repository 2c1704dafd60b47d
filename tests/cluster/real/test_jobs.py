"""The promise of the project, on real kubelets: a job applied to a cluster gives the model that `fedjob run` gives, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

from cluster.helm import ROOT, Helm
from cluster.real import busybox, federation
from cluster.real.cluster import Cluster
from cluster.real.federation import TEAM
from cluster.real.images import Images
from fedjob_operator import names

ROUNDS = 10


@pytest.fixture
def team(cluster: Cluster, hub: Helm) -> Cluster:
    """The cluster, with the operator and three hospitals."""
    return cluster


@pytest.mark.measure("C1")
def test_the_file_of_the_example_gives_the_same_bytes_to_kubectl_under_restricted_pod_security_and_to_a_local_run(
    team: Cluster, tmp_path: Path
) -> None:
    expected = federation.local_model(federation.EXAMPLE, tmp_path)
    job = federation.applied(team, federation.EXAMPLE)
    job.complete()
    assert job.completed_rounds == ROUNDS
    assert job.model() == expected


DATA = """
import os
from pathlib import Path
import numpy as np
import fedjob

folder = Path(os.environ["FEDJOB_DATA"])
assert os.listdir(folder) == ["value"], os.listdir(folder)
value = np.float32((folder / "value").read_text())
try:
    (folder / "more").touch()
    raise SystemExit("the data of the site can be written")
except OSError as e:
    print(e, flush=True)
fedjob.init({"w": np.zeros(2, np.float32)})
while fedjob.is_running():
    fedjob.send(fedjob.FLModel(params={"w": fedjob.receive().params["w"] + value}))
"""


def test_a_script_reads_the_part_of_the_sites_claim_that_its_policy_names_and_cannot_write_there(
    team: Cluster, hub: Helm, images: Images, namespace: str, pod: Callable[..., Any], output: Callable[[str], str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """The claim is one of the site's chart; beside the part that is named lies another, which the script does not see."""
    rule = {"name": "all", "images": [{"repository": images.runtime.rpartition(":")[0]}], "inlineCode": "Allow"}
    values = {
        "site": {"name": "archive"},
        "hub": {"register": True, "allowedNamespaces": [TEAM]},
        "policy": {"rules": [{**rule, "approval": "Automatic"}]},
        "data": [{"name": "values", "claim": "archive-2026", "subPath": "v1/open"}],
        "claims": [{"name": "archive-2026", "size": "1Mi"}],
    }  # fmt: skip
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(values))
    chart = str(ROOT / "charts" / "fedjob-site")
    hub.run("install", "archive", chart, "--namespace", namespace, "--values", str(tmp_path / "site.yaml"))
    write = "mkdir -p /claim/v1/open && echo 7 > /claim/v1/open/value && echo 8 > /claim/v1/closed"
    pod("writer", busybox.NAME, "sh", "-c", write, volumes={"/claim": "archive-2026"})
    output("writer")
    spec = {
        "workflow": {"rounds": 2},
        "trainer": {"files": {"train.py": DATA}},
        "sites": [{"name": "archive", "data": "values"}],
    }
    metadata = {"name": "reads-data"}
    job = federation.submit(
        team, {"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": metadata, "spec": spec}
    )
    job.complete()
    assert load_file(job.run / "model.safetensors")["w"].tolist() == [14.0, 14.0]
