"""The hub's authority in its Secret: read by every replica, and carried from one to the next by the one that leads.

One step at a time, each in the Secret before anybody acts on it, and each written over the very version that it was decided for. What is
decided is in `desired.authority`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from . import events, names, pki
from .cluster import ApiError, Cluster
from .desired import authority as decisions
from .desired.authority import Follower, Move, Step
from .metrics import Metrics
from .observed import Raw
from .plan import Event, Manifest
from .settings import Settings
from .store import Store

log = logging.getLogger(__name__)

_EVENTS = {
    Move.INTRODUCE: "AuthorityIntroduced",
    Move.SIGN: "AuthoritySigns",
    Move.DROP: "AuthorityDropped",
}


@dataclass
class Rotation:
    """One replica's view of the authority. cluster: writes only while this replica leads; free: always.

    changed: called when what is trusted or what signs is another from now on.
    """

    cluster: Cluster
    free: Cluster
    store: Store
    settings: Settings
    metrics: Metrics
    changed: Callable[[], None]
    _authority: pki.Authority | None = None
    _version: int = -1  # of the Secret; an answer that comes late must not bring back an older one
    _said: str = ""

    def authority(self) -> pki.Authority:
        """The hub's authority, once it was read."""
        assert self._authority is not None
        return self._authority

    async def find(self) -> None:
        """Read the authority, as it is now; made by whichever replica is first.

        Raises ApiError if rights are missing, NoAuthorityError if something else is in its place.
        """
        while True:
            try:
                if await self._read() is not None:
                    return
                await self.free.create(self._secret())
            except ApiError as e:
                if e.refused:
                    raise
                log.warning("the authority cannot be read yet", extra={"error": str(e)})
                await asyncio.sleep(max(e.retry_after, 1.0))

    async def follow_for_ever(self) -> None:
        """What every replica does: look at the Secret now and then."""
        while True:
            await asyncio.sleep(self.settings.authority_seconds)
            try:
                await self._read()
            except (ApiError, pki.NoAuthorityError) as e:
                self._say(logging.ERROR, "the authority cannot be read", str(e))

    async def turn_for_ever(self) -> None:
        """What the leading replica does besides, once everything is listed: the next step, when it is time."""
        while True:
            try:
                await self._turn()
            except (ApiError, pki.NoAuthorityError) as e:
                if not (isinstance(e, ApiError) and e.conflict):  # else somebody was faster: it is looked at anew
                    self._say(logging.ERROR, "the authority cannot be looked after", str(e))
            await asyncio.sleep(self.settings.authority_seconds)

    async def _turn(self) -> None:
        raw = await self._read()
        if raw is None:
            await self.cluster.create(self._secret())
            log.warning("the authority's Secret was gone, and is there again")
            return
        given = self._input(raw)
        step = decisions.step(given)
        self.metrics.tell_authority(given.authorities, sum(not decisions.follows(f, given) for f in given.followers))
        if step.move is None:
            self._say(logging.INFO, "the authority is being rotated", step.why)
            return
        await self._write(raw, step, given.now)

    def _input(self, raw: Raw) -> decisions.Input:
        now, authority = datetime.now(UTC), self.authority()
        seen = pki.authorities(raw, authority)
        # Only while somebody must follow: this parses every job.
        awaited = seen.phase != "Stable" and seen.followed_since is None
        followers = tuple(self._followers(now)) if awaited else ()
        return decisions.Input(seen, authority.trust, followers, now, self.settings.certificate_life)

    def _followers(self, now: datetime) -> Iterator[Follower]:
        for kind in (names.FEDERATED_JOB.name, names.SITE_JOB.name):
            for raw in self.store.raws(kind):
                metadata = raw["metadata"]
                place = (metadata["namespace"], names.secret(kind, metadata["name"], metadata["uid"]))
                found = decisions.follower(raw, self.store.certificates.get(place), now)
                if found is not None:
                    yield found

    async def _write(self, raw: Raw, step: Step, now: datetime) -> None:
        """Put a step into the Secret, and only then take it up."""
        assert step.move is not None
        written = await self.cluster.replace(stepped(raw, self.authority(), step.move, now, self.settings))
        self._take(written)
        log.info("the authority: %s", step.move.name.lower(), extra={"why": step.why})
        if step.move in _EVENTS:
            await events.tell(self.cluster, self.metrics, written, Event(_EVENTS[step.move], step.why))

    async def _read(self) -> Raw | None:
        """The Secret, None if there is none. Raises ApiError, NoAuthorityError."""
        raw = await self.free.get(names.SECRET, self.settings.namespace, pki.SECRET_NAME)
        if raw is not None:
            self._take(raw)
        return raw

    def _take(self, raw: Raw) -> None:
        version = int(raw["metadata"]["resourceVersion"])
        if version < self._version:
            return
        before, now = self._authority, pki.from_secret(raw, self.settings.trust_domain)
        self._authority, self._version = now, version
        self.metrics.ends["authority"] = now.current.certificate.not_valid_after_utc.timestamp()
        if before is not None and before.trust != now.trust:
            self.changed()

    def _secret(self) -> Manifest:
        """The Secret made anew: of the authority that this replica knows, if it knows one."""
        made = self._authority or pki.create(
            self.settings.trust_domain, datetime.now(UTC), self.settings.authority_life
        )
        return pki.to_secret(made, self.settings.namespace)

    def _say(self, level: int, what: str, why: str) -> None:
        """Once, not every few seconds."""
        if why and why != self._said:
            log.log(level, what, extra={"why": why})
        self._said = why


def stepped(raw: Raw, authority: pki.Authority, move: Move, now: datetime, settings: Settings) -> Manifest:
    """The Secret that holds `authority`, after a step: of this very version, with whatever else people have noted on it."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    notes = {key: value for key, value in metadata.get("annotations", {}).items() if key != names.FOLLOWED_ANNOTATION}
    if move is Move.FOLLOWED:
        notes[names.FOLLOWED_ANNOTATION] = f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"
    elif move is Move.INTRODUCE:
        notes[names.ROTATED_ANNOTATION] = notes.get(names.ROTATE_ANNOTATION, "")
        authority = pki.introduce(authority, now, settings.authority_life)
    else:
        authority = pki.sign(authority) if move is Move.SIGN else pki.drop(authority)
    kept = {key: raw[key] for key in ("apiVersion", "kind", "type")}
    return {**kept, "metadata": {**metadata, "annotations": notes}, "data": pki.secret_data(authority)}
