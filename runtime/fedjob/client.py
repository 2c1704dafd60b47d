"""What a training script calls. The script is the client: its process speaks to the server itself, with no agent between.

In a site of several processes (torchrun) only rank 0 speaks; the others get their copy of the model by broadcast.
Importing this module is cheap; grpc and numpy are loaded by `init`.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import first_process, values
from .errors import OUT_OF_STEP, FedJobError, IdentityError, LocalProtocolError
from .model import AnalyticsDataType, FLModel, MetaKey, ParamsType, holds_tensors
from .quantities import round_text

if TYPE_CHECKING:
    from .config import Ranks, SiteConfig
    from .gang import Gang
    from .keyring import Renewal
    from .uplink import Uplink
    from .wire_pb2 import Task

__all__ = [
    "AnalyticsDataType",
    "Context",
    "FLModel",
    "MetaKey",
    "ParamsType",
    "Receipt",
    "get_config",
    "get_job_id",
    "get_site_name",
    "get_task_name",
    "init",
    "is_evaluate",
    "is_running",
    "is_submit_model",
    "is_train",
    "log",
    "receive",
    "send",
    "shutdown",
    "skip",
    "system_info",
]

_log = logging.getLogger("fedjob")
_TASK_NAMES = {"Train": "train", "Evaluate": "validate"}  # as scripts written for NVFLARE compare them


@dataclass(frozen=True)
class Receipt:
    """What became of an answer. reason: "" or the name of a refusal, e.g. PastRound, NotFinite.

    message: a sentence; of an answer that was accepted, what of it was left out.
    """

    accepted: bool
    reason: str = ""
    message: str = ""

    def __bool__(self) -> bool:
        return self.accepted


class Context:
    """Leaving a `with fedjob.init(...)` block ends the session."""

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _leave(error)


@dataclass
class _Session:
    config: SiteConfig
    ranks: Ranks
    uplink: Uplink | None  # None on all ranks but 0
    renewal: Renewal | None
    gang: Gang | None  # None in a site of one process
    offered: Any = None
    task: Task | None = None
    model: FLModel | None = None
    forms: dict[str, Mapping[str, str]] = field(default_factory=dict)  # part -> tensor name -> torch or numpy
    thread_failure: str = ""
    received_at: float = 0.0  # monotonic
    process: int = field(default_factory=os.getpid)


_session: _Session | None = None
_left = False  # whether this process was in the job and is no longer
_unsent = 0  # values logged since
_dying = False  # whether this process ends, by an error or at its exit


def init(
    model: Mapping[str, Any] | None = None, *, rank: int | str | None = None, config_file: str | None = None
) -> Context:
    """Join the job. Call once, before any other function here.

    model: a state dict offered as the initial model; it is read if the server has none and asks this site, at the latest in
    the first `is_running` or `receive`; ValueError if there is no tensor in it. rank: of this process within its site; default:
    torchrun's RANK, else 0. Raises ConfigError if the script was not started by fedjob, or by a script that is in the job;
    IdentityError if its certificate will not do.
    """
    global _session, _left
    if model is not None and not isinstance(model, Mapping):
        raise TypeError(f"init(model): a state dict (name -> tensor) is expected, got {type(model).__name__}")
    if model is not None and not holds_tensors(model):
        raise ValueError(
            "init(model): the state dict holds no tensors, so there is nothing to train; pass model.state_dict() of a module "
            "with parameters, or init() without a model where spec.model.initial names one"
        )
    if _session is not None and _session.process != os.getpid():
        raise LocalProtocolError(
            f"fedjob.init() was called by process {_session.process}, of which this one, {os.getpid()}, is a fork: the session goes "
            "on there"
        )
    if _session is not None:
        _log.warning("fedjob.init() was called before; the session goes on")
        return Context()
    from .config import enter_session, leave_session, read_ranks, read_site

    config, ranks = read_site(config_file), read_ranks(rank)
    enter_session()
    try:
        _session = _joined(config, ranks, model)
    except BaseException:  # what a script that goes on starts must not take it for one that is in the job
        leave_session()
        raise
    _left = False
    _report_exceptions()
    first_process.heed_termination()
    atexit.register(_leave)
    atexit.register(_die)
    return Context()


def _joined(config: SiteConfig, ranks: Ranks, model: Any) -> _Session:
    gang = None
    if ranks.world_size > 1:
        from .gang import Gang

        gang = Gang(ranks)
    uplink, renewal = _connect(config) if ranks.rank == 0 else (None, None)
    return _Session(config, ranks, uplink, renewal, gang, offered=model)


def is_running() -> bool:
    """Whether there is more to do: waits for the next task; False once the job has ended well.

    Raises JobFailed if it ended otherwise, ServerLost if the server stays away too long, Superseded or StaleAttempt if
    another process of this site has taken this one's place. Each has an exit code of its own, if the script lets it pass.
    """
    return _next_task(None) is not None


def receive(timeout: float | None = None) -> FLModel | None:
    """The global model of the task at hand, None once the job has ended. Before `send`, again the same object.

    timeout: seconds to wait for a task, None: until the job ends. Raises ReceiveTimeout, and what `is_running` raises.
    """
    s = _current()
    while True:
        task = _next_task(timeout)
        if task is None:
            return None
        if s.model is None:
            began = time.monotonic()
            s.model = _download(s, task)
            s.received_at = time.monotonic()
            _took(s, "download", s.received_at - began)
        if s.model is not None:
            return s.model


def _download(s: _Session, task: Task) -> FLModel | None:
    """The model of a task, on every rank; None if its round closed before it was here."""
    parts: dict[str, Any] | None = {}
    if s.uplink is not None:
        from .exchange import download

        parts = download(s.uplink, task, s.forms, s.config)
    parts = s.gang.share_parts(parts) if s.gang else parts
    if parts is None:
        return None
    if task.key.kind == "Train" and "optimizer_params" in s.forms and "optimizer_params" not in parts:
        _log.warning(
            "%s: the optimizer_params that were sent do not come back: those of the sites differ, the log of the server "
            "says in what",
            round_text(task.key.round),
        )
    total = s.config.workflow["rounds"]
    return FLModel(
        params=parts.get("params"),
        optimizer_params=parts.get("optimizer_params"),
        current_round=task.key.round,
        total_rounds=total,
        meta={
            "job_id": s.config.uid,
            "site_name": s.config.site,
            "current_round": task.key.round,
            "total_rounds": total,
        },
    )


def send(model: FLModel, clear_cache: bool | None = None) -> Receipt:  # noqa: ARG001
    """Answer the task at hand. On ranks other than 0 nothing is sent.

    clear_cache: accepted for scripts written for NVFLARE, where it empties both models; here they always stay as they are.
    Returns what became of it: an answer that comes late or is refused does not raise, the next round goes on.
    Raises LocalProtocolError if nothing was received, TypeError, ValueError, CodecError for what cannot be sent.
    """
    s = _current()
    task = _task_at_hand(s)
    if s.uplink is None:
        return _put_aside(s, Receipt(True))
    if s.uplink.is_over(task.key):
        return _put_aside(s, Receipt(False, "PastRound", f"{round_text(task.key.round)} closed without this answer"))
    from .exchange import announcement

    announce, parts = announcement(task, model, s.forms, s.config)
    began = time.monotonic()
    _took(s, "train", began - s.received_at)
    s.uplink.tally.scores.take(s.config.site, values.scores(model.metrics))
    verdict = s.uplink.submit(announce, parts)
    _took(s, "upload", time.monotonic() - began)
    return _put_aside(s, Receipt(verdict.accepted, verdict.reason, verdict.message))


def skip(reason: str) -> Receipt:
    """Sit this round out, and say why. The job goes on without this site until the next round."""
    s = _current()
    task = _task_at_hand(s)
    if s.uplink is None:
        return _put_aside(s, Receipt(True))
    from .wire_pb2 import Announce

    verdict = s.uplink.submit(Announce(key=task.key, declined=values.legible(str(reason)) or "no reason given"), ())
    return _put_aside(s, Receipt(verdict.accepted, verdict.reason, verdict.message))


def log(
    key: str,
    value: Any = None,
    data_type: AnalyticsDataType | str | None = None,  # noqa: ARG001 - scripts written for NVFLARE pass it
    *,
    global_step: int | None = None,
    step: int | None = None,
    **unknown: Any,
) -> None:
    """Record a scalar at the server, for the report; never waits, and is lost if the server is away. Rank 0 only.

    key: its name. value: one number, any float. It counts for the round at hand, after `send` for the one answered last. Raises
    TypeError or ValueError for anything else, on every rank. Once this process has left the job, the value is dropped: a thread
    or an exit handler that logs on is no error.
    """
    if unknown:
        raise TypeError(f"fedjob.log() has no option {', '.join(unknown)}; allowed: data_type, global_step, step")
    what = f"fedjob.log({key!r})"
    name, scalar = values.name(key, what), values.number(value, f"{what}: value")
    at = values.step(global_step if step is None else step, f"{what}: step")
    s = _session
    if s is None and _left:
        return _drop(what)
    s = s or _current()
    if s.uplink is None:
        return None
    from .wire_pb2 import Upward, Value

    tally = s.uplink.tally
    tally.logged.take(s.config.site, {name: scalar})
    s.uplink.tell(Upward(value=Value(key=name, value=scalar, round=tally.round, step=-1 if at is None else at)))
    return None


def _drop(what: str) -> None:
    """Count a value that comes after the end, and say so once; not in a process that is dying, whose last words are others."""
    global _unsent
    _unsent += 1
    if _unsent == 1 and not _dying:
        _log.warning("%s: this process has left the job; this value and later ones are not sent", what)


def is_train() -> bool:
    """Whether the task at hand asks for training."""
    return get_task_name() == "train"


def is_evaluate() -> bool:
    """Whether the task at hand asks for metrics only: answer with `FLModel(metrics=…)`."""
    return get_task_name() == "validate"


def is_submit_model() -> bool:
    """Whether the task at hand asks for the site's own best model."""
    return get_task_name() == "submit_model"


