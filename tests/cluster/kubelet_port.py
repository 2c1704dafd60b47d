"""What the API server asks of a node: the logs of containers, and commands in them. The port of a kubelet, without the kubelet.

A test says what a container has written, and where the folders of a container are on this machine; a command then really runs here. Between
`fedjob` and this port everything is real: rights, audit, the API server's own proxying.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from .kube import Kube

_STDOUT, _STDERR, _ERROR = b"\x01", b"\x02", b"\x03"
_PROTOCOL = "v4.channel.k8s.io"


@dataclass
class KubeletPort:
    """A node's port. logs: (pod, container) -> time and text of each line. folders: of every container -> of this machine.

    cut_after: bytes after which the next streams of commands break, one each.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    logs: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    running: set[tuple[str, str]] = field(default_factory=set)
    cut_after: list[int] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # pods whose logs were asked for
    port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None

    def start(self, certificate: Path, key: Path) -> None:
        """Listen on any port of the loopback."""
        ready = threading.Event()

        async def serve() -> None:
            application = web.Application()
            application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
            application.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
            runner = web.AppRunner(application, shutdown_timeout=1.0)
            await runner.setup()
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, key)
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            self.port = int(runner.addresses[0][1])
            ready.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, name="kubelet-port", daemon=True)
        self._thread.start()
        assert ready.wait(10), "the port does not listen"

    def stop(self) -> None:
        """Close the port."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(10)

    def write(self, pod: str, container: str, text: str, at: str = "") -> None:
        """A container writes a line."""
        stamp = at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.logs.setdefault((pod, container), []).append((stamp, text))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["pod"], request.match_info["container"]
        asked = request.query
        self.asked.append(key[0])
        since = _moment(asked["sinceTime"]) if "sinceTime" in asked else None
        response = web.StreamResponse()
        await response.prepare(request)
        lines, told = self.logs.get(key, []), 0
        if "tailLines" in asked:
            told = max(len(lines) - int(asked["tailLines"]), 0)
        while True:
            for stamp, text in lines[told:]:
                if since is None or _moment(stamp) >= since:
                    await response.write(f"{stamp} {text}\n".encode())
            told = len(lines)
            if asked.get("follow") != "true" or key not in self.running:
                return response
            await asyncio.sleep(0.05)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        stream = web.WebSocketResponse(protocols=(_PROTOCOL,))
        await stream.prepare(request)
        command = [self._here(word) for word in request.query.getall("command")]
        self.commands.append(command)
        cut = self.cut_after.pop(0) if self.cut_after else None
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        told = 0
        while data := await process.stdout.read(30_000):
            if cut is not None and told + len(data) > cut:
                process.kill()
                await stream.send_bytes(_STDOUT + data[: cut - told])
                assert request.transport is not None
                request.transport.abort()
                await process.communicate()
                return stream
            told += len(data)
            await stream.send_bytes(_STDOUT + data)
        if words := await process.stderr.read():
            await stream.send_bytes(_STDERR + words)
        await stream.send_bytes(_ERROR + json.dumps(_status(await process.wait())).encode())
        await stream.close()
        return stream

    def _here(self, word: str) -> str:
        if word == "python":  # the image's, which has fedjob; this machine's may not
            return sys.executable
        for there, here in self.folders.items():
            if word.startswith(f"{there}/"):
                return f"{here}{word.removeprefix(there)}"
        return word


def _status(code: int) -> Mapping[str, Any]:
    if code == 0:
        return {"status": "Success", "metadata": {}}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"exit code {code}",
        "details": {"causes": causes},
    }


def _moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def add_node(admin: Kube, name: str, port: int) -> Callable[[], None]:
    """A node whose kubelet is that port; returns what takes it away again."""
    admin.call("POST", "/api/v1/nodes", {"metadata": {"name": name}})
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
    admin.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, "application/merge-patch+json")
    return lambda: admin.call("DELETE", f"/api/v1/nodes/{name}")


def bind(admin: Kube, pod: Mapping[str, Any], node: str) -> None:
    """Place a pod, as a scheduler does."""
    metadata = pod["metadata"]
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
    admin.call("POST", f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding", body)
