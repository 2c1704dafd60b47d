"""The proxy between a client and the API server does what its faults say, against the real server."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from cluster.apiproxy import Answer, ApiProxy, Cut, Delay, Truncate
from cluster.controlplane import ADMIN, ControlPlane
from cluster.kube import Kube, RefusedError, until
from fedjob_operator.names import CONFIG_MAP


@pytest.fixture
def client(plane: ControlPlane, proxy: ApiProxy) -> Kube:
    """An administrator behind the proxy."""
    return plane.user(ADMIN, proxy.url)


def test_calls_pass_and_are_counted(client: Kube, proxy: ApiProxy, namespace: str) -> None:
    client.create(CONFIG_MAP, namespace, "a", data={"k": "x" * 500_000})
    assert len(client.get(CONFIG_MAP, namespace, "a")["data"]["k"]) == 500_000
    assert [(call.number, call.method, call.is_write) for call in proxy.calls] == [(1, "POST", True), (2, "GET", False)]
    assert proxy.calls[1].path == CONFIG_MAP.path(namespace, "a")


def test_an_answer_is_given_in_the_servers_place(client: Kube, admin: Kube, proxy: ApiProxy, namespace: str) -> None:
    proxy.judge = lambda call: Answer(429, "TooManyRequests", retry_after=1) if call.is_write else None
    with pytest.raises(RefusedError) as refused:
        client.create(CONFIG_MAP, namespace, "a")
    assert (refused.value.code, refused.value.reason) == (429, "TooManyRequests")
    assert admin.get(CONFIG_MAP, namespace, "a") is None


def test_a_cut_before_delivery_changes_nothing_and_after_it_hides_the_change(
    client: Kube, admin: Kube, proxy: ApiProxy, namespace: str
) -> None:
    proxy.judge = lambda call: Cut(delivered=call.number == 2)
    for name in ("early", "late"):
        with pytest.raises((http.client.HTTPException, OSError)):
            client.create(CONFIG_MAP, namespace, name)
    assert admin.get(CONFIG_MAP, namespace, "early") is None
    assert admin.get(CONFIG_MAP, namespace, "late") is not None


def test_a_delayed_call_arrives(client: Kube, proxy: ApiProxy, namespace: str) -> None:
    proxy.judge = lambda _call: Delay(0.3)
    began = time.monotonic()
    client.create(CONFIG_MAP, namespace, "a")
    assert time.monotonic() - began >= 0.3


def watch(plane: ControlPlane, proxy: ApiProxy, namespace: str) -> tuple[http.client.HTTPResponse, Any]:
    kube = plane.user(ADMIN, proxy.url)
    line = http.client.HTTPSConnection(proxy.url.removeprefix("https://"), context=kube.trust, timeout=20)
    since = kube.call("GET", CONFIG_MAP.path(namespace))["metadata"]["resourceVersion"]
    line.request(
        "GET",
        f"{CONFIG_MAP.path(namespace)}?watch=1&resourceVersion={since}",
        headers={"Authorization": f"Bearer {ADMIN}"},
    )
    return line.getresponse(), line


def whole(answer: http.client.HTTPResponse) -> bool:
    """Read to the end: whether it is the end that the server meant."""
    try:
        answer.read()
    except (http.client.IncompleteRead, OSError):
        return False
    return True


def test_a_watch_streams_until_every_connection_is_cut(
    plane: ControlPlane, admin: Kube, proxy: ApiProxy, namespace: str
) -> None:
    answer, _line = watch(plane, proxy, namespace)
    admin.create(CONFIG_MAP, namespace, "a")
    names: list[str] = []
    while "a" not in names:
        event = json.loads(answer.readline())
        assert event.get("type") == "ADDED", event["object"]["message"]
        names.append(event["object"]["metadata"]["name"])
    assert [call.is_watch for call in proxy.calls] == [False, True]
    proxy.cut_all()
    assert not whole(answer)


def test_a_truncated_watch_ends_within_an_event(
    plane: ControlPlane, admin: Kube, proxy: ApiProxy, namespace: str
) -> None:
    proxy.judge = lambda call: Truncate(700) if call.is_watch else None
    answer, _line = watch(plane, proxy, namespace)
    admin.create(CONFIG_MAP, namespace, "a", data={"k": "x" * 5000})
    assert not whole(answer)


def new_proxy(plane: ControlPlane) -> ApiProxy:
    return ApiProxy(plane.port, plane.ca, plane.folder / "server.crt", plane.folder / "server.key")


def test_a_proxy_that_stops_leaves_no_connection_half_served(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio logs a task that is collected before its end, and a coroutine may then run into a loop that is closed."""
    with new_proxy(plane) as proxy:
        proxy.judge = lambda call: Delay(60.0) if call.is_write else None
        address = urlsplit(proxy.url)
        silent = socket.create_connection((address.hostname, address.port))  # never shakes hands
        client = plane.user(ADMIN, proxy.url)
        waiting = threading.Thread(target=lambda: fails(client), daemon=True)
        waiting.start()
        assert plane.user(ADMIN, proxy.url).call("GET", "/readyz")  # by then the silent one is accepted
        calls = proxy.calls
        until("the call that waits", lambda: any(call.is_write for call in calls))
    del proxy
    gc.collect()
    waiting.join(10)
    silent.close()
    assert "Task was destroyed" not in caplog.text


def fails(client: Kube) -> None:
    """A call that is never answered."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        client.call("POST", "/api/v1/namespaces", {})


def test_a_proxy_frees_its_port(plane: ControlPlane) -> None:
    with new_proxy(plane) as proxy:
        client = plane.user(ADMIN, proxy.url)
        assert client.call("GET", "/readyz")

    def refused() -> bool:
        try:
            client.call("GET", "/readyz")
        except OSError:
            return True
        return False

    until("the port to be free", refused)
