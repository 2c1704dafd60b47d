"""Prometheus series of the operator.

Series about jobs and sites are made when they are scraped, from the store: a job that is gone leaves none behind. No label has more
values than there are kinds, codes, reasons, or unfinished jobs.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from platform import python_version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from fedjob.version import __version__

from . import names
from .observed import Raw, condition
from .store import Store
from .trust import PHASES, Authorities

_FINISHED_FOR = timedelta(minutes=10)
_FAILED_FOR = timedelta(days=1)  # an alert that is over before anybody has looked helps nobody
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_SECONDS = (0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0)


class Metrics:
    """Every series. Also a `cluster.Calls`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        r = self.registry
        info = Gauge(
            "fedjob_operator_build_info", "Version of the operator, always 1.", ("version", "python"), registry=r
        )
        info.labels(__version__, python_version()).set(1)
        self.leader = Gauge("fedjob_operator_leader", "1 in the replica that acts.", registry=r)
        self.passes = Counter("fedjob_reconcile", "Passes by how they ended.", ("controller", "result"), registry=r)
        self.pass_seconds = Histogram(
            "fedjob_reconcile_duration_seconds", "Duration of a pass.", ("controller",), buckets=_SECONDS, registry=r
        )
        self.panics = Counter("fedjob_reconcile_panics", "Passes that ended with a bug.", ("controller",), registry=r)
        self.queue_adds = Counter("fedjob_workqueue_adds", "Keys added to the queue.", registry=r)
        self.queue_retries = Counter("fedjob_workqueue_retries", "Keys that come back after a failure.", registry=r)
        self.queue_seconds = Histogram(
            "fedjob_workqueue_queue_duration_seconds", "Time that a key waited.", buckets=_LONG_SECONDS, registry=r
        )
        self.queue_depth = Gauge("fedjob_workqueue_depth", "Keys that wait.", registry=r)
        self.queue_oldest = Gauge("fedjob_workqueue_unfinished_seconds", "Age of the oldest pass at work.", registry=r)
        self.calls = Counter(
            "fedjob_api_requests", "Calls of the API server.", ("verb", "resource", "code"), registry=r
        )
        self.call_seconds = Histogram(
            "fedjob_api_request_duration_seconds", "Duration of a call.", ("verb",), buckets=_SECONDS, registry=r
        )
        self.watch_events = Counter("fedjob_watch_events", "Events of the watches.", ("kind",), registry=r)
        self.watch_restarts = Counter(
            "fedjob_watch_restarts", "Times that the watches had to be started again.", registry=r
        )
        self.watch_missed = Counter(
            "fedjob_watch_missed", "Objects that a list showed and the watch had not told.", ("kind",), registry=r
        )
        self.forbidden = Gauge(
            "fedjob_namespace_forbidden",
            "1 for a namespace that the operator should look after and that does not let it in.",
            ("watched_namespace",),
            registry=r,
        )
        self.status_writes = Counter(
            "fedjob_status_writes", "Writes of a status.", ("controller", "result"), registry=r
        )
        self.events = Counter("fedjob_events_emitted", "Kubernetes events.", ("type", "reason"), registry=r)
        self.issued = Counter("fedjob_certificates_issued", "Certificates issued.", ("role",), registry=r)
        self.ends: dict[str, float] = {}  # of certificates that no job has: the authority's, the hub's own
        self.authority_phase = Gauge(
            "fedjob_authority_rotation", "1 for the present phase of the authority.", ("phase",), registry=r
        )
        self.authority_awaited = Gauge(
            "fedjob_authority_rotation_awaited_certificates",
            "Certificates in use that do not agree yet with the present step of a rotation.",
            registry=r,
        )
        self.reports = Counter("fedjob_progress_reports", "Progress reports of servers.", ("result",), registry=r)
        self.loop_lag = Histogram(
            "fedjob_event_loop_lag_seconds", "How late the event loop is.", buckets=_SECONDS, registry=r
        )

    def called(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """A call of the API server ended; code 0: without an answer."""
        self.calls.labels(verb, resource, str(code)).inc()
        self.call_seconds.labels(verb).observe(seconds)

    def tell_authority(self, authorities: Authorities, awaited: int) -> None:
        """How far a rotation of the authority is."""
        for phase in PHASES:
            self.authority_phase.labels(phase).set(phase == authorities.phase)
        self.authority_awaited.set(awaited)

    def observe_store(self, store: Store) -> None:
        """From now on, tell of jobs and sites as well."""
        self.registry.register(JobCollector(store, self.ends))


@dataclass(frozen=True)
class QueueGauges:
    """What a work queue tells, as series. A `workqueue.Gauges`."""

    metrics: Metrics

    def added(self) -> None:
        """See `workqueue.Gauges`."""
        self.metrics.queue_adds.inc()

    def retried(self) -> None:
        """See `workqueue.Gauges`."""
        self.metrics.queue_retries.inc()

    def waited(self, seconds: float) -> None:
        """See `workqueue.Gauges`."""
        self.metrics.queue_seconds.observe(seconds)


class JobCollector(Collector):
    """Jobs, sites and certificates as the store has them at the moment of the scrape."""

    def __init__(self, store: Store, ends: Mapping[str, float]) -> None:
        self._store = store
        self._ends = ends

    def collect(self) -> Iterator[Metric]:
        """The series. Jobs that ended more than ten minutes ago count in `fedjob_jobs` only; that one failed is said for a day."""
        jobs = list(self._store.raws(names.FEDERATED_JOB.name))
        yield self._objects()
        yield _jobs(jobs)
        now = datetime.now(UTC)
        live = [raw for raw in jobs if _recent(raw, now, _FINISHED_FOR)]
        yield _gauge("fedjob_job_round", "Completed rounds.", live, lambda raw: _progress(raw).get("completedRounds"))
        yield _gauge(
            "fedjob_job_rounds_target", "Rounds asked for.", live, lambda raw: raw["spec"]["workflow"]["rounds"]
        )
        yield _gauge("fedjob_job_server_restarts", "Restarts of the server.", live,
                     lambda raw: ((raw.get("status") or {}).get("server") or {}).get("restarts"))  # fmt: skip
        yield _gauge(
            "fedjob_job_attempt", "Attempt at the job.", live, lambda raw: (raw.get("status") or {}).get("attempt")
        )
        yield _conditions(jobs, now)
        yield _job_sites(live)
        yield self._sites()
        yield self._certificates()

    def _objects(self) -> Metric:
        family = GaugeMetricFamily("fedjob_store_objects", "Objects that the operator knows.", labels=["kind"])
        for kind, count in sorted(self._store.sizes().items()):
            family.add_metric([kind], count)
        return family

    def _sites(self) -> Metric:
        family = GaugeMetricFamily("fedjob_site_approved", "1 if the site is approved.", labels=["site"])
        for raw in self._store.raws(names.FEDERATED_SITE.name):
            family.add_metric([raw["metadata"]["name"]], float(bool(raw["spec"].get("approved"))))
        return family

    def _certificates(self) -> Metric:
        family = GaugeMetricFamily(
            "fedjob_certificate_not_after_timestamp_seconds",
            "End of the certificate that ends first, by role.",
            labels=["role"],
        )
        ends = dict(self._ends)
        for present in self._store.certificates.values():
            role = "server" if present.identity.endswith("/server") else "site"
            ends[role] = min(ends.get(role, float("inf")), present.not_after.timestamp())
        for role, end in sorted(ends.items()):
            family.add_metric([role], end)
        return family


def _jobs(jobs: Iterable[Raw]) -> Metric:
    family = GaugeMetricFamily("fedjob_jobs", "Jobs by namespace and state.", labels=["namespace", "state"])
    counts = Tally((raw["metadata"]["namespace"], (raw.get("status") or {}).get("state", "New")) for raw in jobs)
    for (namespace, state), count in sorted(counts.items()):
        family.add_metric([namespace, state], count)
    return family


def _gauge(name: str, text: str, jobs: Iterable[Raw], value: object) -> Metric:
    assert callable(value)
    family = GaugeMetricFamily(name, text, labels=["namespace", "federated_job"])
    for raw in jobs:
        number = value(raw)
        if number is not None:
            family.add_metric([raw["metadata"]["namespace"], raw["metadata"]["name"]], float(number))
    return family


def _conditions(jobs: Iterable[Raw], now: datetime) -> Metric:
    labels = ["namespace", "federated_job", "type", "status", "reason"]
    family = GaugeMetricFamily("fedjob_job_condition", "1 for what each condition says now.", labels=labels)
    for raw in jobs:
        whose = [raw["metadata"]["namespace"], raw["metadata"]["name"]]
        whole, failed = _recent(raw, now, _FINISHED_FOR), _recent(raw, now, _FAILED_FOR)
        for found in (raw.get("status") or {}).get("conditions") or ():
            if not whole and not (failed and found["type"] == "Failed" and found["status"] == "True"):
                continue
            family.add_metric([*whose, found["type"], found["status"], found["reason"]], 1)
    return family


def _job_sites(jobs: Iterable[Raw]) -> Metric:
    labels = ["namespace", "federated_job", "state"]
    family = GaugeMetricFamily("fedjob_job_sites", "Sites of a job by state.", labels=labels)
    for raw in jobs:
        for state, count in sorted(
            Tally(site.get("state", "") for site in (raw.get("status") or {}).get("sites") or ()).items()
        ):
            family.add_metric([raw["metadata"]["namespace"], raw["metadata"]["name"], state], count)
    return family


def _recent(raw: Raw, now: datetime, within: timedelta) -> bool:
    """Whether the job goes on, or has ended within this time."""
    ended = (raw.get("status") or {}).get("completionTime")
    over = condition(raw, "Complete")[0] == "True" or condition(raw, "Failed")[0] == "True"
    return not over or ended is None or now - datetime.fromisoformat(ended) < within


def _progress(raw: Raw) -> Raw:
    found: Raw = (raw.get("status") or {}).get("progress") or {}
    return found
