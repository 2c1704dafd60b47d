"""What whoever supervises a site says in its name: that nobody will start it again. A script cannot know that of itself."""

from __future__ import annotations

import logging
import threading

from .errors import TransportError
from .identity import Credentials

log = logging.getLogger("fedjob.local")
_JOIN_SECONDS = 10.0


class Herald:
    """Speaks on threads of its own: the server may be away just then, and is started again by who has the word to say."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def say(self, address: str, credentials: Credentials, attempt: int, reason: str, message: str) -> None:
        """Return at once; it is said until the server has noted it, or the job is over, or `close` is called."""
        arguments = (address, credentials, attempt, reason, message)
        self._threads.append(threading.Thread(target=self._say, args=arguments, name="herald", daemon=True))
        self._threads[-1].start()

    def close(self) -> None:
        """The server is gone for good."""
        self._over.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def _say(self, address: str, credentials: Credentials, attempt: int, reason: str, message: str) -> None:
        from .transport import Channel, PermissionDenied  # most runs have nothing to say, and grpc takes long to load
        from .uplink import say_final

        pause = 0.1
        while not self._over.is_set():
            channel = Channel(address, "localhost", credentials)
            try:
                say_final(channel, attempt, reason, message)
                break
            except PermissionDenied as e:
                log.warning("the server does not take a site's last word: %s", e)
                break
            except TransportError:  # the server is being started again
                self._over.wait(pause)
                pause = min(pause * 2, 2.0)
            finally:
                channel.close()