def get_task_name() -> str:
    """Name of the task at hand: "train" or "validate"; "" if there is none."""
    task = _current().task
    return _TASK_NAMES.get(task.key.kind, task.key.kind) if task is not None else ""


def get_job_id() -> str:
    """Unique id of the job."""
    return _current().config.uid


def get_site_name() -> str:
    """Name of this site, as in the job file."""
    return _current().config.site


def get_config() -> dict[str, Any]:
    """The job as this site sees it: job {name, uid}, site, sites (sorted), workflow (as in the job file)."""
    c = _current().config
    return {
        "job": {"name": c.job, "uid": c.uid},
        "site": c.site,
        "sites": sorted(c.sites),
        "workflow": dict(c.workflow),
    }


def system_info() -> dict[str, Any]:
    """Who and where: job_id, site_name, rank, world_size."""
    s = _current()
    return {
        "job_id": s.config.uid,
        "site_name": s.config.site,
        "rank": s.ranks.rank,
        "world_size": s.ranks.world_size,
    }


def shutdown() -> None:
    """Leave the job. At the end of a script this happens by itself."""
    _leave()


def _current() -> _Session:
    if _session is None and _left:
        raise LocalProtocolError("this process has left the job: call this before fedjob.shutdown()")
    if _session is None:
        raise LocalProtocolError("call fedjob.init() first")
    return _session


