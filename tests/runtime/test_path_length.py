"""From `send` to gRPC: how far a reader, or a byte, has to walk."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import fedjob
from fedjob import config as configuration
from fedjob import identity
from fedjob.api import FedAvg
from fedjob.limits import Limits
from fedjob.session import Session
from fedjob.stored import write_values
from fedjob.workflows import fedavg

OWN = str(Path(fedjob.__file__).parent)


@pytest.fixture
def at_send(tmp_path: Path, serving: Any) -> Iterator[fedjob.FLModel]:
    """A script's process in the moment before it sends: joined to a real server, with a model received."""
    authority = identity.create_authority("c0ffee", now=datetime.now(UTC), lifetime=timedelta(hours=1))
    session = Session(["a"], frozenset(), Limits(60.0, 0.0, 30.0, 30.0, 600.0), tmp_path)
    with serving(session, tmp_path, authority) as address:
        tls = tmp_path / "tls"
        identity.write(
            identity.issue(authority, authority.site("a"), now=datetime.now(UTC), lifetime=timedelta(hours=1)), tls
        )
        site = configuration.SiteConfig(
            job="j", uid="c0ffee", attempt=1, trust_domain=identity.TRUST_DOMAIN, site="a", sites=("a",),
            workflow={"rounds": 1}, params_type="FULL", server=address, server_name="localhost", tls=tls,
            work=tmp_path / "work", server_lost_seconds=30.0,
        )  # fmt: skip
        configuration.write(tmp_path / "site.json", site)
        model = write_values(tmp_path / "model", {"w": np.zeros(1 << 20, np.float32)})
        rounds = threading.Thread(target=lambda: list(fedavg.server(session, fedavg.start(model), FedAvg(rounds=1))))
        rounds.start()
        with fedjob.init(config_file=str(tmp_path / "site.json")):
            received = fedjob.receive(30)
            assert received is not None
            yield fedjob.FLModel(params=received.params)
            rounds.join(30)


def test_send_reaches_grpc_in_at_most_four_own_calls_and_six_files(
    at_send: fedjob.FLModel, record_property: Callable[[str, object], None]
) -> None:
    """P8: own frames on the stack when grpc is entered, on the script's thread and on grpc's sending thread."""
    stacks: list[list[str]] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "/grpc/_channel.py" in frame.f_code.co_filename and frame.f_code.co_name == "__call__":
            files, at = [], frame.f_back
            while at is not None:
                if at.f_code.co_filename.startswith(OWN):
                    files.append(at.f_code.co_filename)
                at = at.f_back
            stacks.append(files)

    sys.setprofile(profile)
    try:
        receipt = fedjob.send(at_send)
    finally:
        sys.setprofile(None)
    assert receipt.accepted
    assert stacks, "gRPC was never entered"
    calls, files = max(len(s) for s in stacks), len({file for s in stacks for file in s})
    record_property("calls from send to grpc", calls)  # the benchmark P8 tells them
    record_property("files from send to grpc", files)
    assert calls <= 4, stacks
    assert files <= 6


def test_a_chunk_is_cut_in_at_most_four_own_calls(
    at_send: fedjob.FLModel, record_property: Callable[[str, object], None]
) -> None:
    """The same on the thread in which grpc pulls chunks from the tensors' memory."""
    depths: list[int] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        names, at = [], frame
        if event != "call" or not frame.f_code.co_filename.startswith(OWN):
            return
        while at is not None:
            if at.f_code.co_filename.startswith(OWN):
                names.append(at.f_code.co_name)
            at = at.f_back  # type: ignore[assignment]
        if names[-1] == "_frames":  # the server of this test has threads in this process too
            depths.append(len(names))

    threading.setprofile(profile)
    try:
        assert fedjob.send(at_send).accepted
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
    assert depths
    record_property("calls to cut a chunk", max(depths))
    assert max(depths) <= 4
