"""The hub's endpoint over real TLS: what it shows and whom it trusts follow the authority, without a restart."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedjob import identity
from fedjob.config import Report
from fedjob.progress_push import push
from fedjob.records import JobRef, Status
from fedjob.tls import client_context
from fedjob_operator import pki
from fedjob_operator.cluster import Cluster
from fedjob_operator.hub.endpoint import Endpoint
from fedjob_operator.metrics import Metrics

UID = "uid-1"
HOUR = timedelta(hours=1)


class Hub:
    """An endpoint of an authority that a test exchanges. No report gets as far as the API server: each names another job."""

    def __init__(self, folder: Path) -> None:
        self.authority = pki.create("fedjob.local", datetime.now(UTC), 24 * HOUR)
        self.folder = folder
        metrics = Metrics()
        free = Cluster(metrics, may_write=lambda: None)
        self.endpoint = Endpoint(
            free, metrics, lambda: self.authority, "hub.test", "fedjob.local", HOUR, time.monotonic
        )
        self.port = 0

    def turn(self, step: Callable[[pki.Authority], pki.Authority]) -> None:
        """The authority is another from now on."""
        self.authority = step(self.authority)
        self.endpoint.renew()

    async def report(self, by: pki.Authority) -> str:
        """What a server hears whose certificate is by this authority: the hub's answer, or why there is none."""
        made = by.issue(UID, None, ("server.test",), datetime.now(UTC), HOUR)
        identity.write(made, self.folder)
        where = Report(
            url=f"https://127.0.0.1:{self.port}/v1alpha1/namespaces/n/federatedjobs/j/progress", server_name="hub.test"
        )
        try:
            await asyncio.to_thread(push, where, self.folder, Status(job=JobRef("j", "another", 1)))
        except (OSError, ValueError) as e:
            return str(e)
        raise AssertionError("such a report is refused")


def with_hub(folder: Path, test: Callable[[Hub], Awaitable[None]]) -> None:
    async def run() -> None:
        hub = Hub(folder)
        hub.port = await hub.endpoint.serve(0, "127.0.0.1")
        await test(hub)

    asyncio.run(run())


HEARD = "the hub refuses the report: 403"


def test_the_endpoint_follows_a_rotation_of_the_authority(tmp_path: Path) -> None:
    async def rotation(hub: Hub) -> None:
        first = hub.authority
        assert HEARD in await hub.report(first)
        hub.turn(lambda a: pki.introduce(a, datetime.now(UTC), 24 * HOUR))
        introduced = hub.authority
        for late in (first, introduced):
            assert HEARD in await hub.report(late)
        hub.turn(pki.sign)
        signing = hub.authority
        for late in (introduced, signing):
            assert HEARD in await hub.report(late)
        assert "verify failed" in await hub.report(first), "a server that knows only the old one; nobody is so late"
        hub.turn(pki.drop)
        assert HEARD in await hub.report(hub.authority)
        # Trusts the hub still, has a certificate of the old one: the hub closes the connection.
        old = pki.Authority("fedjob.local", introduced.current, introduced.next)
        assert HEARD not in await hub.report(old)
        assert "verify failed" not in await hub.report(old)

    with_hub(tmp_path, rotation)


def test_a_renewed_certificate_is_shown_from_the_next_handshake_on(tmp_path: Path) -> None:
    async def renewal(hub: Hub) -> None:
        shown = [await asyncio.to_thread(certificate_of, hub)]
        hub.endpoint.renew()
        shown.append(await asyncio.to_thread(certificate_of, hub))
        assert shown[0] != shown[1]
        assert hub.endpoint.metrics.ends["hub"] > time.time()

    with_hub(tmp_path, renewal)


def certificate_of(hub: Hub) -> bytes:
    context = client_context(hub.authority.issue(UID, None, ("server.test",), datetime.now(UTC), HOUR))
    with (
        socket.create_connection(("127.0.0.1", hub.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="hub.test") as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def test_whoever_shows_no_certificate_is_not_heard(tmp_path: Path) -> None:
    def call(port: int) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
        connection.request("PUT", "/v1alpha1/namespaces/n/federatedjobs/j/progress", "{}")
        connection.getresponse()

    async def refusal(hub: Hub) -> None:
        hub.endpoint.renew()
        with pytest.raises((OSError, http.client.HTTPException)):
            await asyncio.to_thread(call, hub.port)

    with_hub(tmp_path, refusal)