def _connect(config: SiteConfig) -> tuple[Uplink, Renewal]:
    """The connection to the server, and what keeps its certificate the newest."""
    from datetime import UTC, datetime

    from . import identity, logs, transport
    from .keyring import Keyring, Renewal
    from .uplink import Uplink

    transport.tune_malloc()
    expected = identity.Identity(config.trust_domain, config.uid, config.site)
    keyring = Keyring(config.tls, expected)
    held = keyring.now()
    if problems := identity.problems(held, datetime.now(UTC), expected):
        raise IdentityError(" ".join(problems))
    uplink = Uplink(config.server, config.server_name, held, config.attempt, config.server_lost_seconds)
    if config.log == "json":
        logs.as_json(
            _log,
            lambda: {"job": config.job, "site": config.site, "attempt": config.attempt, "round": uplink.tally.round},
        )
    if config.metrics is not None:
        from .metrics import ClientSeries, serve

        serve(config.metrics, ClientSeries(config.job, config.site, uplink.tally, uplink.heard, keyring.not_after))
    return uplink, Renewal(keyring, held, uplink.renew)


def _next_task(timeout: float | None) -> Task | None:
    """The task at hand, or the next one when it comes; None at the end. Every rank gets the same."""
    s = _current()
    task = s.gang.share_task(_ask_server, timeout) if s.gang else _ask_server(timeout)
    if task is None or s.task is None or task.key != s.task.key:
        s.task, s.model = task, None
    if s.uplink is not None and task is not None:
        s.uplink.tally.round = task.key.round
    return task


