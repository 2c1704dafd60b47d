"""The operator's own port: /metrics, /healthz (alive: loop, streams), /readyz (leading or standing by)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .metrics import Metrics

_BEAT_SECONDS = 0.5
_MAX_LAG_SECONDS = 30.0


@dataclass
class Health:
    """What the probes ask. problems: each returns what is wrong, "" if nothing is. clock: monotonic seconds."""

    metrics: Metrics
    clock: Callable[[], float]
    problems: list[Callable[[], str]] = field(default_factory=list)
    ready: bool = False
    before_scrape: Callable[[], None] = lambda: None
    _lag: float = 0.0

    async def serve(self, port: int, address: str | None = None) -> int:
        """Listen, on every address by default; returns the port."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
        return int(runner.addresses[0][1])

    async def beat(self) -> None:
        """Measure how late the loop is, for ever."""
        while True:
            due = self.clock() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self._lag = max(self.clock() - due, 0.0)
            self.metrics.loop_lag.observe(self._lag)

    async def _metrics(self, _: web.Request) -> web.Response:
        self.before_scrape()
        return web.Response(body=generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        found = [text for problem in self.problems if (text := problem())]
        if self._lag > _MAX_LAG_SECONDS:
            found.append(f"the event loop is {self._lag:.0f} s late")
        return web.Response(status=500 if found else 200, text="; ".join(found) or "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503, text="ok" if self.ready else "starting")
