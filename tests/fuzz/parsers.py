"""Every parser of bytes as a function of bytes: it returns, or raises only what its documentation names, in bounded memory."""

from __future__ import annotations

import contextlib
import json
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from fedjob import identity, orders
from fedjob import wire_pb2 as wire
from fedjob.acceptance import Header, read_header
from fedjob.api import JobFileError, loads
from fedjob.chunks import Table
from fedjob.codec import Inflow, flatten, header_length, parse
from fedjob.config import ServerConfig, SiteConfig, read_server, read_site
from fedjob.errors import CodecError, ConfigError, FedJobError, RemoteProtocolError, StateError, TransportError
from fedjob.frames import read_chunk, read_frame
from fedjob.journal import Journal
from fedjob.records import LoggedValue, RoundRecord, Status, read_history, read_metrics, read_status, to_json

NOW = datetime(2030, 1, 1, tzinfo=UTC)
AUTHORITY = identity.create_authority("c0ffee", now=NOW, lifetime=timedelta(hours=1))
GOOD = identity.issue(AUTHORITY, AUTHORITY.site("a"), now=NOW, lifetime=timedelta(hours=1))


@dataclass(frozen=True)
class Parser:
    """seeds: inputs that it takes, where a search begins."""

    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes) -> None:
        """Raises only what is a fault of the parser."""
        with contextlib.suppress(*self.refusals):
            self.read(data)


def _tensors(data: bytes) -> object:
    parse(data[: header_length(data)])
    inflow = Inflow(size=len(data))
    inflow.write(data[:20])
    inflow.write(data[20:])
    return inflow.tree()


def _downward(data: bytes) -> object:
    """What a site does with a line's event, as far as it depends on nothing else."""
    event = orders.checked(wire.Downward.FromString(data))
    return [Table(part.size).count for part in event.task.parts if part.size < 1 << 40]


def _of_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def of_bytes(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            path.write_bytes(data)
            return read(path)

    return of_bytes


def _journal(data: bytes) -> object:
    """Each line with the check that it needs to be looked at."""
    with tempfile.TemporaryDirectory() as folder:
        lines = (f"{zlib.crc32(line):08x} ".encode() + line + b"\n" for line in data.split(b"\n"))
        (Path(folder) / "journal.jsonl").write_bytes(b"".join(lines))
        Journal(Path(folder)).close()
    return None


def _certificate(data: bytes) -> object:
    return identity.problems(identity.Credentials(GOOD.key_pem, data, GOOD.ca_pem), NOW, AUTHORITY.site("a"))


def _line(record: object) -> bytes:
    return json.dumps(to_json(record)).encode() + b"\n"


def _server() -> bytes:
    here, job = Path("/a"), loads(_JOB.decode())
    config = ServerConfig(job=job, uid="a", attempt=1, trust_domain="d", listen=":1", tls=here, run=here, state=here)
    return config.model_dump_json(by_alias=True).encode()


def _site() -> bytes:
    here = Path("/a")
    config = SiteConfig(job="j", uid="a", attempt=1, trust_domain="d", site="a", sites=("a",), workflow={}, params_type="FULL",
                        server=":1", server_name="s", tls=here, work=here, server_lost_seconds=1.0)  # fmt: skip
    return config.model_dump_json(by_alias=True).encode()


def _tree() -> bytes:
    tree = {"w": np.ones((2, 3), np.float32), "n": [1, 2.5, None], "b": np.ones(5, np.int8)}
    return bytes(flatten(tree).read(0, 1 << 20))


_CHUNK = wire.Chunk(part=1, offset=1 << 20, digest=b"d" * 16, data=b"data" * 10)
_TASK = wire.Task(key=wire.Key(kind="Train", round=1), parts=[wire.Part(name="params", size=10, digest="0" * 64)])
_JOB = (Path(__file__).parents[1] / "api" / "ten-lines.yaml").read_bytes()

PARSERS = {
    "chunk": Parser(read_chunk, (TransportError,), (_CHUNK.SerializeToString(),)),
    "frame": Parser(read_frame, (TransportError,), (wire.Frame(chunk=_CHUNK).SerializeToString(), b"\x0a\x00")),
    "event": Parser(_downward, (RemoteProtocolError, DecodeError), (wire.Downward(task=_TASK).SerializeToString(),)),
    "tensors": Parser(_tensors, (CodecError,), (_tree(),)),
    "header": Parser(lambda data: read_header(data.decode("utf-8", "replace")), (), (Header().to_json().encode(),)),
    "job": Parser(lambda data: loads(data.decode("utf-8", "replace")), (JobFileError,), (_JOB,)),
    "history": Parser(
        _of_file(read_history), (ValueError,), (_line(RoundRecord(3, contributors=("a",), metrics={"m": 1.0})),)
    ),
    "metrics": Parser(_of_file(read_metrics), (ValueError,), (_line(LoggedValue("a", 1, 2, "k", 0.5)),)),
    "status": Parser(_of_file(read_status), (ValueError,), (_line(Status()),)),
    "server-configuration": Parser(_of_file(read_server), (ConfigError,), (_server(),)),
    "site-configuration": Parser(_of_file(lambda path: read_site(str(path))), (ConfigError,), (_site(),)),
    "journal": Parser(_journal, (StateError,), (b'{"event":"opened","at":0.0,"version":1}',)),
    "certificate": Parser(_certificate, (FedJobError,), (GOOD.cert_pem,)),
}
