"""Prometheus series of a job's server and of its clients, made when they are scraped from what the processes know and count anyway.

No series has more values of a label than there are sites, reasons, states, or names of metrics up to `tally.MAX_NAMES`. Every series
of ours says whose it is (`federated_job`, and at a client `site`), whichever way Prometheus has found the process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from .records import JobState, SiteState, Status
from .roster import Site
from .tally import ClientTally, Duration, Scalars, ServerTally
from .version import __version__

log = logging.getLogger(__name__)
Rows = Mapping[Any, float]  # a key: a tuple of label values, and the type of a mapping's keys is exact


@dataclass(frozen=True)
class Family:
    """Makes series that all carry the labels of their process."""

    labels: tuple[str, ...]
    values: tuple[str, ...]

    def gauge(self, name: str, text: str, rows: Rows | float, *labels: str) -> Metric:
        """What goes up and down. rows: by the values of `labels`; one number without labels."""
        return self._filled(GaugeMetricFamily(name, text, labels=[*self.labels, *labels]), rows)

    def counter(self, name: str, text: str, rows: Rows | float, *labels: str) -> Metric:
        """What only grows, in one process; its series is NAME_total."""
        return self._filled(CounterMetricFamily(name, text, labels=[*self.labels, *labels]), rows)

    def durations(self, name: str, text: str, rows: Mapping[Any, Duration], *labels: str) -> Metric:
        """NAME_sum in seconds and NAME_count."""
        family = SummaryMetricFamily(name, text, labels=[*self.labels, *labels])
        for key, found in sorted(dict(rows).items()):  # a copy: others add meanwhile
            family.add_metric([*self.values, *key], found.count, found.seconds)
        return family

    def _filled(self, family: Any, rows: Rows | float) -> Metric:
        for key, number in sorted(({(): rows} if isinstance(rows, int | float) else dict(rows)).items()):
            family.add_metric([*self.values, *key], float(number))
        made: Metric = family
        return made


@dataclass(eq=False)
class ServerSeries(Collector):
    """A job's server. status, sites: as they are now. not_after: end of its certificate, seconds since the epoch."""

    job: str
    status: Callable[[], Status]
    sites: Callable[[], Iterable[Site]]
    tally: ServerTally
    round_timeout_seconds: float
    not_after: Callable[[], float]

    def collect(self) -> Iterator[Metric]:
        """The series, now."""
        make, now = Family(("federated_job",), (self.job,)), self.status()
        yield from self._job(make, now)
        yield from self._sites(make, now)
        yield from _process(make, "server", self.not_after)
        tally = self.tally
        yield make.counter("fedjob_server_rounds", "Rounds that this process completed.", _keyed(tally.rounds), "kind")
        phases = _keyed(tally.phases)
        yield make.durations("fedjob_server_round_phase_seconds", "Where the time of rounds goes.", phases, "phase")
        scores = {(name,): value for (site, name), value in dict(tally.scores.last).items() if not site}
        yield make.gauge("fedjob_server_metric", "Mean of what scripts sent in the last round.", scores, "name")
        dropped = tally.scores.dropped + tally.logged.dropped
        yield make.counter("fedjob_server_metrics_dropped", "Values under more names than are kept.", dropped)

    def _job(self, make: Family, now: Status) -> Iterator[Metric]:
        progress = now.progress
        states = {(state,): float(now.state == state) for state in get_args(JobState)}
        yield make.gauge("fedjob_server_state", "1 for the state that the job is in.", states, "state")
        yield make.gauge("fedjob_server_round", "The running round, from 0.", progress.current_round)
        completed, elapsed = progress.completed_rounds, progress.round_elapsed_seconds
        yield make.gauge("fedjob_server_completed_rounds", "Rounds completed since the job began.", completed)
        yield make.gauge("fedjob_server_rounds_target", "Rounds asked for.", progress.total_rounds)
        yield make.gauge("fedjob_server_round_elapsed_seconds", "Running time of the running round.", elapsed)
        timeout, last = self.round_timeout_seconds, progress.last_round_seconds
        yield make.gauge("fedjob_server_round_timeout_seconds", "When a round goes on without the missing.", timeout)
        yield make.gauge("fedjob_server_last_round_seconds", "Duration of the last training round.", last)
        eta = {} if progress.eta_seconds is None else {(): progress.eta_seconds}
        yield make.gauge("fedjob_server_eta_seconds", "Expected time to the end.", eta)
        yield make.gauge("fedjob_server_attempt", "Attempt at the job.", now.job.attempt)
        found = {(c.type, c.reason): 1.0 for c in now.conditions}
        yield make.gauge("fedjob_server_condition", "1 while it lasts.", found, "type", "reason")

    def _sites(self, make: Family, now: Status) -> Iterator[Metric]:
        tally = self.tally
        states = dict.fromkeys(((state,) for state in get_args(SiteState)), 0.0)
        for site in now.sites:
            states[site.state,] = states.get((site.state,), 0.0) + 1
        connected = {(site.name,): float(site.push is not None) for site in self.sites()}
        yield make.gauge("fedjob_server_sites", "Sites by what they are doing.", states, "state")
        yield make.gauge("fedjob_server_site_connected", "1 while a process of the site is there.", connected, "site")
        doing = {(site.name, site.state): 1.0 for site in now.sites}
        yield make.gauge("fedjob_server_site_state", "1 for what the site is doing.", doing, "site", "state")
        up, down = dict(tally.bytes_up), dict(tally.bytes_down)
        moved = {(site, "up"): size for site, size in up.items()} | {
            (site, "down"): size for site, size in down.items()
        }
        yield make.counter(
            "fedjob_server_bytes", "Bytes of tensors; up: what left the site.", moved, "site", "direction"
        )
        again = _keyed(tally.chunks_again)
        yield make.counter("fedjob_server_chunks_again", "Chunks that came damaged or twice.", again, "site")
        yield make.counter("fedjob_server_updates", "Answers by verdict.", tally.updates, "site", "result")
        yield make.counter("fedjob_server_missing", "Rounds without a site, and why.", tally.missing, "site", "reason")
        took = tally.site_phases
        yield make.durations("fedjob_server_site_phase_seconds", "Where a site's time goes.", took, "site", "phase")
        scores, logged = _of_sites(tally.scores), _of_sites(tally.logged)
        yield make.gauge("fedjob_server_site_metric", "What a site's script sent last.", scores, "site", "name")
        yield make.gauge("fedjob_server_logged_value", "What a site's script logged last.", logged, "site", "name")


