"""Progress, from a job's server to the job's status: the server's own code, real TLS, the real API server."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedjob import progress_push
from fedjob.config import Report
from fedjob.progress_push import push
from fedjob.records import JobRef, Progress, SiteStatus, Status
from fedjob_operator import names
from fedjob_operator.hub.reports import MAX_BYTES
from fedjob_operator.names import CLIENT, SERVER


@pytest.fixture
def keys(admin: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes a Secret to a folder, as the kubelet mounts it."""

    def mount(namespace: str, name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        secret = admin.get(names.SECRET, namespace, name)
        for file, data in secret["data"].items():
            (folder / file).write_bytes(base64.b64decode(data))
        return folder

    return mount


def report_of(operator: Any, job: Any) -> Report:
    path = f"/v1alpha1/namespaces/{job.namespace}/federatedjobs/{job.name}/progress"
    return Report(url=f"https://127.0.0.1:{operator.reports}{path}", server_name="hub.test")


def status_of(job: Any, **parts: Any) -> Status:
    sites = tuple(SiteStatus(site["name"], state="Training", examples=100) for site in job.raw["spec"]["sites"])
    reference = JobRef(job.name, job.raw["metadata"]["uid"], parts.pop("attempt", 1))
    return Status(
        job=reference, state="Running", progress=Progress(1, 1, 3), metrics={"accuracy": 0.5}, sites=sites, **parts
    )


@pytest.fixture
def running(start_operator: Any, submit: Any, kubelet: Any) -> tuple[Any, Any]:
    """An operator, and a job whose server and clients run."""
    operator = start_operator()
    job = submit()
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")
    kubelet.run(CLIENT, 2)
    return operator, job


def server_secret(job: Any) -> str:
    return names.base(job.name, job.raw["metadata"]["uid"])


def test_a_report_becomes_status_and_the_answer_tells_of_a_pause(
    running: Any, keys: Any, until: Any, kubelet: Any
) -> None:
    operator, job = running
    folder = keys(job.namespace, server_secret(job))
    assert push(report_of(operator, job), folder, status_of(job)) is False
    job.wait("Progressing", "True", "Training")
    job.wait("QuorumReached", "True", "Reached")
    status = job.status
    assert status["progress"]["completedRounds"] == 1
    assert status["metrics"] == [{"name": "accuracy", "value": "0.5"}]
    assert all(site["training"] == "Training" and site["state"] == "Running" for site in status["sites"])
    job.edit(suspend=True)
    job.wait("Admitted", "False", "Suspending")
    told = until("the answer", lambda: _pause(operator, job, folder))
    assert told is True
    kubelet.end(kubelet.live(SERVER)[0], 143)  # the round is over, the server has stopped by itself
    job.wait("Admitted", "False", "Suspended")


def _pause(operator: Any, job: Any, folder: Path) -> bool:
    try:
        return push(report_of(operator, job), folder, status_of(job))
    except ConnectionError:  # too often; the server tries again as well
        return False


def test_only_the_jobs_own_server_is_heard(running: Any, keys: Any, submit: Any, until: Any) -> None:
    operator, job = running
    other = submit("other")
    until("the other's Secret", lambda: job.kube.get(names.SECRET, other.namespace, server_secret(other)))
    stranger = keys(other.namespace, server_secret(other))
    with pytest.raises(ValueError, match="403"):
        push(report_of(operator, job), stranger, status_of(job))
    with pytest.raises(ValueError, match="404"):  # its own report, at the address of another job
        push(report_of(operator, job), stranger, status_of(other))
    name = names.site_job(job.name, job.raw["metadata"]["uid"], job.raw["spec"]["sites"][0]["name"])
    with pytest.raises(ValueError, match="403"):
        push(report_of(operator, job), keys(job.namespace, name), status_of(job))
    assert "progress" not in job.status
    assert "progress" not in other.status


def test_a_report_is_capped_in_rate_size_and_age(
    running: Any, keys: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, job = running
    folder, where = keys(job.namespace, server_secret(job)), report_of(operator, job)
    with monkeypatch.context() as other:  # a server of ours never sends so much
        other.setattr(progress_push, "body", lambda _: b'{"x": "' + b"x" * MAX_BYTES + b'"}')
        with pytest.raises((ValueError, ConnectionError)):
            push(where, folder, status_of(job))
    push(where, folder, replace(status_of(job, attempt=2), sites=(SiteStatus("a", message="x" * MAX_BYTES),)))
    with pytest.raises(ConnectionError, match="429"):
        push(where, folder, status_of(job, attempt=2))

    def stale() -> bool:
        try:
            push(where, folder, status_of(job, attempt=1))
        except ValueError as e:
            return "409" in str(e)
        return False

    assert stale()


def test_without_a_certificate_nobody_is_heard(running: Any, keys: Any, tmp_path: Path) -> None:
    operator, job = running
    folder = keys(job.namespace, server_secret(job))
    from datetime import UTC, datetime, timedelta

    from fedjob import identity

    foreign = identity.create_authority("other", now=datetime.now(UTC), lifetime=timedelta(days=1))
    forged = identity.Authority("fedjob.local", job.raw["metadata"]["uid"], foreign.certificate, foreign.key)
    made = identity.issue(
        forged, forged.server(), now=datetime.now(UTC), lifetime=timedelta(hours=1), dns_names=["server"]
    )
    ca = (folder / "ca.crt").read_bytes()
    identity.write(identity.Credentials(made.key_pem, made.cert_pem, ca), tmp_path / "forged")
    with pytest.raises(OSError):  # noqa: PT011 - TLS says it in several ways
        push(report_of(operator, job), tmp_path / "forged", status_of(job))
    assert "progress" not in job.status
