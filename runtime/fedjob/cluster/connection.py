"""The API server, as a person with a kubeconfig has it. The only module that imports kubernetes and aiohttp."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from .failures import ApiFailure, ClusterError, StreamCut, Unreachable, unreachable

APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"
JSON = "application/json"
FIELD_MANAGER = "fedjob-cli"

_TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_LOGIN_SECONDS = 30.0  # between two log-ins: a token that is refused at once is no better a moment later
_HEARTBEAT_SECONDS = 20.0  # a path that lost its state is found out, and one that forgets silent ones does not
_EXEC_PROTOCOLS = ("v4.channel.k8s.io",)  # passed on to the kubelet as it is; older and newer clusters know it
_STDOUT, _STDERR, _ERROR = 1, 2, 3  # channels of such a stream
_USUAL = Path("~/.kube/config").expanduser()
_IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Where:
    """Which cluster and namespace, as on kubectl's command line; None: what the kubeconfig says."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True)
class _Request:
    verb: str
    path: str
    timeout: aiohttp.ClientTimeout
    query: Query = ()
    body: Any = None
    content: str = JSON
    accept: str = JSON


@dataclass
class ExecFailed(Exception):  # noqa: N818 - what has happened
    """A command in a pod ended with an error. words: what it wrote to its standard error."""

    exit_code: int
    words: str


