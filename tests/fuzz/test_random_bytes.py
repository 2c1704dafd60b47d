"""Random bytes over a real connection, from a site that has a certificate: the server goes on serving the others."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from fedjob import exchange, identity
from fedjob import wire_pb2 as wire
from fedjob.acceptance import Header
from fedjob.api import FedAvg
from fedjob.codec import flatten
from fedjob.limits import Limits
from fedjob.session import Session
from fedjob.stored import write_values
from fedjob.transport import MAX_MESSAGE_BYTES
from fedjob.uplink import Uplink
from fedjob.workflows import fedavg
from runtime.conftest import serving

PATIENCE_SECONDS = 60.0  # only ever used up by a failure
MODEL = {"w": np.ones(1000, np.float32)}
VALID = [
    b"",
    wire.Upward(hello=wire.Hello(attempt=1)).SerializeToString(),
    wire.Frame(announce=wire.Announce(key=wire.Key(kind="Train", round=1), attempt=1)).SerializeToString(),
]
METHODS = {"Attend": "stream_stream", "Fetch": "unary_stream", "Submit": "stream_stream"}


def noise(chance: random.Random) -> list[bytes]:
    """Messages of a call: random ones, up to what a message may hold and beyond, perhaps behind a valid one."""
    sizes = [chance.choice([0, 1, 10, 1000, MAX_MESSAGE_BYTES + 1]) for _ in range(3)]
    return [chance.choice(VALID), *(chance.randbytes(size) for size in sizes)]


def calls(channel: grpc.Channel, chance: random.Random) -> Iterator[grpc.StatusCode]:
    """How the server ends calls of each method that hold noise."""
    for method, kind in METHODS.items():
        for _ in range(8):
            messages = noise(chance)
            call: Any = getattr(channel, kind)(f"/fedjob.v1.Federation/{method}")
            sent = iter(messages) if kind == "stream_stream" else messages[1]
            try:
                list(call(sent, timeout=PATIENCE_SECONDS))
            except grpc.RpcError as e:
                yield e.code()
            else:
                yield grpc.StatusCode.OK


def test_a_site_that_sends_noise_holds_up_nobody(tmp_path: Path) -> None:
    authority = identity.create_authority("c0ffee", now=datetime.now(UTC), lifetime=timedelta(hours=1))
    now, life = datetime.now(UTC), timedelta(hours=1)
    good, bad = (identity.issue(authority, authority.site(s), now=now, lifetime=life) for s in "ab")
    limits = Limits(PATIENCE_SECONDS, 0.0, PATIENCE_SECONDS, PATIENCE_SECONDS, PATIENCE_SECONDS)
    session = Session("ab", frozenset("a"), limits, tmp_path)
    state = fedavg.start(write_values(tmp_path / "model", MODEL))
    workflow = FedAvg(rounds=1, quorum=1, close="Quorum")
    done: list[Any] = []
    with serving(session, tmp_path, authority) as address:
        rounds = threading.Thread(target=lambda: done.extend(fedavg.server(session, state, workflow)))
        rounds.start()
        uplink = Uplink(address, "localhost", good, 1, PATIENCE_SECONDS)
        tls = grpc.ssl_channel_credentials(bad.ca_pem, bad.key_pem, bad.cert_pem)
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.max_send_message_length", -1)]
        try:
            with grpc.secure_channel(address, tls, options) as channel:
                task = uplink.next_task(PATIENCE_SECONDS)
                assert task is not None
                codes = set(calls(channel, random.Random(1)))
            assert grpc.StatusCode.DEADLINE_EXCEEDED not in codes
            header = Header(base=task.parts[0].digest)
            verdict = uplink.submit(*exchange._announce(task, header, {"params": flatten(MODEL)}))
            assert verdict.accepted
            rounds.join(PATIENCE_SECONDS)
            assert [s.round for s in done] == [1]
        finally:
            session.interrupt()
            uplink.close()