def _took(s: _Session, phase: str, seconds: float) -> None:
    """Note how long a phase of the task has taken; the process that speaks to the server does."""
    if s.uplink is not None:
        s.uplink.tally.phases[phase].add(seconds)


def _ask_server(timeout: float | None) -> Task | None:
    s = _current()
    assert s.uplink is not None
    while (task := s.uplink.next_task(timeout)) is not None and task.key.kind == "Offer":
        from .exchange import offer

        announce, parts = offer(task, s.offered, s.forms, s.config.include)
        s.uplink.submit(announce, parts)
        s.uplink.done(task.key)
    s.offered = None  # the server has a model now; this process keeps one copy
    return task


def _task_at_hand(s: _Session) -> Task:
    if s.task is None:
        raise LocalProtocolError("nothing was received since the last send: call fedjob.receive() first")
    return s.task


def _put_aside(s: _Session, receipt: Receipt) -> Receipt:
    """The task is answered; the model that was received is the script's alone from here on."""
    if s.uplink is not None and s.task is not None:
        s.uplink.done(s.task.key)
        s.uplink.tally.judged(receipt.accepted, receipt.reason)
    if not receipt.accepted:
        _log.warning("answer not accepted: %s: %s", receipt.reason, receipt.message)
    elif receipt.message and not receipt.reason:
        _log.warning("answer accepted; %s", receipt.message)
    s.task = s.model = None
    return receipt


def _report_exceptions() -> None:
    """Let the server know why a script dies: a user's error looks different from a lost process."""
    before: Callable[..., Any] = sys.excepthook
    before_in_thread: Callable[..., Any] = threading.excepthook
    process = os.getpid()

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if _session is not None and _session.gang is not None and _in_collective(trace):
            error.add_note(f"fedjob: {OUT_OF_STEP}.")
        before(kind, error, trace)
        if os.getpid() == process:
            _die()
            _leave(error)
            if isinstance(error, FedJobError):
                raise SystemExit(error.exit_code)  # the interpreter goes on to end as it would have, with this code

    def hook_in_thread(args: threading.ExceptHookArgs) -> None:
        before_in_thread(args)
        if os.getpid() == process and _session is not None and args.exc_value is not None:
            name = args.thread.name if args.thread else "a thread"
            _session.thread_failure = f", after {name} had failed with {_text(args.exc_value)}"

    sys.excepthook, threading.excepthook = hook, hook_in_thread


def _die() -> None:
    global _dying
    _dying = True


def _in_collective(trace: TracebackType | None) -> bool:
    """Whether an error comes out of a collective of torch, where ranks that are out of step read each other's messages."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(trace))
    return any(str(name).startswith("torch.distributed") for name in modules)


def _text(error: BaseException) -> str:
    return values.legible(f"{type(error).__name__}: {error}")


def _leave(error: BaseException | None = None) -> None:
    """Say what this process knows of its end. Whether it is started again, whoever supervises it knows alone."""
    global _session, _left
    s, _session = _session, None
    _left = _left or s is not None
    if s is not None and s.process == os.getpid():
        from .config import leave_session

        leave_session()
    if s is not None and s.gang is not None:
        s.gang.close()
    if s is not None and s.renewal is not None:
        s.renewal.close()
    if s is None or s.uplink is None:
        return
    from .wire_pb2 import Farewell

    if error is not None and not isinstance(error, SystemExit):
        farewell = Farewell(reason="ScriptFailed", message=_text(error)[:2000])
    else:
        farewell = Farewell(reason="ScriptEnded", message=f"the script ended before the job{s.thread_failure}"[:2000])
    s.uplink.close(farewell)
