"""A server on a cluster tells the hub how far it is, and hears whether it should pause.

HTTPS with the job's own certificate, which is read anew each time, key, certificate and authorities of one issue, so that a renewed
one is used without a restart. Nothing depends on a report: one that is lost is followed by the next, and a hub that is away delays only
what people see.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from . import identity
from .api.limits import HUB_METRICS, HUB_REPORT, NAME, SENTENCE
from .config import Report
from .errors import IdentityError
from .records import Status, to_json
from .text import one_line
from .tls import client_context

log = logging.getLogger(__name__)

PERIOD_SECONDS = 5.0
_TIMEOUT_SECONDS = 10.0
_FAREWELL_TRIES = 3
_FAILURES = (OSError, http.client.HTTPException, ValueError, IdentityError)
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


async def push_for_ever(report: Report, tls: Path, status: Callable[[], Status], pause: Callable[[], None]) -> None:
    """Report every few seconds. pause: called when the hub says that the job should pause."""
    quiet = False
    while True:
        try:
            if await asyncio.to_thread(push, report, tls, status()):
                pause()
            quiet = False
        except _FAILURES as e:
            if not quiet:  # once, not every few seconds
                log.warning("progress is not reported to %s: %s", report.url, e)
            quiet = True
        await asyncio.sleep(PERIOD_SECONDS)


async def farewell(report: Report, tls: Path, status: Status) -> None:
    """The last report, tried a few times."""
    for _ in range(_FAREWELL_TRIES):
        with contextlib.suppress(*_FAILURES):
            await asyncio.to_thread(push, report, tls, status)
            return
        await asyncio.sleep(1.0)


def body(status: Status) -> bytes:
    """The report as it travels, never more than the hub takes, whatever sites have sent.

    The hub shows no metrics of single sites, so none go. Of the job's go those that most sites sent; long texts are cut until all fits.
    """
    most = SENTENCE.value
    while True:
        text = json.dumps(to_json(_cut(status, most)), ensure_ascii=False).encode(errors="backslashreplace")
        if len(text) <= HUB_REPORT.value or not most:
            return text
        most //= 2


def _cut(status: Status, most: int) -> Status:
    """Every text in at most so many bytes. The rest of a status is bounded: by the number of sites, and of conditions."""
    kept = list(status.metrics.items())[: HUB_METRICS.value]
    return replace(
        status,
        reason=one_line(status.reason, max(most, NAME.value)),
        message=one_line(status.message, max(most, NAME.value)),
        conditions=tuple(replace(c, message=one_line(c.message, max(most, NAME.value))) for c in status.conditions),
        metrics={one_line(name, NAME.value): value for name, value in kept},
        metrics_left_out=status.metrics_left_out + len(status.metrics) - len(kept),
        sites=tuple(
            replace(s, metrics={}, message=one_line(s.message, most) if most > 3 else "") for s in status.sites
        ),
    )


def push(report: Report, tls: Path, status: Status) -> bool:
    """Send one report; returns whether the job should pause.

    Raises OSError if the hub cannot be reached or is not the hub, ValueError if it refuses the report or answers nonsense,
    IdentityError if the certificate cannot be read.
    """
    url = urlsplit(report.url)
    context = client_context(identity.read(tls))
    address = (url.hostname or "", url.port or 443)
    with (
        socket.create_connection(address, _TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=report.server_name) as secured,
    ):
        connection = http.client.HTTPConnection(*address, timeout=_TIMEOUT_SECONDS)
        connection.sock = secured
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("PUT", url.path, body(status), headers)
        answer = connection.getresponse()
        text = answer.read(65_536)
    if answer.status in _TRY_AGAIN:
        raise ConnectionError(f"{answer.status} {text[:200].decode(errors='replace')}")
    if answer.status != 200:
        raise ValueError(f"the hub refuses the report: {answer.status} {text[:200].decode(errors='replace')}")
    said = json.loads(text)
    return isinstance(said, dict) and said.get("suspend") is True
