"""The value of every series of the operator, and that the page of metrics names no other."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from platform import python_version
from typing import Any

from fedjob.version import __version__
from fedjob_operator import names
from fedjob_operator.metrics import Metrics, QueueGauges
from fedjob_operator.observed import Certificate
from fedjob_operator.store import Store
from fedjob_operator.trust import Authorities, Life

NOW = datetime.now(UTC)
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def put(store: Store, kind: names.Kind, name: str, spec: dict[str, Any], status: dict[str, Any] | None = None) -> None:
    """An object as the watch tells it."""
    metadata = {"name": name, "namespace": "n", "uid": name, "resourceVersion": "1"}
    raw = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}
    store.see(kind.name, {**raw, "status": status or {}})


def a_cluster() -> Store:
    """Two jobs, one of them never looked at, and two sites."""
    store = Store()
    status = {
        "state": "Training", "attempt": 2, "server": {"restarts": 3}, "progress": {"completedRounds": 4},
        "conditions": [{"type": "Failed", "status": "False", "reason": "NotFinished"}],
        "sites": [{"name": "a", "state": "Running"}, {"name": "b", "state": "Running"}, {"name": "c", "state": "Failed"}],
    }  # fmt: skip
    put(store, names.FEDERATED_JOB, "digits", {"sites": [], "workflow": {"rounds": 9}}, status)
    put(store, names.FEDERATED_JOB, "other", {"sites": [], "workflow": {"rounds": 1}})
    put(store, names.FEDERATED_SITE, "a", {"approved": True})
    put(store, names.FEDERATED_SITE, "b", {})
    for name, who, days in (("s1", "server", 3), ("s2", "server", 2), ("c1", "site/a", 1), ("c2", "site/b", 4)):
        end = NOW + timedelta(days=days)
        store.certificates[("n", name)] = Certificate(NOW, end, (), f"spiffe://d/job/u/{who}", "", "")
    return store


def what_happens(metrics: Metrics) -> None:
    """Each series is touched, with a number of its own where it may have one."""
    metrics.leader.set(1)
    metrics.passes.labels("hub", "success").inc(2)
    metrics.pass_seconds.labels("hub").observe(0.2)
    metrics.panics.labels("site").inc()
    queue = QueueGauges(metrics)
    for _ in range(3):
        queue.added()
    for _ in range(4):
        queue.retried()
    queue.waited(6.0)
    metrics.queue_depth.set(5)
    metrics.queue_oldest.set(6)
    metrics.called("PATCH", "services", 200, 0.3)
    metrics.called("PATCH", "services", 0, 0.4)
    metrics.watch_events.labels("Pod").inc(7)
    metrics.watch_restarts.inc(8)
    metrics.watch_missed.labels("Pod").inc(9)
    metrics.forbidden.labels("far").set(1)
    metrics.status_writes.labels("hub", "written").inc(10)
    metrics.events.labels("Warning", "Failed").inc(11)
    metrics.issued.labels("site").inc(12)
    metrics.reports.labels("applied").inc(13)
    metrics.loop_lag.observe(0.02)
    young = Life(NOW, NOW + timedelta(days=1))
    metrics.tell_authority(Authorities(young, next=young), 14)
    metrics.ends |= {"authority": 15.0, "hub": 16.0}


EXPECTED: dict[str, dict[str, float]] = {
    "fedjob_operator_build_info": {f"{python_version()} {__version__}": 1},
    "fedjob_operator_leader": {"": 1},
    "fedjob_reconcile_total": {"hub success": 2},
    "fedjob_reconcile_duration_seconds_sum": {"hub": 0.2},
    "fedjob_reconcile_duration_seconds_count": {"hub": 1},
    "fedjob_reconcile_panics_total": {"site": 1},
    "fedjob_workqueue_adds_total": {"": 3},
    "fedjob_workqueue_retries_total": {"": 4},
    "fedjob_workqueue_queue_duration_seconds_sum": {"": 6},
    "fedjob_workqueue_queue_duration_seconds_count": {"": 1},
    "fedjob_workqueue_depth": {"": 5},
    "fedjob_workqueue_unfinished_seconds": {"": 6},
    "fedjob_api_requests_total": {"200 services PATCH": 1, "0 services PATCH": 1},
    "fedjob_api_request_duration_seconds_sum": {"PATCH": 0.7},
    "fedjob_api_request_duration_seconds_count": {"PATCH": 2},
    "fedjob_watch_events_total": {"Pod": 7},
    "fedjob_watch_restarts_total": {"": 8},
    "fedjob_watch_missed_total": {"Pod": 9},
    "fedjob_namespace_forbidden": {"far": 1},
    "fedjob_status_writes_total": {"hub written": 10},
    "fedjob_events_emitted_total": {"Failed Warning": 11},
    "fedjob_certificates_issued_total": {"site": 12},
    "fedjob_progress_reports_total": {"applied": 13},
    "fedjob_event_loop_lag_seconds_sum": {"": 0.02},
    "fedjob_event_loop_lag_seconds_count": {"": 1},
    "fedjob_authority_rotation": {"Stable": 0, "Introduced": 1, "Signing": 0},
    "fedjob_authority_rotation_awaited_certificates": {"": 14},
    "fedjob_store_objects": {"FederatedJob": 2, "FederatedSite": 2},
    "fedjob_jobs": {"n Training": 1, "n New": 1},
    "fedjob_job_round": {"digits n": 4},
    "fedjob_job_rounds_target": {"digits n": 9, "other n": 1},
    "fedjob_job_server_restarts": {"digits n": 3},
    "fedjob_job_attempt": {"digits n": 2},
    "fedjob_job_condition": {"digits n NotFinished False Failed": 1},
    "fedjob_job_sites": {"digits n Running": 2, "digits n Failed": 1},
    "fedjob_site_approved": {"a": 1, "b": 0},
    "fedjob_certificate_not_after_timestamp_seconds": {
        "authority": 15, "hub": 16,
        "server": (NOW + timedelta(days=2)).timestamp(), "site": (NOW + timedelta(days=1)).timestamp(),
    },
}  # fmt: skip


def test_every_series_has_the_value_of_what_has_happened() -> None:
    metrics = Metrics()
    metrics.observe_store(a_cluster())
    what_happens(metrics)
    found: dict[str, dict[str, float]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name.startswith("fedjob_") and not sample.name.endswith(("_bucket", "_created")):
                values = " ".join(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[values] = sample.value
    assert found == EXPECTED
    buckets = metrics.registry.get_sample_value
    for edge, count in (("0.1", 0), ("0.25", 1), ("+Inf", 1)):
        assert buckets("fedjob_reconcile_duration_seconds_bucket", {"controller": "hub", "le": edge}) == count
    for edge, count in (("5.0", 0), ("15.0", 1)):
        assert buckets("fedjob_workqueue_queue_duration_seconds_bucket", {"le": edge}) == count


def test_the_page_names_these_and_no_other() -> None:
    table = (
        PAGE.read_text().partition("<!-- written by hack/metrics-page: operator -->")[2].partition("<!-- end -->")[0]
    )
    page = set(re.findall(r"^\| `(fedjob_[a-z_]+)`", table, re.M))
    assert page == {name.removesuffix("_sum").removesuffix("_count") for name in EXPECTED}
