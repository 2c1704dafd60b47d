"""A site with a valid certificate, or a stranger without one, that says what it likes: the others' round completes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np
import pytest

from fedjob import exchange, identity
from fedjob import wire_pb2 as wire
from fedjob.api import limits
from fedjob.model import FLModel

if TYPE_CHECKING:
    from conftest import Hosted, Puppet

ZEROS = {"w": np.zeros(4, np.float32)}
MALLORY = {"name": "mallory"}
RESETTABLE = (
    "FIRST_MESSAGE_SECONDS",
    "HANDSHAKE_SECONDS",
    "IDLE_SECONDS",
    "STALL_SECONDS",
    "CONNECTIONS",
    "SITE_LINES",
)

# Loaded by the server's Python before anything else: a limit of many seconds is waited for in one.
SHORTENED = """
import json, os
from dataclasses import replace
from fedjob.api import limits
for name, value in json.loads(os.environ["LIMITS"]).items():
    setattr(limits, name, replace(getattr(limits, name), value=value))
"""


@pytest.fixture
def limited(host: Callable[..., Hosted], until: Callable[..., Any], tmp_path: Path) -> Callable[..., Hosted]:
    """`host` with some limits of the table lowered; the server listens."""

    def start(limits_of_it: dict[str, int], **spec: Any) -> Hosted:
        assert set(limits_of_it) <= set(RESETTABLE)
        (tmp_path / "sitecustomize.py").write_text(SHORTENED)
        text = "{" + ", ".join(f'"{name}": {value}' for name, value in limits_of_it.items()) + "}"
        environment = {"LIMITS": text, "PYTHONPATH": str(tmp_path)}
        policy = {"siteLostSeconds": 5, **spec.pop("failurePolicy", {})}
        workflow = {"rounds": 1, "roundTimeoutSeconds": 120, **spec.pop("workflow", {})}
        sites = spec.pop("sites", ["good", MALLORY])
        hosted = host(sites, environment=environment, workflow=workflow, failurePolicy=policy, **spec)
        until(lambda: "listens" in hosted.log("server"))
        return hosted

    return start


@contextlib.contextmanager
def aio(hosted: Hosted, site: str, **options: int) -> Iterator[Any]:
    """A bare channel of a site, on which any bytes can be sent; to be used in an event loop."""
    settings = hosted.settings(site)
    held = identity.read(settings.tls)
    tls = grpc.ssl_channel_credentials(held.ca_pem, held.key_pem, held.cert_pem)
    given = [("grpc.ssl_target_name_override", settings.server_name), ("grpc.use_local_subchannel_pool", 1)]
    yield grpc.aio.secure_channel(settings.server, tls, [*given, *options.items()])


def call(channel: Any, method: str) -> Any:
    """A call whose messages are bytes."""
    return channel.stream_stream(f"/fedjob.v1.Federation/{method}", None, None)()


def descriptors(hosted: Hosted) -> int:
    return sum(1 for _ in Path(f"/proc/{hosted.popen.pid}/fd").iterdir())


def good_round(good: Puppet) -> None:
    """An honest site's round, from its first task to the verdict."""
    task = good.task("Train")
    good.fetch(task)
    assert good.answer(task, FLModel(params=ZEROS)).accepted


@pytest.mark.parametrize("method", ["Attend", "Fetch", "Submit"])
def test_calls_that_say_nothing_end_and_their_number_is_bounded(limited: Callable[..., Hosted], method: str) -> None:
    hosted = limited({"FIRST_MESSAGE_SECONDS": 1})
    good = hosted.puppet("good")
    assert good.offer(ZEROS).accepted

    async def flood() -> list[tuple[Any, str]]:
        with aio(hosted, "mallory") as one, aio(hosted, "mallory") as other:
            calls = [call(channel, method) for channel in (one, other) for _ in range(limits.OPEN_CALLS.value)]
            ends = [(await c.code(), await c.details()) for c in calls]
            await one.close()
            await other.close()
            return ends

    ends = asyncio.run(flood())
    assert {code for code, _ in ends} == {grpc.StatusCode.UNAVAILABLE}
    told = [details for _, details in ends]
    assert sum("no message came for 1 s" in d for d in told) == limits.OPEN_CALLS.value
    assert sum(f"{limits.OPEN_CALLS.value} calls of this site are open" in d for d in told) == limits.OPEN_CALLS.value
    good_round(good)
    assert hosted.wait() == 0


def test_a_connection_carries_no_more_calls_than_are_allowed_at_once(limited: Callable[..., Hosted]) -> None:
    """The others wait at the client, where they cost the server nothing: none is refused, each has its time later."""
    hosted = limited({"FIRST_MESSAGE_SECONDS": 1})

    async def told() -> set[str]:
        with aio(hosted, "mallory") as channel:
            calls = [call(channel, "Attend") for _ in range(2 * limits.OPEN_CALLS.value)]
            details = {await c.details() for c in calls}
            await channel.close()
            return details

    assert all(d == "no message came for 1 s" or "RST_STREAM" in d for d in asyncio.run(told()))


