"""Certificates that are renewed, or not, under open connections: a real server and real sites."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedjob import checkpoint, exchange, identity
from fedjob.api import FedAvg
from fedjob.chunks import Range
from fedjob.config import SiteConfig
from fedjob.errors import ServerLost, TransportError
from fedjob.identity import Credentials
from fedjob.limits import Limits
from fedjob.model import FLModel
from fedjob.session import Session
from fedjob.stored import write_values
from fedjob.transport import Channel
from fedjob.uplink import Uplink
from fedjob.workflows import fedavg

UID = "c0ffee"
HOUR = timedelta(hours=1)
PATIENCE_SECONDS = 30.0


def authority() -> identity.Authority:
    return identity.create_authority(UID, now=datetime.now(UTC), lifetime=HOUR)


def pem(of: identity.Authority) -> bytes:
    return identity.issue(of, of.site("x"), now=datetime.now(UTC), lifetime=HOUR).ca_pem


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


@dataclass
class Job:
    """A server whose certificate a test exchanges, with one site."""

    session: Session
    folder: Path
    authority: identity.Authority
    server: Credentials
    address: str = ""
    asked: int = 0

    def newest(self) -> Credentials:
        """What gRPC asks before each handshake."""
        self.asked += 1
        return self.server

    def of_server(self, by: identity.Authority, *trusts: identity.Authority) -> Credentials:
        """A certificate of the server, by one authority, with those that it trusts."""
        made = identity.issue(by, by.server(), now=datetime.now(UTC), lifetime=HOUR, dns_names=["localhost"])
        return replace(made, ca_pem=b"".join(map(pem, trusts)))

    def of_site(self, by: identity.Authority, *trusts: identity.Authority, life: timedelta = HOUR) -> Credentials:
        """The same, of the site."""
        made = identity.issue(by, by.site("a"), now=datetime.now(UTC), lifetime=life)
        return replace(made, ca_pem=b"".join(map(pem, trusts)))

    def uplink(self, credentials: Credentials, patience: float = PATIENCE_SECONDS) -> Uplink:
        """The site's connection."""
        return Uplink(self.address, "localhost", credentials, 1, patience)

    def site(self) -> Any:
        """What the server knows of the site."""
        (site,) = self.session.sites()
        return site

    def run(self, rounds: int = 1) -> None:
        """Ask for rounds, as the server's own thread does; the job ends with them."""
        model = write_values(self.folder / "model", {"w": np.zeros(1 << 20, np.float32)})

        def work() -> None:
            for state in fedavg.server(self.session, fedavg.start(model), FedAvg(rounds=rounds)):
                checkpoint.save(self.folder / "checkpoint", state, 0.0)
                self.session.finish_round()
            self.session.end("Complete")

        threading.Thread(target=work, daemon=True).start()

    def answer(self, uplink: Uplink) -> None:
        """One round of a site."""
        config = SiteConfig(
            job="j", uid=UID, attempt=1, trust_domain=identity.TRUST_DOMAIN, site="a", sites=("a",), workflow={},
            params_type="FULL", server=self.address, server_name="localhost", tls=self.folder, work=self.folder / "a",
            server_lost_seconds=PATIENCE_SECONDS,
        )  # fmt: skip
        task = uplink.next_task(PATIENCE_SECONDS)
        assert task is not None
        parts = exchange.download(uplink, task, {}, config)
        assert parts is not None
        assert uplink.submit(*exchange.announcement(task, FLModel(params=parts["params"]), {}, config)).accepted
        uplink.done(task.key)


