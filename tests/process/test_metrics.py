"""What a job's processes tell Prometheus, while it runs: the values are those of the run's own records."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedjob import config
from fedjob.model import FLModel
from fedjob.tally import MAX_NAMES

if TYPE_CHECKING:
    from conftest import Job, Started

# Round 0: a logs too many names. Round 1: b sends NaN. Round 2: b trains for as long as a file is there.
SCRIPT = """
import time
from pathlib import Path
import numpy as np
import fedjob

fedjob.init({"w": np.zeros(1_000_000, np.float32)})
site = fedjob.get_site_name()
while fedjob.is_running():
    model = fedjob.receive()
    if site == "a" and model.current_round == 0:
        for i in range(70):
            fedjob.log(f"value-{i}", i)
    if site == "b" and model.current_round == 2:
        Path("trains").touch()
        while Path("hold").exists():
            time.sleep(0.002)
    w = model.params["w"] + 1
    if site == "b" and model.current_round == 1:
        w[7] = np.nan
    fedjob.send(fedjob.FLModel(params={"w": w}, metrics={"loss": 1.0 / (model.current_round + 1)}))
"""

Samples = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def watched(shared_job: Callable[..., Job]) -> Any:
    """A run in whose round 2 site a has answered and site b trains; then it ends."""
    job = shared_job(SCRIPT, "ab", workflow={"rounds": 3, "quorum": 1})
    (job / "hold").touch()
    run = job.start("--metrics")
    yield run
    (job / "hold").unlink(missing_ok=True)
    assert run.wait() == 0, run.story()


def scrape(run: Started, process: str) -> Samples:
    """Series of a process: (name, values of the labels besides the job's name) -> value."""
    targets = json.loads((run.folder / "targets.json").read_text())
    address = next(t["targets"][0] for t in targets if t["labels"]["process"] == process)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("federated_job",)}
            found[(sample.name, *(value for _, value in sorted(labels.items())))] = sample.value
    return found


@pytest.fixture
def round_two(watched: Started, until: Callable[..., Any]) -> Started:
    until(lambda: (watched.job / "trains").exists() and watched.is_held(2, "b", "a"))
    return watched


def test_the_servers_numbers_are_those_of_the_history(round_two: Started) -> None:
    seen, history = scrape(round_two, "server"), round_two.history
    assert seen["fedjob_server_state", "Running"] == 1
    assert (seen["fedjob_server_round",], seen["fedjob_server_completed_rounds",]) == (2, 2)
    assert seen["fedjob_server_rounds_target",] == 3
    assert seen["fedjob_server_rounds_total", "Train"] == 2
    assert seen["fedjob_server_last_round_seconds",] == history[-1].seconds
    train = sum(r.phases["train"] for r in history)
    assert seen["fedjob_server_round_phase_seconds_sum", "train"] == pytest.approx(train)
    assert seen["fedjob_server_metric", "loss"] == history[-1].metrics["loss"] == 0.5
    assert seen["fedjob_server_site_metric", "loss", "a"] == 0.5
    assert seen["fedjob_server_updates_total", "Accepted", "a"] >= 3  # a's third may be judged, and its offer was
    assert seen["fedjob_server_updates_total", "NotFinite", "b"] == 1
    assert seen["fedjob_server_missing_total", "NotFinite", "b"] == 1
    assert seen["fedjob_server_site_connected", "a"] == seen["fedjob_server_site_connected", "b"] == 1
    assert seen["fedjob_server_site_state", "b", "Training"] == 1
    assert seen["fedjob_server_sites", "Training"] == 1
    assert seen["fedjob_server_chunks_again_total", "a"] == 0
    model = 4_000_000
    assert model * 4 < seen["fedjob_server_bytes_total", "up", "a"] < model * 4.01  # an offer, three answers
    assert model * 3 < seen["fedjob_server_bytes_total", "down", "b"] < model * 3.01
    assert seen["process_resident_memory_bytes",] > seen["fedjob_server_anonymous_memory_bytes",] > 1e7
    assert seen["fedjob_server_certificate_not_after_timestamp_seconds",] > round_two.status["updatedAt"]


def test_names_beyond_the_bound_are_counted_and_not_kept(round_two: Started) -> None:
    seen = scrape(round_two, "server")
    assert len([key for key in seen if key[0] == "fedjob_server_logged_value"]) == MAX_NAMES
    assert seen["fedjob_server_metrics_dropped_total",] == 70 - MAX_NAMES


def test_a_site_tells_the_same_of_itself(round_two: Started) -> None:
    server, seen = scrape(round_two, "server"), scrape(round_two, "b")
    assert seen["fedjob_client_connected", "b"] == 1
    assert seen["fedjob_client_round", "b"] == 2
    assert seen["fedjob_client_connections_total", "b"] == 1
    assert seen["fedjob_client_updates_total", "NotFinite", "b"] == 1
    assert seen["fedjob_client_updates_total", "Accepted", "b"] == 1
    assert seen["fedjob_client_metric", "loss", "b"] == 0.5
    assert seen["fedjob_client_phase_seconds_count", "train", "b"] == 2
    for way in ("up", "down"):
        assert seen["fedjob_client_bytes_total", way, "b"] == server["fedjob_server_bytes_total", way, "b"]
        assert seen["fedjob_client_chunks_again_total", way, "b"] == 0


def test_without_the_option_nothing_listens(new_job: Callable[..., Job]) -> None:
    run = new_job(SCRIPT, "ab", workflow={"rounds": 1, "quorum": 1}).run()
    assert not (run.folder / "targets.json").exists()


def test_as_in_a_pod_the_servers_log_is_json_and_says_whose_line_it_is(host: Callable[..., Any], until: Any) -> None:
    def as_in_a_pod(run: Any) -> None:
        path = run.keys / "server.json"
        config.write(path, config.read_server(path).model_copy(update={"log": "json"}))

    server = host("ab", as_in_a_pod, workflow={"rounds": 2, "quorum": 1})
    a = server.puppet("a")
    a.offer({"w": np.zeros(4, np.float32)})
    task = a.task("Train", 0)
    refused = a.answer(task, FLModel(params={"w": np.full(4, np.nan, np.float32)}, params_type="FULL"))
    assert refused.reason == "NotFinite"
    lines = until(lambda: [json.loads(line) for line in server.log("server").splitlines() if "NotFinite" in line])
    assert lines[0]["level"] == "WARNING"
    assert {key: lines[0][key] for key in ("job", "site", "round", "attempt")} == {
        "job": "job", "site": "a", "round": 0, "attempt": 1,
    }  # fmt: skip


LOGS = """
import numpy as np, fedjob
fedjob.init({"w": np.ones(3, np.float32)})
while fedjob.is_running():
    fedjob.receive()
    for i in range(200): fedjob.log("before", i, step=i)
    fedjob.send(fedjob.FLModel(params={"w": np.ones(3, np.float32)}))
for i in range(1000): fedjob.log("after", i, step=i)
"""


def test_all_that_is_logged_before_a_script_ends_arrives(new_job: Callable[..., Job]) -> None:
    """Before the last answer and after the loop: the server reads on until the sites hang up."""
    started = new_job(LOGS, ["a", "b"], workflow={"rounds": 2}).run()
    values = [json.loads(line) for line in (started.folder / "metrics.jsonl").read_text().splitlines()]
    assert Counter((v["site"], v["key"]) for v in values) == {
        (site, key): count for site in "ab" for key, count in (("before", 400), ("after", 1000))
    }
