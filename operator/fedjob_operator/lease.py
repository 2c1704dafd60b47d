"""Leadership: one process at a time acts, and a process that is no longer the one ends.

The lock is a Lease. Whoever is not the holder waits until the record has not changed for the Lease's whole life *by its own clock*,
so clocks of machines need not agree. The holder renews three times as often as it must; if it could not for two thirds of
the Lease's life, it stops acting before anybody else may begin: `check` raises, and the process exits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from .names import LEASE, Kind
from .observed import Raw
from .plan import Manifest

log = logging.getLogger(__name__)

NAME = "fedjob-operator"
_MARGIN_SECONDS = 0.05
_LEAST_SECONDS = 1.0  # between two tries, however late the last renewal
_MAY_ACT = 2 / 3  # of the Lease's life since the last renewal that is known to have reached the API server


class LeadershipLost(Exception):  # noqa: N818 - what happened
    """This process must not write any more."""


class Leases(Protocol):
    """The part of `Cluster` that a Lease needs. Every method raises an error whose `conflict` tells a lost race."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Raw | None:
        """The Lease, None without one."""

    async def create(self, manifest: Manifest) -> Raw:
        """Make it."""

    async def replace(self, manifest: Manifest) -> Raw:
        """Write it, if nobody else has meanwhile."""


@dataclass
class Leadership:
    """One process's claim. identity: of the pod, so that a container that is started again in it need not wait.

    seconds: the Lease's life. clock: monotonic, and it must go on while the process is stopped.
    """

    cluster: Leases
    namespace: str
    identity: str
    seconds: float
    clock: Callable[[], float]
    failures: tuple[type[Exception], ...]
    _held: Raw | None = None
    _renewed: float = 0.0
    _watched: tuple[Any, float] = field(
        default=(None, 0.0)
    )  # the record of another holder, and since when it is the same

    @property
    def period(self) -> float:
        """Seconds between two renewals."""
        return self.seconds / 5

    @property
    def leading(self) -> bool:
        """Whether this process may act."""
        return self._held is not None and self.clock() - self._renewed < self.seconds * _MAY_ACT

    def check(self) -> None:
        """Raise LeadershipLost unless this process may act."""
        if not self.leading:
            raise LeadershipLost("the Lease could not be renewed in time; another replica may act by now")

    async def acquire(self) -> None:
        """Return once this process leads."""
        while True:
            try:
                if await self._try():
                    log.info("leading", extra={"identity": self.identity})
                    return
            except self.failures as e:
                log.warning("the Lease cannot be read or written: %s", e)
            await asyncio.sleep(self._pause())

    async def hold(self) -> None:
        """Renew for ever. Raises LeadershipLost."""
        while True:
            await asyncio.sleep(max(self._renewed + self.period - self.clock(), _LEAST_SECONDS))
            try:
                if not await self._try():
                    raise LeadershipLost("another replica holds the Lease")
            except self.failures as e:
                log.warning("the Lease is not renewed: %s", e)
            self.check()

    async def release(self) -> None:
        """Let another replica begin at once, at an orderly end."""
        if self._held is None or not self.leading:
            return
        held, self._held = self._held, None
        try:
            await self.cluster.replace(self._record(held, holder=""))
        except self.failures as e:
            log.info("the Lease is not released: %s", e)

    async def _try(self) -> bool:
        """Renew the record if it is as we left it, else read it, and claim it if it is free. Whether it is ours now."""
        if self._held is not None and await self._renew(self._held):
            return True
        raw = await self.cluster.get(LEASE, self.namespace, NAME)
        if raw is not None and not self._may_take(raw.get("spec") or {}):
            self._held = None
            return False
        began = self.clock()
        record = self._record(raw, self.identity)
        self._held = await (self.cluster.create(record) if raw is None else self.cluster.replace(record))
        self._renewed = began
        return True

    async def _renew(self, held: Raw) -> bool:
        """Whether the record could be written; False if somebody has written it meanwhile, perhaps an earlier try of ours."""
        began = self.clock()  # the Lease counts from before the write: its answer may be late
        try:
            self._held = await self.cluster.replace(self._record(held, self.identity))
        except self.failures as e:
            if getattr(e, "conflict", False):
                return False
            raise
        self._renewed = began
        return True

    def _pause(self) -> float:
        """Seconds until the next try to acquire: when the other holder's time is over, if that comes sooner."""
        record, since = self._watched
        left = since + self.seconds - self.clock() if record is not None else 0.0
        return min(left + _MARGIN_SECONDS, self.period) if left > 0 else self.period

    def _may_take(self, spec: Raw) -> bool:
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self.identity):
            return True
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._watched[0]:
            self._watched = (record, self.clock())
        life = float(spec.get("leaseDurationSeconds") or self.seconds)
        return self.clock() - self._watched[1] >= life

    def _record(self, before: Raw | None, holder: str) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Raw = (before or {}).get("spec") or {}
        same = spec.get("holderIdentity") == holder
        metadata: dict[str, Any] = {"name": NAME, "namespace": self.namespace}
        if before is not None:
            metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(int(self.seconds), 1),
                "acquireTime": spec.get("acquireTime", now) if same else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not same and before is not None),
            },
        }
