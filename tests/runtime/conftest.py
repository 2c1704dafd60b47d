"""The two networks that a workflow must not tell apart: `testing.run`, and the same over real gRPC and mTLS on loopback."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedjob import checkpoint, identity, narrow, testing, transport
from fedjob import exchange as exchanging
from fedjob.api import Exchange, Workflow
from fedjob.config import SiteConfig
from fedjob.limits import Limits
from fedjob.model import FLModel
from fedjob.service import JobService
from fedjob.session import Session
from fedjob.stored import write_values
from fedjob.uplink import Uplink
from fedjob.wire_pb2 import Announce
from fedjob.workflows import WORKFLOWS

UID = "c0ffee"
Network = Callable[..., testing.Result]


@contextmanager
def serving(
    session: Session,
    folder: Path,
    authority: identity.Authority,
    newest: Callable[[], identity.Credentials] | None = None,
) -> Iterator[str]:
    """A real server for a session; gives its address."""
    with listening(
        JobService(session.reception, UID, identity.TRUST_DOMAIN, folder / "metrics.jsonl"), authority, newest
    ) as at:
        yield at


@contextmanager
def listening(
    service: transport.Service,
    authority: identity.Authority,
    newest: Callable[[], identity.Credentials] | None = None,
) -> Iterator[str]:
    """A service behind real mTLS, in a thread with its own event loop; gives its address."""
    now, life = datetime.now(UTC), timedelta(hours=1)
    credentials = identity.issue(authority, authority.server(), now=now, lifetime=life, dns_names=["localhost"])
    loop, port = asyncio.new_event_loop(), Future[int]()
    stop = asyncio.Event()

    async def serve() -> None:
        server, bound = await transport.serve(service, "127.0.0.1:0", credentials, newest)
        port.set_result(bound)
        await stop.wait()
        await server.stop(grace=1.0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield f"127.0.0.1:{port.result(10)}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def site_loop(
    address: str, authority: identity.Authority, site: str, client: testing.Client, folder: Path, exchanged: Exchange
) -> None:
    """What a training script does, for a function: tasks in, answers out, until the job ends."""
    now = datetime.now(UTC)
    credentials = identity.issue(authority, authority.site(site), now=now, lifetime=timedelta(hours=1))
    config = SiteConfig(job="j", uid=UID, attempt=1, trust_domain=identity.TRUST_DOMAIN, site=site, sites=(site,), workflow={},
                        params_type=exchanged.params.upper(), include=exchanged.include, wire_dtype=exchanged.dtype, server=address, server_name="localhost", tls=folder, work=folder / site,
                        server_lost_seconds=30.0)  # fmt: skip
    uplink = Uplink(address, "localhost", credentials, 1, 30.0)
    forms: dict[str, Mapping[str, str]] = {}
    try:
        while (task := uplink.next_task(30.0)) is not None:
            parts = exchanging.download(uplink, task, forms, config)
            if parts is None:
                continue
            try:
                back = client(FLModel(**parts, current_round=task.key.round, meta={"task": task.key.kind}))
                uplink.submit(*exchanging.announcement(task, back, forms, config))
            except testing.Decline as e:
                uplink.submit(Announce(key=task.key, declined=str(e)), ())
            uplink.done(task.key)
    finally:
        uplink.close()


def run_over_wire(
    folder: Path,
    workflow: Workflow,
    model: Any,
    clients: Mapping[str, testing.Client],
    *,
    required: Sequence[str] = (),
    exchange: Exchange = Exchange(),
) -> testing.Result:
    """`testing.run`, with a socket between the server and each client. Silence and kills are the process tests' matter."""
    trained: Counter[tuple[str, int]] = Counter()

    def counted(site: str) -> testing.Client:
        def train(model: FLModel) -> FLModel:
            trained[site, model.current_round or 0] += (model.meta or {})["task"] == "Train"
            return clients[site](model)

        return train

    module = WORKFLOWS[workflow.type]
    limits = Limits(
        workflow.round_timeout_seconds,
        0.0,
        30.0,
        30.0,
        600.0,
        exchange.params.upper(),
        exchange.dtype,
        exchange.max_size,
        workflow.max_examples,
    )
    session = Session(sorted(clients), frozenset(required), limits, folder)
    authority = identity.create_authority(UID, now=datetime.now(UTC), lifetime=timedelta(hours=1))
    missing: dict[testing.Key, Any] = {}
    with serving(session, folder, authority) as address:
        threads = [
            threading.Thread(target=site_loop, args=(address, authority, s, counted(s), folder, exchange))
            for s in sorted(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            state = module.start(narrow.master_form(write_values(folder / "initial", model), exchange.include))
            checkpoint.save(folder / "checkpoint", state, 0.0)
            for state in module.server(session, state, workflow):  # noqa: B020
                checkpoint.save(folder / "checkpoint", state, 0.0)
                kind = session.last_kind()
                missing[kind, session.round, 0] = {m.site: m for m in session.outcome(kind)[2]}
                session.finish_round()
        finally:
            session.end("Complete")
            for thread in threads:
                thread.join(30)
    loaded = checkpoint.load(folder / "checkpoint", module.State)
    assert loaded is not None
    stored = testing._stored(folder / "final", narrow.own_form(loaded[0].model))
    values = testing._values(stored)
    return testing.Result(loaded[0].round, values, stored.path.read_bytes(), 0, trained, missing)


@pytest.fixture(params=["memory", "wire"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Network:
    """Runs a workflow to its end. Every test that takes it runs twice: in memory, and over real connections."""
    if request.param == "memory":
        return testing.run
    return lambda *args, **kwargs: run_over_wire(Path(tempfile.mkdtemp(dir=tmp_path)), *args, **kwargs)


@pytest.fixture(name="serving")
def serving_fixture() -> Any:
    """`serving`, for tests that bring their own session."""
    return serving