class Connection:
    """One API server. Objects are plain JSON. Methods raise ApiFailure for a refusal, Unreachable without an answer."""

    def __init__(self, client: ApiClient, namespace: str, log_in: Callable[[], Awaitable[str]]) -> None:
        self._client = client
        self._log_in = log_in
        self._logged_in_at = time.monotonic()
        self.namespace = namespace

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._client.configuration.host)

    async def call(
        self,
        verb: str,
        path: str,
        what: str,
        *,
        query: Query = (),
        body: Any = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> tuple[int, Any]:
        """One call: HTTP code and answer. what: for messages, as in "get the job digits"."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
        response = await self._open(what, _Request(verb, path, timeout, query, body, content, accept))
        try:
            return response.status, json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as e:
            raise Unreachable(unreachable(self.server, _why(e))) from e
        finally:
            response.release()

    async def get(self, path: str, what: str, query: Query = ()) -> Any:
        """An object or a list."""
        return (await self.call("GET", path, what, query=query))[1]

    async def lines(self, path: str, what: str, query: Query = ()) -> AsyncIterator[bytes]:
        """The lines of an answer that goes on: a log, a watch. Raises StreamCut if it does not end by itself."""
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS)
        response = await self._open(what, _Request("GET", path, timeout, query, accept="*/*"))
        rest = b""
        try:
            async for data in response.content.iter_any():
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    yield line
            if rest:
                yield rest
        except (aiohttp.ClientError, TimeoutError) as e:
            raise StreamCut(f"the stream was cut ({_why(e)}); try again") from e
        finally:
            response.close()

    async def execute(
        self, namespace: str, pod: str, container: str, command: Sequence[str], what: str
    ) -> AsyncGenerator[bytes]:
        """What a command in a container writes to its standard output. Raises ExecFailed, and StreamCut if the stream ends early."""
        query = [("command", word) for word in command]
        query += [("container", container), ("stdout", "true"), ("stderr", "true")]
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        _, url, headers, _, _ = await self._client.param_serialize(
            "GET", f"{path}?{urlencode(query)}", header_params={}, auth_settings=["BearerToken"]
        )
        session, rest = self._session(), self._client.rest_client
        try:
            stream = await session.ws_connect(
                "ws" + url.removeprefix("http"),
                headers=headers,
                protocols=_EXEC_PROTOCOLS,
                heartbeat=_HEARTBEAT_SECONDS,
                max_msg_size=0,
                proxy=rest.proxy,
            )
        except aiohttp.WSServerHandshakeError as e:
            raise ApiFailure(e.status, "", e.message, what) from e
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise StreamCut(_why(e)) from e
        words = b""
        async with stream:
            async for message in stream:
                if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                    continue
                channel, data = message.data[0], message.data[1:]
                if channel == _STDOUT:
                    yield data
                elif channel == _STDERR:
                    words = (words + data)[-4096:]
                elif channel == _ERROR:
                    _check_end(json.loads(data), words)
                    return
        raise StreamCut("the stream ended before the command did")

    async def _open(self, what: str, request: _Request) -> aiohttp.ClientResponse:
        response = await self._send(request)
        if response.status == 401 and await self._logged_in_again():
            response.release()
            response = await self._send(request)
        if response.status >= 400:
            text = await response.read()
            response.release()
            raise _failure(response.status, text, what)
        return response

    async def _send(self, request: _Request) -> aiohttp.ClientResponse:
        headers = {"Accept": request.accept, "Content-Type": request.content}
        try:
            verb, url, headers, body, _ = await self._client.param_serialize(
                request.verb, request.path, query_params=list(request.query), header_params=headers, body=request.body,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            answer = await self._client.call_api(verb, url, headers, body, _request_timeout=request.timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise Unreachable(unreachable(self.server, _why(e))) from e
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _logged_in_again(self) -> bool:
        """Read the kubeconfig anew, and ask its plugin for another token: one that was good an hour ago has ended meanwhile."""
        now = time.monotonic()
        if now - self._logged_in_at < _LOGIN_SECONDS:
            return False
        self._logged_in_at = now
        await self._log_in()
        return True

    def _session(self) -> aiohttp.ClientSession:
        rest = self._client.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        session: aiohttp.ClientSession = rest.pool_manager
        return session


@asynccontextmanager
async def connected(where: Where) -> AsyncIterator[Connection]:
    """A connection to the cluster that is meant. Raises ClusterError if there is no saying which."""
    configuration = Configuration()

    def log_in() -> Awaitable[str]:
        return _configure(where, configuration)

    try:
        namespace = await log_in()
    except (ConfigException, yaml.YAMLError, OSError, ValueError) as e:
        raise ClusterError(_no_cluster(where, e)) from e
    configuration.connection_pool_maxsize = 0  # as many as there are logs to read at once
    client = ApiClient(configuration)
    try:
        yield Connection(client, where.namespace or namespace, log_in)
    finally:
        await client.close()


async def _configure(where: Where, configuration: Configuration) -> str:
    """Fill in the configuration; returns the namespace that goes with it. Raises ConfigException and what readers raise."""
    named = str(where.kubeconfig or os.environ.get("KUBECONFIG") or "")
    if not named and not _USUAL.exists() and _IN_CLUSTER_NAMESPACE.exists():
        load_incluster_config(client_configuration=configuration)
        return _IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip()
    paths = named or str(_USUAL)
    if not any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path):
        raise ConfigException("no such file")
    loader = await load_kube_config(paths, where.context, configuration, persist_config=False)
    return str(loader.current_context["context"].get("namespace") or "default")


def _no_cluster(where: Where, error: Exception) -> str:
    source = where.kubeconfig or os.environ.get("KUBECONFIG") or _USUAL
    if where.context is not None and "context" in str(error):
        return f"no context {where.context} in {source}: kubectl config get-contexts lists those that there are"
    return f"no cluster: {source} cannot be used ({' '.join(str(error).split())}): name a kubeconfig with --kubeconfig"


def _failure(status: int, text: bytes, what: str) -> ApiFailure:
    try:
        said = json.loads(text)
        details = said.get("details") or {}
        return ApiFailure(status, str(said.get("reason") or ""), str(said.get("message") or ""), what, details)
    except (ValueError, AttributeError):
        return ApiFailure(status, "", text[:500].decode(errors="replace"), what)


def _check_end(status: Any, words: bytes) -> None:
    """The last word of a command's stream, a Status. Raises ExecFailed unless the command ended well."""
    if status.get("status") == "Success":
        return
    causes = (status.get("details") or {}).get("causes") or ()
    code = next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), None)
    if code is None:  # the runtime's own trouble, such as a container that has just ended
        raise StreamCut(str(status.get("message") or "the command could not be run"))
    raise ExecFailed(code, words.decode(errors="replace").strip())


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
