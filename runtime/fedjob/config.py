"""What starts a process of a job: written by `fedjob run` or the operator, read by the server and the clients.

The writer may be newer than the reader: an operator is upgraded, an image with a training script is not. So what is as by default is
not written, and an older reader refuses only what it could not do; a default, once released, never changes.

This is the runtime's only reader of the environment.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from .api import FederatedJob
from .errors import ConfigError
from .version import __version__

T = TypeVar("T", bound=BaseModel)
CONFIG_VARIABLE = "FEDJOB_CONFIG"
DATA_VARIABLE = "FEDJOB_DATA"
OWN_PREFIX = "FEDJOB_"
_SESSION_VARIABLE = "FEDJOB_SESSION"  # the process that is in the job; what it starts inherits this
# What a launcher tells a process of its place among others, and what else torchrun heeds.
_PLACES = re.compile(
    "(LOCAL_|GROUP_|ROLE_|NODE_)?RANK|((LOCAL|GROUP|ROLE)_)?WORLD_SIZE|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*|PET_.*"
    "|SLURM_(PROCID|NTASKS|LOCALID|NODEID)|(OMPI|MV2)_COMM_WORLD_(LOCAL_)?(RANK|SIZE)|PMIX?_(RANK|SIZE)"
)
LogFormat = Literal["text", "json"]


def path_read(value: Any) -> Path:
    """A path as a configuration holds it. Raises TypeError, KeyError, ValueError for what is none."""
    return Path(os.fsdecode(bytes.fromhex(value["bytes"]))) if isinstance(value, dict) else Path(value)


def _path_written(path: Path) -> str | dict[str, str]:
    """Text; or, of a path that is not UTF-8, which JSON cannot hold, its bytes in hexadecimal."""
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return {"bytes": os.fsencode(path).hex()}
    return str(path)


def _path_checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return path_read(value) if isinstance(value, dict) and isinstance(value.get("bytes"), str) else check(value)


AnyPath = Annotated[Path, PlainSerializer(_path_written, when_used="json"), WrapValidator(_path_checked)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Config(_Part):
    version: str = __version__  # of fedjob that wrote it


class Report(_Part):
    """Where a server tells of its progress, on a cluster. server_name: in that endpoint's certificate."""

    url: str
    server_name: str


class ServerConfig(_Config):
    """One server process. Paths are absolute; the certificate's folder holds tls.key, tls.crt and ca.crt."""

    job: FederatedJob
    uid: str
    attempt: int
    trust_domain: str
    listen: str  # host:port
    tls: AnyPath
    run: AnyPath  # what people read: the model, history, status
    state: AnyPath  # what the server needs to go on after a restart
    initial: AnyPath | None = None  # safetensors file of the initial model
    report: Report | None = None
    termination: AnyPath | None = None  # the verdict, for whoever looks at the process after its end
    metrics: str | None = None  # host:port where Prometheus may look
    log: LogFormat = "text"


class SiteConfig(_Config):
    """One training process at a site."""

    job: str
    uid: str
    attempt: int
    trust_domain: str
    site: str
    sites: tuple[str, ...]
    workflow: dict[str, Any]  # as in the job file, defaults filled in
    params_type: str  # FULL or DIFF
    include: tuple[str, ...] = ()  # patterns over tensor names; none: all tensors travel
    wire_dtype: str = "Keep"  # the floating-point type that wider ones are rounded to, or Keep
    server: str  # host:port
    server_name: str  # in the server's certificate
    tls: AnyPath
    work: AnyPath  # scratch that this site's processes share
    server_lost_seconds: float
    metrics: str | None = None  # host:port where Prometheus may look
    log: LogFormat = "text"  # of fedjob's own lines; those of the script are the script's


class Ranks(_Config):
    """Place of this process among those of its site, as torchrun tells it."""

    rank: int = 0
    world_size: int = 1