def test_silent_connections_are_bounded_and_lose_their_place(
    limited: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    hosted = limited({"HANDSHAKE_SECONDS": 1, "CONNECTIONS": 50})
    before = descriptors(hosted)
    host, _, port = hosted.settings("good").server.rpartition(":")
    silent = [socket.create_connection((host.strip("[]"), int(port))) for _ in range(200)]
    try:
        assert descriptors(hosted) <= before + 60
        until(lambda: descriptors(hosted) <= before + 5)  # with no sign from the clients
    finally:
        for each in silent:
            each.close()
    good = hosted.puppet("good")
    assert good.offer(ZEROS).accepted
    good_round(good)
    assert hosted.wait() == 0


def test_connections_of_one_site_hurt_none_that_is_open_and_lose_their_place(
    limited: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    """There is one bound for all, as docs/security.md says: a site that comes meanwhile waits until they are idle too long."""
    hosted = limited({"CONNECTIONS": 30, "IDLE_SECONDS": 1, "HANDSHAKE_SECONDS": 1}, sites=["good", "late", MALLORY])
    good = hosted.puppet("good")
    assert good.offer(ZEROS).accepted
    task, before = good.task("Train"), descriptors(hosted)
    host, _, port = hosted.settings("good").server.rpartition(":")
    folder = hosted.settings("mallory").tls
    tls = ssl.create_default_context(cafile=folder / identity.CA_FILE)
    tls.load_cert_chain(folder / identity.CERT_FILE, folder / identity.KEY_FILE)
    tls.set_alpn_protocols(["h2"])
    held: list[socket.socket] = []
    try:
        with contextlib.suppress(OSError):  # until the server takes no further one
            for _ in range(100):
                held.append(socket.create_connection((host.strip("[]"), int(port))))
                held[-1] = tls.wrap_socket(held[-1], server_hostname=hosted.settings("mallory").server_name)
        assert before + 20 <= descriptors(hosted) <= before + 35
        good.fetch(task)
        assert good.answer(task, FLModel(params=ZEROS)).accepted
        late = hosted.puppet("late")
        good_round(late)
    finally:
        for each in held:
            each.close()
    mallory = hosted.puppet("mallory")
    good_round(mallory)
    assert hosted.wait() == 0


FLOODS = {
    "none": b"\xff",
    "a million fields": b"\x78\x01" * 500_000,
    "parts": b"\x0a\x84\xd0\x1e" + b"\x22\x00" * 250_000,
}


@pytest.mark.parametrize("method", ["Attend", "Fetch", "Submit"])
@pytest.mark.parametrize("message", FLOODS.values(), ids=FLOODS)
def test_what_is_no_message_of_ours_ends_its_call_with_a_reason_and_no_traceback(
    limited: Callable[..., Hosted], method: str, message: bytes
) -> None:
    hosted = limited({})

    async def say() -> tuple[Any, str]:
        with aio(hosted, "mallory") as channel:
            this = call(channel, method)
            await this.write(message)
            end = await this.code(), await this.details()
            await channel.close()
            return end

    code, details = asyncio.run(say())
    assert (code, details[:11]) in [
        (grpc.StatusCode.INVALID_ARGUMENT, "the message"),
        (grpc.StatusCode.PERMISSION_DENIED, "an announce"),
    ]
    assert "Traceback" not in hosted.log("server")


def test_an_upload_that_stalls_ends_and_gives_back_what_it_held(
    limited: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    hosted = limited({"STALL_SECONDS": 1})
    good, mallory = hosted.puppet("good"), hosted.puppet("mallory")
    assert good.offer(ZEROS).accepted
    task = mallory.task("Train")
    announce, _ = exchange.announcement(task, FLModel(params=ZEROS), {}, mallory.config)
    announce.attempt, announce.upload = 1, "0" * 32

    async def stall() -> tuple[Any, str]:
        with aio(hosted, "mallory") as channel:
            this = call(channel, "Submit")
            await this.write(wire.Frame(announce=announce).SerializeToString())
            await this.read()
            during.append(descriptors(hosted))
            end = await this.code(), await this.details()
            await channel.close()
            return end

    during: list[int] = []
    before = descriptors(hosted)
    code, details = asyncio.run(stall())
    assert (code, "no message came for 1 s" in details) == (grpc.StatusCode.UNAVAILABLE, True)
    assert during[0] > before
    until(lambda: descriptors(hosted) <= before)
    good_round(good)
    mallory.uplink.close()
    assert hosted.wait() == 0


def announcement(puppet: Puppet, task: wire.Task, upload: int, **sizes: int) -> bytes:
    """The first frame of an answer with these parts; what it announces never comes."""
    announce, _ = exchange.announcement(task, FLModel(params=ZEROS), {}, puppet.config)
    parts = [wire.Part(name=name, size=size) for name, size in sizes.items()]
    said = wire.Announce(key=task.key, attempt=1, upload=f"{upload:032x}", parts=parts, header=announce.header)
    return wire.Frame(announce=said).SerializeToString()


def test_answers_that_are_begun_at_once_and_given_up_leave_no_descriptor(
    limited: Callable[..., Hosted], until: Callable[..., Any]
) -> None:
    """Each takes over from the one before, whose files a worker may be about to open."""
    hosted = limited({})
    good, mallory = hosted.puppet("good"), hosted.puppet("mallory")
    assert good.offer(ZEROS).accepted
    task, before = mallory.task("Train"), descriptors(hosted)
    sizes = {"params": task.parts[0].size, "optimizer_params": 64 << 10}

    async def begin(channel: Any, number: int) -> None:
        this = call(channel, "Submit")
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await this.write(announcement(mallory, task, number, **sizes))
            if number % 2:
                await this.read()
        this.cancel()

    async def flood() -> None:
        with aio(hosted, "mallory") as one, aio(hosted, "mallory") as other:
            for turn in range(20):
                await asyncio.gather(*(begin(c, turn * 16 + i) for i in range(8) for c in (one, other)))
            await one.close()
            await other.close()

    asyncio.run(flood())
    until(lambda: descriptors(hosted) <= before)
    assert "DiskFull" not in hosted.log("server")
    good_round(good)
    mallory.uplink.close()
    assert hosted.wait() == 0


def test_an_answer_larger_than_the_model_lets_expect_is_refused_before_it_is_given_room(
    limited: Callable[..., Hosted],
) -> None:
    hosted = limited({})
    good, mallory = hosted.puppet("good"), hosted.puppet("mallory")
    assert good.offer(ZEROS).accepted
    task = mallory.task("Train")

    async def heard() -> wire.Reply:
        with aio(hosted, "mallory") as channel:
            this = call(channel, "Submit")
            await this.write(announcement(mallory, task, 1, optimizer_params=100 << 20))
            reply = wire.Reply.FromString(await this.read())
            await channel.close()
            return reply

    verdict = asyncio.run(heard()).verdict
    assert (verdict.accepted, verdict.reason) == (False, "TooLarge")
    assert verdict.message.startswith("optimizer_params: 104857600 bytes announced, allowed")
    good_round(good)
    mallory.uplink.close()
    assert hosted.wait() == 0


def test_a_site_that_states_more_examples_than_the_job_allows_weighs_nothing(limited: Callable[..., Hosted]) -> None:
    hosted = limited({}, workflow={"maxExamples": 1000})
    good, mallory = hosted.puppet("good"), hosted.puppet("mallory")
    assert good.offer(ZEROS).accepted
    verdict = mallory.answer(mallory.task("Train"), FLModel(params={"w": ZEROS["w"] + 9}), num_examples=1e300)
    assert (verdict.reason, verdict.message) == (
        "BadWeight",
        "num_examples is 1e+300, allowed: at most 1000 (spec.workflow.maxExamples)",
    )
    task = good.task("Train")
    assert good.answer(task, FLModel(params={"w": ZEROS["w"] + 1}), num_examples=1000).accepted
    assert hosted.wait() == 0
    assert np.frombuffer(hosted.model[-16:], np.float32).tolist() == [1.0] * 4


def test_a_thousand_metrics_are_cut_to_what_history_and_status_hold(limited: Callable[..., Hosted]) -> None:
    """The answer counts all the same: a script that reports each class of a large problem is honest."""
    hosted = limited({})
    good, mallory = hosted.puppet("good"), hosted.puppet("mallory")
    assert good.offer(ZEROS).accepted
    metrics = {f"class-{i}": 0.5 for i in range(1000)}
    verdict = mallory.answer(mallory.task("Train"), FLModel(params=ZEROS, metrics=metrics))
    assert verdict.accepted
    assert verdict.message.startswith("936 of 1000 metrics are left out")
    good_round(good)
    assert hosted.wait() == 0
    (record,) = hosted.history
    assert record.contributors == ("good", "mallory")
    assert list(record.sites["mallory"].metrics) == list(metrics)[:64]
    assert len(record.metrics) == 64
    assert hosted.log("server").count("936 of 1000 metrics are left out") == 1


def test_a_flood_of_refused_calls_is_some_lines_of_the_log_and_a_count(limited: Callable[..., Hosted]) -> None:
    calls = 100
    hosted = limited({"SITE_LINES": 3})
    good, mallory = hosted.puppet("good"), hosted.puppet("mallory")
    assert good.offer(ZEROS).accepted
    late = mallory.task("Train")
    late.key.kind, late.key.ask = "Offer", 7  # an ask that there is not

    async def flood() -> None:
        with aio(hosted, "mallory") as channel:
            for number in range(calls):
                this = call(channel, "Submit")
                await this.write(announcement(mallory, late, number))
                assert wire.Reply.FromString(await this.read()).verdict.reason == "PastRound"
                this.cancel()
            await channel.close()

    asyncio.run(flood())
    good_round(good)
    mallory.uplink.close()
    assert hosted.wait() == 0
    shown = hosted.log("server").count("refused mallory")
    left = re.findall(r"(\d+) lines about mallory were left out within 10 s", hosted.log("server"))
    assert shown < calls / 2
    assert shown + sum(map(int, left)) >= calls
