"""What starts a process of a job: written by `fedjob run` or the operator, read by the server and the clients.

This is the runtime's only reader of the environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .api import FederatedJob
from .errors import ConfigError

T = TypeVar("T", bound=BaseModel)
CONFIG_VARIABLE = "FEDJOB_CONFIG"
DATA_VARIABLE = "FEDJOB_DATA"
LogFormat = Literal["text", "json"]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Report(_Config):
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
    tls: Path
    run: Path  # what people read: the model, history, status
    state: Path  # what the server needs to go on after a restart
    initial: Path | None = None  # safetensors file of the initial model
    report: Report | None = None
    termination: Path | None = None  # the verdict, for whoever looks at the process after its end
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
    tls: Path
    work: Path  # scratch that this site's processes share
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


def read_ranks(rank: int | str | None = None) -> Ranks:
    """Rank and world size from torchrun's environment; `rank` overrides. Raises ConfigError."""
    try:
        return Ranks(rank=int(os.environ.get("RANK", "0") if rank is None else rank),
                     world_size=int(os.environ.get("WORLD_SIZE", "1")))  # fmt: skip
    except ValueError as e:
        raise ConfigError(f"RANK, WORLD_SIZE and rank must be whole numbers: {e}") from None


def write(path: Path, config: ServerConfig | SiteConfig) -> None:
    """Write a configuration for `read_server` or `read_site`."""
    path.write_text(config.model_dump_json(by_alias=True, indent=1))


def _read(kind: type[T], path: Path) -> T:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    except (ValidationError, json.JSONDecodeError) as e:
        raise ConfigError(f"{path}: not a configuration of this version: {e}") from e