def read_server(path: Path) -> ServerConfig:
    """The server's configuration. Raises ConfigError."""
    return _read(ServerConfig, path)


def read_site(path: str | None = None) -> SiteConfig:
    """This site's configuration, from `path` or the file that FEDJOB_CONFIG names. Raises ConfigError."""
    name = path or os.environ.get(CONFIG_VARIABLE)
    if not name:
        raise ConfigError(
            f"{CONFIG_VARIABLE} is not set: this script was started by hand. Start it with `fedjob run job.yaml`, which "
            "starts a server and one such script for each site"
        )
    return _read(SiteConfig, Path(name))


def inherited() -> dict[str, str]:
    """The environment for processes of a job: without the place that this process has among others, or in another job."""
    return {n: v for n, v in os.environ.items() if not (_PLACES.fullmatch(n) or n.startswith(OWN_PREFIX))}


def enter_session() -> None:
    """Let what this process starts know that it is in the job. Raises ConfigError if a process that started it is."""
    owner = os.environ.get(_SESSION_VARIABLE, "")
    if owner.isdecimal() and int(owner) != os.getpid() and _lives(int(owner)):
        raise ConfigError(
            f"the training script, process {owner}, is in the job already and has started this process {os.getpid()}: only one of "
            "a site may call fedjob.init(). Put what a started process must not run under `if __name__ == '__main__':`"
        )
    os.environ[_SESSION_VARIABLE] = str(os.getpid())


def leave_session() -> None:
    """This process is in no job any more; what it starts may be."""
    os.environ.pop(_SESSION_VARIABLE, None)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def read_ranks(rank: int | str | None = None) -> Ranks:
    """Rank and world size from torchrun's environment; `rank` overrides. Raises ConfigError.

    A container's first process was started by no launcher: what its environment says of ranks is of something else.
    """
    if rank is None and os.getpid() == 1:
        return Ranks()
    try:
        return Ranks(rank=int(os.environ.get("RANK", "0") if rank is None else rank),
                     world_size=int(os.environ.get("WORLD_SIZE", "1")))  # fmt: skip
    except ValueError as e:
        raise ConfigError(f"RANK, WORLD_SIZE and rank must be whole numbers: {e}") from None


def text(config: ServerConfig | SiteConfig, *, indent: int | None = None) -> str:
    """A configuration for `read_server` or `read_site`, without what is as by default."""
    told = config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return json.dumps({"version": __version__, **told}, indent=indent, ensure_ascii=False)


def write(path: Path, config: ServerConfig | SiteConfig) -> None:
    """Write a configuration for `read_server` or `read_site`."""
    path.write_text(text(config, indent=1), encoding="utf-8")


def _read(kind: type[T], path: Path) -> T:
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    try:
        return kind.model_validate_json(data)
    except ValidationError as e:
        raise ConfigError(f"{path}: {_refusal(data, e)}") from e


def _refusal(data: bytes, error: ValidationError) -> str:
    try:
        document = json.loads(data)
        writer = document["version"]
    except (ValueError, KeyError, TypeError, RecursionError):  # brackets without end
        writer = __version__
    if writer == __version__:
        return f"not a configuration of this version: {error}"
    fields = ", ".join(sorted({_field(document, e["loc"]) for e in error.errors()}))
    return (
        f"this image has fedjob {__version__} and cannot read {fields}, which fedjob {writer} has written; use an image with "
        f"fedjob {writer}, or a job without it"
    )


def _field(document: Any, place: tuple[int | str, ...]) -> str:
    """A field as people write it: the job's own from `spec` on. pydantic's place also names variants of a type."""
    found: list[str] = []
    for step in place:
        if isinstance(document, dict) and step in document:
            found.append(str(step))
            document = document[step]
        elif isinstance(document, list) and isinstance(step, int) and found:
            found[-1] += f"[{step}]"
            document = document[step]
    return ".".join(found).removeprefix("job.") or "it"
