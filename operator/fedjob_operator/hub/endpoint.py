"""Where the servers of jobs report their progress: HTTPS, one route, any replica.

The caller proves which job it serves with that job's certificate; TLS has verified it before a byte of the request is read. The answer
tells the server whether the job should pause. Reports are capped in size and in rate, and an older attempt is not heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiohttp import web

from fedjob import identity
from fedjob.errors import IdentityError
from fedjob.records import Status, from_json
from fedjob.tls import server_context

from .. import names, pki
from ..cluster import ApiError, Cluster
from ..metrics import Metrics
from ..plan import Manifest
from . import reports

log = logging.getLogger(__name__)

ROUTE = "/v1alpha1/namespaces/{namespace}/federatedjobs/{name}/progress"
_TRIES = 5
_LEAST_SECONDS = 1.0  # between two reports of one job


@dataclass
class Endpoint:
    """The endpoint of one replica. clock: monotonic seconds. authority: gives the hub's authority. life: of its certificate."""

    cluster: Cluster
    metrics: Metrics
    authority: Callable[[], pki.Authority]
    host: str
    trust_domain: str
    life: timedelta
    clock: Callable[[], float]
    _last: dict[str, tuple[float, int]] = field(default_factory=dict)  # job uid: when, attempt
    _context: ssl.SSLContext | None = None

    async def serve(self, port: int, address: str | None = None) -> int:
        """Listen, on every address by default; returns the port.

        `renew` must be called before the certificate ends, and when the authority is another.
        """
        application = web.Application(client_max_size=reports.MAX_BYTES)
        application.router.add_put(ROUTE, self.report)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        self.renew()
        door = self._context
        assert door is not None
        door.sni_callback = self._newest  # called for each handshake, also without a name
        site = web.TCPSite(runner, address, port, ssl_context=door)
        await site.start()
        return int(runner.addresses[0][1])

    def renew(self) -> None:
        """A fresh certificate for new connections, and the authorities that are trusted by now, and no others."""
        made = self.authority().issue(pki.HUB_UID, None, (self.host,), datetime.now(UTC), self.life)
        self._context = server_context(made)
        self.metrics.ends["hub"] = identity.not_after(made.cert_pem).timestamp()

    async def renew_for_ever(self) -> None:
        """Renew at half of the certificate's life, again and again."""
        while True:
            await asyncio.sleep(self.life / timedelta(seconds=2))
            self.renew()

    def _newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """A context keeps every authority that it was ever given: so each renewal is another one, taken up here."""
        assert self._context is not None
        connection.context = self._context

    async def report(self, request: web.Request) -> web.Response:
        """One report. 200 {"suspend": …}; 403 another job's; 409 an older attempt's; 413, 429 too much; 503 try again."""
        try:
            uid = self._job_of(request)
        except IdentityError as e:
            return self._answer(403, "refused", str(e))
        try:
            report = from_json(Status, json.loads(await request.read()))
        except ValueError as e:
            return self._answer(400, "malformed", str(e)[:200])
        if refusal := self._refusal(uid, report):
            return refusal
        for _ in range(_TRIES):
            try:
                return await self._write(request.match_info["namespace"], request.match_info["name"], uid, report)
            except ApiError as e:
                if not e.conflict:  # which is a race with the hub's own part of the status
                    log.warning("a report is not written: %s", e)
                    break
        return self._answer(503, "failed", "the API server refuses; try again")

    async def _write(self, namespace: str, name: str, uid: str, report: Status) -> web.Response:
        job = await self.cluster.get(names.FEDERATED_JOB, namespace, name)
        if job is None or job["metadata"]["uid"] != uid:
            return self._answer(404, "gone", f"there is no job {namespace}/{name} with this certificate's UID")
        manifest = reports.manifest(job, report, datetime.now(UTC))
        if reports.is_news(job, manifest):
            self.metrics.reports.labels(await self._apply(manifest)).inc()
        else:
            self.metrics.reports.labels("unchanged").inc()
        return web.json_response({"suspend": bool(job["spec"].get("suspend"))})

    async def _apply(self, manifest: Manifest) -> str:
        """Write a report, without its metrics if the API server takes none of it otherwise; returns the result.

        What no try can mend is logged and is no reason to keep from the server whether the job should pause.
        """
        for wanted in (manifest, reports.without_metrics(manifest)):
            try:
                await self.cluster.apply(wanted, status=True, manager=names.PROGRESS_MANAGER)
                return "written"
            except ApiError as e:
                if e.conflict or not e.refused:
                    raise
                log.error("a report is refused: %s", e)
        return "refused"

    def _job_of(self, request: web.Request) -> str:
        """UID of the job whose server calls. Raises IdentityError."""
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        uris = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI"]
        caller = identity.parse_spiffe(uris[0] if len(uris) == 1 else "")
        if caller.site is not None or caller.trust_domain != self.trust_domain:
            raise IdentityError(f"the caller is {caller}, and only the servers of jobs report here.")
        return caller.job_uid

    def _refusal(self, uid: str, report: Status) -> web.Response | None:
        now, attempt = self.clock(), report.job.attempt
        last, newest = self._last.get(uid, (-_LEAST_SECONDS, 0))
        if report.job.uid != uid:
            return self._answer(
                403, "refused", f"the certificate is for job {uid}, the report is about {report.job.uid}"
            )
        if attempt < newest:
            return self._answer(409, "stale", f"attempt {attempt} is over, the job is at attempt {newest}")
        if now - last < _LEAST_SECONDS:
            return self._answer(429, "too often", "one report a second")
        self._last[uid] = (now, attempt)
        self._forget(now)
        return None

    def _forget(self, now: float) -> None:
        """Jobs that have been silent for a day are over."""
        with contextlib.suppress(RuntimeError):
            for uid in [uid for uid, (last, _) in self._last.items() if now - last > 86_400]:
                del self._last[uid]

    def _answer(self, code: int, result: str, text: str) -> web.Response:
        self.metrics.reports.labels(result).inc()
        headers = {"Retry-After": "1"} if code in (429, 503) else None
        return web.json_response({"error": text}, status=code, headers=headers)
