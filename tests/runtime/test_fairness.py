"""Many sites at once: whoever is slow holds up nobody but itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fedjob import exchange, identity
from fedjob.acceptance import Header
from fedjob.api import FedAvg
from fedjob.chunks import CHUNK_BYTES
from fedjob.codec import Outflow, flatten
from fedjob.dtypes import Bytes
from fedjob.limits import Limits
from fedjob.session import Session
from fedjob.stored import write_values
from fedjob.uplink import Uplink
from fedjob.wire_pb2 import Verdict
from fedjob.workflows import fedavg

SITES = [f"site-{i:02d}" for i in range(16)]
MODEL = {"w": np.ones(3 * CHUNK_BYTES // 4, np.float32)}
PATIENCE_SECONDS = 60.0  # only ever used up by a failure


def held_up(outflow: Outflow, reached: threading.Event, go_on: threading.Event) -> Outflow:
    """The same, but its second chunk is not there before `go_on`."""

    def slow(source: Any) -> Any:
        def read(start: int, stop: int) -> Bytes:
            if stop > CHUNK_BYTES:
                reached.set()
                assert go_on.wait(PATIENCE_SECONDS)
            data: Bytes = source(start, stop)
            return data

        return read

    return Outflow(outflow.layout, tuple((spec, slow(source)) for spec, source in outflow.sources))


def answer(uplink: Uplink, outflow: Outflow) -> Verdict:
    task = uplink.next_task(PATIENCE_SECONDS)
    assert task is not None
    base = next(part.digest for part in task.parts if part.name == "params")
    return uplink.submit(*exchange._announce(task, Header(base=base), {"params": outflow}))


def test_a_site_that_stalls_in_its_answer_holds_up_nobody(tmp_path: Path, serving: Any) -> None:
    """Fifteen others send theirs, whole and accepted, while the first stands still in the middle of its own."""
    authority = identity.create_authority("c0ffee", now=datetime.now(UTC), lifetime=timedelta(hours=1))
    session = Session(SITES, frozenset(), Limits(PATIENCE_SECONDS, 0.0, 30.0, 30.0, 600.0), tmp_path)
    reached, go_on = threading.Event(), threading.Event()
    state = fedavg.start(write_values(tmp_path / "model", MODEL))
    done: list[Any] = []
    with serving(session, tmp_path, authority) as address:
        rounds = threading.Thread(
            target=lambda: done.extend(fedavg.server(session, state, FedAvg(rounds=1, quorum=len(SITES))))
        )
        rounds.start()
        now, life = datetime.now(UTC), timedelta(hours=1)
        uplinks = [
            Uplink(address, "localhost", identity.issue(authority, authority.site(s), now=now, lifetime=life), 1, 30.0)
            for s in SITES
        ]
        try:
            with ThreadPoolExecutor(len(SITES)) as pool:
                slow = pool.submit(answer, uplinks[0], held_up(flatten(MODEL), reached, go_on))
                assert reached.wait(PATIENCE_SECONDS)
                others = [pool.submit(answer, uplink, flatten(MODEL)) for uplink in uplinks[1:]]
                try:
                    assert all(other.result(PATIENCE_SECONDS).accepted for other in others)
                    assert not slow.done()
                finally:
                    go_on.set()
                assert slow.result(PATIENCE_SECONDS).accepted
            rounds.join(PATIENCE_SECONDS)
            assert [s.round for s in done] == [1]
        finally:
            for uplink in uplinks:
                uplink.close()