@pytest.fixture
def job(tmp_path: Path, serving: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.setattr("fedjob.uplink._RENEW_SECONDS", 2.0)
    session = Session(["a"], frozenset(), Limits(60.0, 0.0, 30.0, 30.0, 600.0), tmp_path)
    ours = authority()
    found = Job(session, tmp_path, ours, Credentials(b"", b"", b""))
    found.server = found.of_server(ours, ours)
    with serving(session, tmp_path, ours, found.newest) as found.address:
        yield found


def test_a_renewed_site_goes_on_as_the_same_process(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    ours = job.authority
    uplink = job.uplink(job.of_site(ours, ours))
    job.run(rounds=2)
    job.answer(uplink)
    task = uplink.next_task(PATIENCE_SECONDS)
    with caplog.at_level(logging.INFO):
        before, push = job.site(), job.site().push
        uplink.renew(job.of_site(ours, ours))
        until(lambda: job.site().push not in (None, push))
        after = job.site()
        assert (after.state, after.asked_at, after.message) == (before.state, before.asked_at, before.message)
        assert uplink.next_task(PATIENCE_SECONDS) == task
        assert not caplog.records, "nothing of it is worth a line"
    job.answer(uplink)
    assert uplink.next_task(PATIENCE_SECONDS) is None
    uplink.close()


def test_a_site_that_moves_and_does_not_come_back_is_lost(job: Job) -> None:
    ours = job.authority
    uplink = job.uplink(job.of_site(ours, ours))
    job.run(rounds=1)
    until(lambda: job.site().state == "Training" or job.site().push)
    job.session.reception.moves("a", job.site().push)
    uplink.close()
    until(lambda: job.site().push is None)
    gone = job.site()
    assert gone.state == "Lost"
    assert gone.shown(gone.gone_since) == gone.moved_in != "Lost", (
        "nobody is told of the moment between two connections"
    )
    assert gone.shown(gone.gone_since + 11.0) == "Lost"
    back = job.uplink(job.of_site(ours, ours))
    job.answer(back)
    assert back.next_task(PATIENCE_SECONDS) is None
    back.close()


def test_a_site_that_goes_without_a_word_is_told_lost_at_once(job: Job) -> None:
    uplink = job.uplink(job.of_site(job.authority, job.authority))
    until(lambda: job.site().push)
    uplink.close()
    until(lambda: job.site().push is None)
    assert job.site().shown(job.site().gone_since) == "Lost"


def test_the_authority_is_exchanged_under_open_connections(job: Job) -> None:
    old, new = job.authority, authority()
    uplink = job.uplink(job.of_site(old, old))
    job.run(rounds=5)
    job.answer(uplink)
    job.server = job.of_server(old, old, new)
    uplink.renew(job.of_site(old, old, new))
    job.answer(uplink)
    job.server = job.of_server(new, new, old)  # the server is the first to have a new certificate
    uplink.renew(job.of_site(old, old, new))
    job.answer(uplink)
    uplink.renew(job.of_site(new, new, old))
    job.answer(uplink)
    job.server = job.of_server(new, new)
    uplink.renew(job.of_site(new, new))
    job.answer(uplink)
    with pytest.raises(TransportError, match="the server refused this site's certificate"):
        uplink.renew(job.of_site(old, new, old))  # nobody trusts it any more; the connection that is there stays
    assert uplink.next_task(PATIENCE_SECONDS) is None
    uplink.close()


def test_a_connection_is_not_dropped_for_one_that_does_not_work(job: Job) -> None:
    ours = job.authority
    uplink = job.uplink(job.of_site(ours, ours))
    job.run(rounds=1)
    until(lambda: job.site().push)
    push, stranger = job.site().push, authority()
    with pytest.raises(TransportError, match=r"was not signed by the authority in ca\.crt"):
        uplink.renew(job.of_site(stranger, ours))
    assert job.site().push is push
    job.answer(uplink)
    assert uplink.next_task(PATIENCE_SECONDS) is None
    uplink.close()


def test_a_new_connection_takes_the_next_calls_and_leaves_the_life_line_where_it_is(job: Job) -> None:
    credentials = job.of_site(job.authority, job.authority)
    uplink = job.uplink(credentials)
    job.run(rounds=1)
    until(lambda: job.site().push)
    push = job.site().push
    uplink._channel.reconnect(credentials)
    job.answer(uplink)
    assert job.site().push is push
    assert uplink.next_task(PATIENCE_SECONDS) is None
    uplink.close()


def test_an_authority_that_came_without_notice_is_taken_once_both_have_it(job: Job) -> None:
    old, new = job.authority, authority()
    uplink = job.uplink(job.of_site(old, old))
    job.run(rounds=2)
    job.answer(uplink)
    with pytest.raises(TransportError, match="the server's own certificate is not signed by this job's authority"):
        uplink.renew(job.of_site(new, new))  # the site is the first to have it
    job.server = job.of_server(new, new)
    uplink.renew(job.of_site(new, new))
    job.answer(uplink)
    assert uplink.next_task(PATIENCE_SECONDS) is None
    uplink.close()


def test_a_server_makes_its_handshakes_with_the_newest_certificate_and_reads_it_once(job: Job) -> None:
    ours = job.authority
    for _ in range(3):
        job.server = job.of_server(ours, ours)
        asked = job.asked
        uplink = job.uplink(job.of_site(ours, ours))
        until(lambda: job.site().push)
        assert job.asked > asked
        uplink.close()
        until(lambda: job.site().push is None)


def test_a_call_ends_with_the_certificate_of_its_caller(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    ours = job.authority
    short = job.of_site(ours, ours, life=timedelta(seconds=2))
    with caplog.at_level(logging.WARNING):
        uplink = job.uplink(short, patience=1.0)
        until(lambda: job.site().push)
        with pytest.raises(ServerLost, match=r"serverLostSeconds.*certificate.*expired at \d{4}-"):
            uplink.next_task(PATIENCE_SECONDS)
        assert "a call ends: the certificate of spiffe://fedjob.local/job/c0ffee/site/a expired at" in caplog.text
    uplink.close()


def test_no_call_begins_with_a_certificate_that_has_ended_on_a_connection_that_is_open(job: Job) -> None:
    ours = job.authority
    short = job.of_site(ours, ours, life=timedelta(seconds=2))
    channel = Channel(job.address, "localhost", short)
    with pytest.raises(TransportError, match=r"NOT_FOUND|no round is open yet"):
        list(channel.fetch("0" * 32, Range(0, 0, 0)))
    until(lambda: datetime.now(UTC) > identity.not_after(short.cert_pem))
    for call in (
        lambda: channel.fetch("0" * 32, Range(0, 0, 0)),
        lambda: channel.submit(iter(())),
        lambda: channel.attend(iter(())),
    ):
        with pytest.raises(
            TransportError, match=r"UNAUTHENTICATED: the certificate of spiffe://.*/site/a expired at \d{4}-"
        ):
            list(call())
    channel.close()


def test_a_certificate_that_is_renewed_late_brings_the_site_back(job: Job) -> None:
    ours = job.authority
    uplink = job.uplink(job.of_site(ours, ours, life=timedelta(seconds=2)))
    until(lambda: job.site().push)
    until(lambda: job.site().push is None)  # it has expired
    job.run(rounds=1)
    uplink.renew(job.of_site(ours, ours))
    job.answer(uplink)
    assert uplink.next_task(PATIENCE_SECONDS) is None
    uplink.close()
