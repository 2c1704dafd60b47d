"""Series as Prometheus reads them, from a server's and a client's state."""

from __future__ import annotations

import logging
import socket
import urllib.request
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fedjob import metrics
from fedjob.records import Condition, JobRef, Progress, RoundRecord, SiteRound, SiteStatus, Status
from fedjob.roster import Site
from fedjob.tally import ClientTally, ServerTally

STATUS = Status(
    JobRef("digits", "uid", 2),
    state="Running",
    conditions=(Condition("DiskFull", "NoSpace"),),
    progress=Progress(3, 3, 10, 12.5, 40.0, 280.0),
    sites=(SiteStatus("a", "Training"), SiteStatus("b", "Lost")),
)


def server() -> metrics.ServerSeries:
    tally = ServerTally()
    tally.complete(
        RoundRecord(0, phases={"train": 2.0}, metrics={"loss": 0.5}, sites={"a": SiteRound(metrics={"loss": 0.5})})
    )
    tally.bytes_up["a"] += 10
    tally.judged("b", False, "NotFinite")
    tally.logged.take("a", {"lr": 0.1})
    sites = [Site("a", push=lambda _: None), Site("b")]
    return metrics.ServerSeries("digits", lambda: STATUS, lambda: sites, tally, 3600.0, lambda: 2e9)


def client() -> metrics.ClientSeries:
    tally = ClientTally(bytes_up=7, chunks_up_again=1, connections=2, round=4)
    tally.phases["train"].add(3.0)
    tally.judged(False, "PastRound")
    tally.scores.take("a", {"loss": 0.5})
    return metrics.ClientSeries("digits", "a", tally, lambda: True, lambda: 0.0)


def read(series: Any) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(series)
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = [f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "federated_job"]
            assert sample.labels["federated_job"] == "digits"
            found[(sample.name, *labels)] = sample.value
    return found


def test_the_servers_series() -> None:
    found = read(server())
    assert found["fedjob_server_state", "state=Running"] == 1
    assert found["fedjob_server_state", "state=Failed"] == 0
    assert found["fedjob_server_round",] == 3
    assert found["fedjob_server_rounds_target",] == 10
    assert found["fedjob_server_round_elapsed_seconds",] == 12.5
    assert found["fedjob_server_eta_seconds",] == 280
    assert found["fedjob_server_attempt",] == 2
    assert found["fedjob_server_condition", "reason=NoSpace", "type=DiskFull"] == 1
    assert found["fedjob_server_sites", "state=Training"] == 1
    assert found["fedjob_server_sites", "state=Refused"] == 0
    assert found["fedjob_server_site_connected", "site=a"] == 1
    assert found["fedjob_server_site_connected", "site=b"] == 0
    assert found["fedjob_server_site_state", "site=b", "state=Lost"] == 1
    assert found["fedjob_server_bytes_total", "direction=up", "site=a"] == 10
    assert found["fedjob_server_updates_total", "result=NotFinite", "site=b"] == 1
    assert found["fedjob_server_rounds_total", "kind=Train"] == 1
    assert found["fedjob_server_round_phase_seconds_sum", "phase=train"] == 2
    assert found["fedjob_server_metric", "name=loss"] == 0.5
    assert found["fedjob_server_site_metric", "name=loss", "site=a"] == 0.5
    assert found["fedjob_server_logged_value", "name=lr", "site=a"] == 0.1
    assert found["fedjob_server_metrics_dropped_total",] == 0
    assert found["fedjob_server_certificate_not_after_timestamp_seconds",] == 2e9


def test_the_clients_series() -> None:
    found = {key: value for key, value in read(client()).items() if "site=a" in key}
    assert found["fedjob_client_connected", "site=a"] == 1
    assert found["fedjob_client_connections_total", "site=a"] == 2
    assert found["fedjob_client_round", "site=a"] == 4
    assert found["fedjob_client_bytes_total", "direction=up", "site=a"] == 7
    assert found["fedjob_client_chunks_again_total", "direction=up", "site=a"] == 1
    assert found["fedjob_client_updates_total", "result=PastRound", "site=a"] == 1
    assert found["fedjob_client_phase_seconds_sum", "phase=train", "site=a"] == 3
    assert found["fedjob_client_metric", "name=loss", "site=a"] == 0.5
    assert ("fedjob_client_certificate_not_after_timestamp_seconds", "site=a") not in found  # it could not be read


def test_every_address_is_of_both_versions() -> None:
    with socket.socket() as s:
        s.bind(("", 0))
        port = s.getsockname()[1]
    metrics.serve(f"[::]:{port}", client())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"fedjob_client_connected" in answer.read()


def test_they_are_served_with_those_of_the_process_and_a_taken_port_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    metrics.serve(address, client())
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert "fedjob_client_connected" in text
    assert "process_resident_memory_bytes" in text
    with caplog.at_level(logging.WARNING):
        metrics.serve(address, client())
    assert f"no metrics at {address}" in caplog.text
