"""The API server as one user sees it: plain JSON over HTTPS, without a client library between the test and the answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from fedjob_operator.names import Kind

PATIENCE_SECONDS = 60.0
_WATCH_SECONDS = 3600
_IDLE_SECONDS = 30.0  # the API server hangs up after 90
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

Raw = dict[str, Any]


class RefusedError(AssertionError):
    """The API server said no. code: of HTTP; reason and message: its own words."""

    def __init__(self, call: str, code: int, status: Mapping[str, Any]) -> None:
        self.code = code
        self.reason = str(status.get("reason", ""))
        self.message = str(status.get("message", ""))
        super().__init__(f"{call}: {code} {self.reason}: {self.message}")


def until(what: str, found: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until `found` gives something true, and return it; say what was awaited if it does not come."""
    end = time.monotonic() + seconds
    while True:
        last = found()
        if last:
            return last
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; last seen: {last!r}")
        time.sleep(0.05)  # between two looks, not instead of one


def _events(answer: http.client.HTTPResponse) -> Iterator[Raw]:
    with contextlib.suppress(
        OSError, http.client.HTTPException, AttributeError
    ):  # the line was cut, or closed while we read
        for text in answer:
            yield json.loads(text)


@dataclass
class Kube:
    """An API server as the bearer of a token sees it. as_user: another name to act under, which an administrator may."""

    url: str
    token: str
    trust: ssl.SSLContext
    as_user: str = ""
    _lines: threading.local = field(default_factory=threading.local)

    def call(self, verb: str, path: str, body: Any = None, content: str = "application/json", **query: str) -> Any:
        """Send one call and return the answer's JSON, or {"message": …} of its text. Raises RefusedError for a code of 400 or more."""
        target = path + (f"?{urlencode(query)}" if query else "")
        code, kind, text = self._send(verb, target, None if body is None else json.dumps(body), content)
        answer = json.loads(text) if kind.startswith("application/json") else {"message": text.decode()}
        if code >= 400:
            raise RefusedError(f"{verb} {path}", code, answer)
        return answer

    def _send(self, verb: str, target: str, body: str | None, content: str) -> tuple[int, str, bytes]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content, "Accept": "application/json"}
        if self.as_user:
            headers["Impersonate-User"] = self.as_user
        line, used = getattr(self._lines, "line", None), getattr(self._lines, "used", 0.0)
        if line is None or time.monotonic() - used > _IDLE_SECONDS:
            line = http.client.HTTPSConnection(urlsplit(self.url).netloc, context=self.trust, timeout=30)
        self._lines.line = None  # until the answer is read whole
        line.request(verb, target, body, headers)
        answer = line.getresponse()
        text = answer.read()
        if not answer.will_close:
            self._lines.line, self._lines.used = line, time.monotonic()
        return answer.status, answer.getheader("Content-Type", ""), text

    def get(self, kind: Kind, namespace: str, name: str) -> Any:
        """One object, None if it is not there."""
        try:
            return self.call("GET", kind.path(namespace, name))
        except RefusedError as error:
            if error.code == 404:
                return None
            raise

    def list(self, kind: Kind, namespace: str = "", labels: str = "") -> list[Any]:
        """All objects of a kind; namespace "": of all namespaces."""
        found: list[Any] = self.call("GET", kind.path(namespace), labelSelector=labels)["items"]
        return found

    @contextlib.contextmanager
    def watching(self, kind: Kind, namespace: str) -> Iterator[Iterator[Raw]]:
        """What is there, then what becomes of it, event by event, for another thread to read; it ends with the block."""
        line = http.client.HTTPSConnection(urlsplit(self.url).netloc, context=self.trust)
        query = urlencode({"watch": "1", "resourceVersion": "0", "timeoutSeconds": _WATCH_SECONDS})
        line.request("GET", f"{kind.path(namespace)}?{query}", headers={"Authorization": f"Bearer {self.token}"})
        sock, answer = line.sock, line.getresponse()
        try:
            yield _events(answer)
        finally:
            sock.shutdown(socket.SHUT_RDWR)  # whoever reads comes to the end
            line.close()

    def create(self, kind: Kind, namespace: str, name: str, **parts: Any) -> Any:
        """Make an object from its parts: spec, status, data, metadata beside name and namespace."""
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **parts.pop("metadata", {})}
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **parts}
        return self.call("POST", kind.path(namespace), body, fieldValidation="Strict")

    def patch(self, kind: Kind, namespace: str, name: str, body: Any, sub: str = "") -> Any:
        """Merge `body` into an object, or into its subresource `sub`, such as "/status"."""
        return self.call("PATCH", kind.path(namespace, name) + sub, body, MERGE)

    def apply(self, kind: Kind, namespace: str, name: str, manager: str, sub: str = "", **parts: Any) -> Any:
        """Server-side apply: from now on `manager` owns exactly the fields given. Raises RefusedError (409) where another does."""
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **parts}
        return self.call("PATCH", kind.path(namespace, name) + sub, body, APPLY, fieldManager=manager)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object; what it owns goes in the background."""
        self.call("DELETE", kind.path(namespace, name), {"propagationPolicy": "Background"})