@dataclass(eq=False)
class ClientSeries(Collector):
    """A training process at a site. connected: whether its line to the server is up. not_after: see `ServerSeries`."""

    job: str
    site: str
    tally: ClientTally
    connected: Callable[[], bool]
    not_after: Callable[[], float]

    def collect(self) -> Iterator[Metric]:
        """The series, now."""
        make, tally = Family(("federated_job", "site"), (self.job, self.site)), self.tally
        yield make.gauge("fedjob_client_connected", "1 while the line to the server is up.", float(self.connected()))
        yield make.counter("fedjob_client_connections", "Times that the line was opened.", tally.connections)
        yield make.gauge("fedjob_client_round", "Round of the last task.", tally.round)
        moved = {("up",): float(tally.bytes_up), ("down",): float(tally.bytes_down)}
        yield make.counter("fedjob_client_bytes", "Bytes of tensors; up: what left the site.", moved, "direction")
        again = {("up",): float(tally.chunks_up_again), ("down",): float(tally.chunks_down_again)}
        yield make.counter("fedjob_client_chunks_again", "Chunks sent again, or come damaged.", again, "direction")
        yield make.counter("fedjob_client_updates", "Answers by verdict.", _keyed(tally.updates), "result")
        yield make.durations("fedjob_client_phase_seconds", "Where the time goes.", _keyed(tally.phases), "phase")
        for kind, scalars in (("metric", tally.scores), ("logged_value", tally.logged)):
            rows = {(name,): value for (_, name), value in dict(scalars.last).items()}
            yield make.gauge(f"fedjob_client_{kind}", "What the script gave last.", rows, "name")
        dropped = tally.scores.dropped + tally.logged.dropped
        yield make.counter("fedjob_client_metrics_dropped", "Values under more names than are kept.", dropped)
        yield from _process(make, "client", self.not_after)


def _process(make: Family, role: str, not_after: Callable[[], float]) -> Iterator[Metric]:
    yield make.gauge(f"fedjob_{role}_build_info", "Version of fedjob, always 1.", {(__version__,): 1.0}, "version")
    anonymous = anonymous_bytes()
    yield make.gauge(
        f"fedjob_{role}_anonymous_memory_bytes",
        "Memory that no file stands behind.",
        {(): anonymous} if anonymous else {},
    )
    end = not_after()
    yield make.gauge(
        f"fedjob_{role}_certificate_not_after_timestamp_seconds",
        "End of the certificate in use.",
        {(): end} if end else {},
    )


def _keyed(counts: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    return {(key,): value for key, value in dict(counts).items()}


def _of_sites(scalars: Scalars) -> dict[tuple[str, ...], float]:
    return {key: value for key, value in dict(scalars.last).items() if key[0]}


def anonymous_bytes() -> float:
    """What this process holds besides files; 0 where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return 0.0


def serve(listen: str, series: Collector) -> None:
    """Serve the series at host:port, on threads of their own, until the process ends; [::] is every address, also of version 4.

    A port that cannot be had is a warning: nothing of a job depends on being watched.
    """
    host, _, port = listen.rpartition(":")
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(series)
    hosts = ("::", "0.0.0.0") if host == "[::]" else (host,)  # the second where the system knows no version 6
    for address in hosts:
        try:
            start_http_server(int(port), address, registry)
        except OSError as e:
            problem = e
        else:
            return
    log.warning("no metrics at %s: %s", listen, problem)
