"""The certificate of this process, renewed under it: files that are replaced while the process runs.

Whoever renews a certificate replaces its files; in a pod the kubelet does, by moving one link. What has changed is used only once
it is whole and fits: key, certificate and authorities of one issue, valid now. Until then the process keeps what it has.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from . import identity
from .errors import IdentityError, TransportError
from .identity import CA_FILE, CERT_FILE, KEY_FILE, Credentials, Identity

log = logging.getLogger("fedjob")

_LOOK_SECONDS = 2.0  # three stats; the kubelet itself takes a minute to bring a renewed Secret
_Stamp = tuple[tuple[int, int, int], ...]


class Keyring:
    """The credentials in a folder, as they are now. For any thread.

    expect: who the process is. Raises IdentityError if the folder cannot be read; its first content is taken as it is.
    """

    def __init__(self, folder: Path, expect: Identity) -> None:
        self._folder = folder
        self._expect = expect
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._held = identity.read(folder)
        self._complaint = ""

    def now(self) -> Credentials:
        """The newest that will do. Looks at the files' dates, and reads them if those have changed."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._take(stamp)
            return self._held

    def not_after(self) -> float:
        """When the newest ends, in seconds since the epoch."""
        return identity.not_after(self.now().cert_pem).timestamp()

    def _take(self, stamp: _Stamp) -> None:
        try:
            found = identity.read(self._folder)
            wrong = " ".join(identity.problems(found, datetime.now(UTC), self._expect))
        except IdentityError as e:
            found, wrong = self._held, str(e)
        if wrong:  # perhaps it is being written: the next look reads it again
            if wrong != self._complaint:
                log.warning("a renewed certificate in %s will not do, the old one stays: %s", self._folder, wrong)
            self._complaint = wrong
            return
        self._stamp, self._complaint = stamp, ""
        if found != self._held:
            self._held = found
            log.info("%s has a renewed certificate, valid until %s", self._expect, identity.not_after(found.cert_pem))

    def _look(self) -> _Stamp:
        """What changes with the files; nothing while one of them is missing."""
        try:
            found = [(self._folder / name).stat() for name in (KEY_FILE, CERT_FILE, CA_FILE)]
        except OSError:
            return ()
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in found)


class Renewal:
    """Hands what is new in a keyring to `use`, from a thread of its own, until closed.

    held: what is in use already. use: raises TransportError if it cannot, and gets the same again a little later.
    """

    def __init__(self, keyring: Keyring, held: Credentials, use: Callable[[Credentials], None]) -> None:
        self._keyring = keyring
        self._held = held
        self._use = use
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="fedjob-renewal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nothing is handed over any more."""
        self._over.set()

    def _follow(self) -> None:
        complaint = ""
        while not self._over.wait(_LOOK_SECONDS * random.uniform(0.5, 1.5)):  # a thousand sites, not all at once
            newest = self._keyring.now()
            if newest == self._held:
                continue
            try:
                self._use(newest)
            except TransportError as e:
                if str(e) != complaint:
                    log.warning("the renewed certificate is not in use yet: %s", e)
                complaint = str(e)
            else:
                self._held, complaint = newest, ""
