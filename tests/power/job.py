"""A small job's server on a folder: the real one, but for the network; two sites answer through its reception."""

from __future__ import annotations

import queue
import threading
import uuid
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np

from fedjob import checkpoint, server
from fedjob import wire_pb2 as wire
from fedjob.acceptance import Header
from fedjob.api import FederatedJob
from fedjob.chunks import CHUNK_BYTES, Table, digest
from fedjob.codec import flatten
from fedjob.config import ServerConfig
from fedjob.errors import TransportError
from fedjob.files import make_folder
from fedjob.frames import Piece
from fedjob.model import FLModel
from fedjob.progress import Story
from fedjob.records import JobRef
from fedjob.session import Session
from fedjob.stored import write_values

SITES = ("a", "b")
ROUNDS = 5
_STOPS_AT = 3.0  # the metric after the third round of five


def config(folder: Path, initial: Path) -> ServerConfig:
    """Of a server whose disk is `folder`; the initial model, made if it is not there, is on another one."""
    if not initial.exists():
        values = np.arange(CHUNK_BYTES // 4 + 1000, dtype=np.float32)  # of two chunks: its files become spares
        write_values(initial, {"w": values})
    job = FederatedJob.model_validate(
        {
            "apiVersion": "fedjob.dev/v1alpha1",
            "kind": "FederatedJob",
            "metadata": {"name": "power"},
            "spec": {
                "workflow": {"rounds": ROUNDS, "stopWhen": {"metric": "score", "value": _STOPS_AT}},
                "trainer": {"command": ["true"]},
                "sites": [{"name": name} for name in SITES],
            },
        }
    )
    return ServerConfig(
        job=job,
        uid="u",
        attempt=1,
        trust_domain="fedjob",
        listen="127.0.0.1:0",
        tls=folder,
        run=folder / "run",
        state=folder / "state",
        initial=initial,
    )


def live(configuration: ServerConfig) -> tuple[int, list[str]]:
    """One life of the server, to its end or to that of its disk: the exit code, and what the sites were told of the job's end."""
    try:
        for folder in (configuration.run, configuration.state):
            make_folder(folder)
        session = server._session(configuration)
    except OSError:
        return server.EXIT_SOFTWARE, []
    story = Story(JobRef("power", "u", 1), ROUNDS)
    sites = _Sites(session)
    with mock.patch.object(checkpoint, "Keeper", _Keeper):
        try:
            return server._conclude(configuration, story, session), sites.told
        finally:
            sites.stop()
            while _Keeper.made:  # its thread would die with the process
                _Keeper.made.pop().close(30)


class _Keeper(checkpoint.Keeper):
    """The real one; whoever ends a life finds it."""

    made: ClassVar[list[checkpoint.Keeper]] = []

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.made.append(self)


class _Sites:
    """All sites of a session, on one thread: each trains what it is asked, and sends it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tasks: queue.Queue[tuple[str, wire.Task] | None] = queue.Queue()
        self.told: list[str] = []
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        for site in SITES:
            session.reception.attend(site, 1, lambda event, site=site: self._hear(site, event))  # type: ignore[misc]
        self._thread.start()

    def stop(self) -> None:
        self._tasks.put(None)
        self._thread.join(30)
        if self._broken is not None:
            raise self._broken

    def _hear(self, site: str, event: wire.Downward) -> None:
        if event.HasField("task"):
            self._tasks.put((site, event.task))
        elif event.HasField("end"):
            self.told.append(event.end.state)

    def _work(self) -> None:
        while (what := self._tasks.get()) is not None:
            try:
                _answer(self._session, *what)
            except TransportError:
                self._tasks.put(what)  # not yet: it comes again
            except OSError:  # the disk has no power: so has the machine
                self._session.interrupt()
                return
            except Exception as e:  # noqa: BLE001  # raised where it fails the test
                self._broken = e
                self._session.interrupt()
                return


def _answer(session: Session, site: str, task: wire.Task) -> None:
    reception = session.reception
    received = reception.object(site, task.parts[0].digest)
    if received is None:
        return  # over for this site
    spec = received.layout.specs[0]
    values = received.read(spec, 0, spec.shape[0]).astype(np.float32)
    step = np.float32(task.key.round + 1 + SITES.index(site))
    model = FLModel(params={"w": values * np.float32(0.5) + step}, metrics={"score": task.key.round + 1.0})
    outflow = flatten(model.params)
    data = bytes(outflow.read(0, outflow.layout.size))
    pieces = [(at, data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
    header = Header(metrics=dict(model.metrics or {}), base=task.parts[0].digest)
    announce = wire.Announce(
        key=task.key,
        attempt=1,
        upload=uuid.uuid4().hex,
        parts=[wire.Part(name="params", size=len(data))],
        header=header.to_json(),
    )
    upload: Any = reception.begin(site, announce)
    if isinstance(upload, wire.Verdict):
        return
    reception.admit(upload)
    upload.spool.open()
    for at, piece in pieces:
        upload.spool.write(Piece(0, at, digest(piece), piece))
    table = Table(len(data), b"".join(digest(piece) for _, piece in pieces))
    reception.accept(upload, [table.object_digest()])
