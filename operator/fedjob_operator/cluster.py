"""The API server. The only module that imports kubernetes; every call of the operator's own goes through `_call`.

Writes ask `may_write` first: a process that has lost its Lease must not write, not even what it had planned before.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from .names import EVENT, FIELD_MANAGER, KINDS, Kind
from .observed import Raw
from .plan import Delete, Manifest

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_PAGE = 200
_TIMEOUT_SECONDS = 30.0
_CONNECTIONS = 32


@dataclass
class ApiError(Exception):
    """The API server did not do what was asked. status: HTTP code, 0 if there was no answer. what: "PATCH services"."""

    status: int
    reason: str
    message: str
    what: str
    retry_after: float = 0.0

    def __str__(self) -> str:
        return f"{self.what}: {self.status or 'no answer'} {self.reason}: {self.message}"

    @property
    def gone(self) -> bool:
        """The object is not there."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Somebody else was faster, or owns a field."""
        return self.status == 409

    @property
    def refused(self) -> bool:
        """The same request will be refused again until somebody changes something: rights, quota, a rule, a namespace."""
        writes = self.what.startswith(("PATCH", "POST"))  # where what is missing is the namespace
        return self.status in (401, 403, 422) or (writes and self.status in (400, 404))


class Calls(Protocol):
    """Who counts calls; `metrics.Metrics` does."""

    def called(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """A call ended with an HTTP code, 0 for none."""


class Cluster:
    """The API server of one cluster, as the operator uses it. Objects are plain JSON. Every method raises ApiError."""

    def __init__(self, calls: Calls, may_write: Callable[[], None]) -> None:
        self._calls = calls
        self._may_write = may_write
        self._client: ApiClient | None = None

    async def open(self, kubeconfig: str = "") -> None:
        """Find the API server: in a pod by its service account, elsewhere by `kubeconfig` ("": the usual places)."""
        configuration = Configuration()
        try:
            if kubeconfig:
                raise ConfigException
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            await load_kube_config(config_file=kubeconfig or None, client_configuration=configuration)
        configuration.connection_pool_maxsize = _CONNECTIONS
        # Looking for a .netrc and a proxy in the environment would take two threads' turns for each call.
        configuration.client_session_kwargs = {"trust_env": False}
        self._client = ApiClient(configuration)

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Raw | None:
        """One object, None if it is not there."""
        try:
            found: Raw = await self._call("GET", kind, kind.path(namespace, name))
            return found
        except ApiError as e:
            if e.gone:
                return None
            raise

    async def find(self, kind: Kind, namespace: str, name: str) -> Raw | None:
        """As `get`, with no more than the right to list."""
        page = await self._call("GET", kind, kind.path(namespace), [("fieldSelector", f"metadata.name={name}")])
        return next(({"apiVersion": kind.api_version, "kind": kind.name, **item} for item in page["items"]), None)

    async def objects(self, kind: Kind, namespace: str, labels: Mapping[str, str] | None = None) -> list[Raw]:
        """All objects of a namespace; for few of them."""
        return [raw async for raws, _ in self.pages(kind, namespace, labels) for raw in raws]

    async def pages(
        self,
        kind: Kind,
        namespace: str,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        accept: str = JSON,
    ) -> AsyncIterator[tuple[list[Raw], int]]:
        """All objects of a namespace ("": of all), page by page, each with the version of the list.

        accept: JSON, or METADATA for objects without spec and status, at a fraction of the cost.
        """
        query = [("limit", str(_PAGE))]
        for selector, wanted in (("labelSelector", labels), ("fieldSelector", fields)):
            if wanted:
                query.append((selector, ",".join(f"{key}={value}" for key, value in sorted(wanted.items()))))
        token = ""
        while True:
            more = [("continue", token)] if token else []
            page = await self._call("GET", kind, kind.path(namespace), [*query, *more], accept=accept)
            items: list[Raw] = [
                {**item, "apiVersion": kind.api_version, "kind": kind.name} for item in page["items"] or ()
            ]
            yield items, int(page["metadata"]["resourceVersion"])
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def apply(
        self, manifest: Manifest, *, status: bool = False, force: bool = True, manager: str = FIELD_MANAGER
    ) -> Raw:
        """Server-side apply of an object, or of its status.

        Applied without force, an object that somebody else has a say in is a conflict. A resourceVersion in its metadata is a
        precondition; a UID is none where a status is applied (seen with 1.35).
        """
        metadata, kind = manifest["metadata"], KINDS[manifest["kind"]]
        path = kind.path(metadata["namespace"], metadata["name"]) + ("/status" if status else "")
        query = [("fieldManager", manager), ("force", "true" if force else "false")]
        self._may_write()
        written: Raw = await self._call("PATCH", kind, path, query, manifest, _APPLY)
        return written

    async def create(self, manifest: Manifest) -> Raw:
        """Make an object. One of the same name is a conflict."""
        kind = KINDS[manifest["kind"]]
        self._may_write()
        path = kind.path(manifest["metadata"]["namespace"])
        made: Raw = await self._call("POST", kind, path, [("fieldManager", FIELD_MANAGER)], manifest)
        return made

    async def replace(self, manifest: Manifest) -> Raw:
        """Put an object in the place of the one with the same resourceVersion. Another version there is a conflict."""
        self._may_write()
        metadata, kind = manifest["metadata"], KINDS[manifest["kind"]]
        written: Raw = await self._call("PUT", kind, kind.path(metadata["namespace"], metadata["name"]), (), manifest)
        return written

    async def delete(self, target: Delete) -> None:
        """Delete an object with this UID; one that is gone already is success, another of its name a conflict."""
        kind = KINDS[target.kind]
        options = {"propagationPolicy": "Background", "preconditions": {"uid": target.uid}}
        self._may_write()
        try:
            await self._call("DELETE", kind, kind.path(target.namespace, target.name), (), options)
        except ApiError as e:
            if not e.gone:
                raise

    async def record(self, event: Manifest) -> None:
        """Post an event. One of the same name has been posted by an earlier try."""
        self._may_write()
        try:
            await self._call("POST", EVENT, EVENT.path(event["metadata"]["namespace"]), (), event)
        except ApiError as e:
            if not e.conflict:
                raise

    async def _call(
        self,
        verb: str,
        kind: Kind,
        path: str,
        query: Any = (),
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        if self._client is None:
            raise RuntimeError("Cluster.open comes first")
        what, began, code = f"{verb} {kind.plural}", time.monotonic(), 0
        try:
            headers = {"Accept": accept, "Content-Type": content_type}
            _, url, headers, *_ = await self._client.param_serialize(  # without the body, which is plain JSON already
                verb, path, query_params=list(query), header_params=headers, auth_settings=["BearerToken"]
            )
            response = await self._client.call_api(verb, url, headers, body, _request_timeout=_TIMEOUT_SECONDS)
            code, text = response.status, await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as e:
            raise ApiError(0, type(e).__name__, str(e) or "no answer in time", what) from e
        finally:
            self._calls.called(verb, kind.plural, code, time.monotonic() - began)
        if code < 400:
            return _read(text, what)
        raise _error(code, text, str(response.headers.get("Retry-After") or ""), what)


def _read(text: bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:  # a proxy in between has ended the answer early, in good form
        raise ApiError(0, "Truncated", str(e), what) from e


def _error(code: int, text: bytes, retry_after: str, what: str) -> ApiError:
    try:
        said = json.loads(text)
        reason, message = str(said.get("reason", "")), str(said.get("message", ""))
    except (ValueError, AttributeError):
        reason, message = "", text[:200].decode(errors="replace")
    return ApiError(code, reason, message, what, float(retry_after) if retry_after.isdecimal() else 0.0)
