"""The server process of a job: `python -m fedjob.server CONFIG`.

It waits for the sites, runs the workflow round by round, and puts the state on disk after each. Killed at any moment and
started again, it goes on from there, with the answers that had arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from . import checkpoint, conclusion, identity, logs, narrow, progress_push, transport
from .causes import grouped
from .conclusion import Conclusion
from .conditions import CERTIFICATE_EXPIRED, STOP_METRIC, Conditions
from .config import ServerConfig, read_server
from .errors import FedJobError, IdentityError, JobFailed, PeerFailed, StateError, TransportError
from .files import make_folder, sync_file, sync_folder
from .keyring import Keyring
from .limits import Limits
from .model import ParamsType
from .peers import Offer
from .progress import Story, round_record, status
from .quantities import round_text
from .records import (
    HISTORY_FILE,
    METRICS_FILE,
    STATUS_FILE,
    Condition,
    FinalModel,
    JobRef,
    RoundRecord,
    append,
    read_history,
    write_status,
)
from .refusals import log_refusals
from .service import JobService
from .session import Interrupted, Session
from .stopping import reached, unsent
from .stored import Stored, file_digest, open_stored, stored_form, write, write_whole
from .trees import Tree
from .workflows import WORKFLOWS

log = logging.getLogger("fedjob.server")

EXIT_COMPLETE, EXIT_FAILED, EXIT_USAGE, EXIT_SOFTWARE, EXIT_INTERRUPTED = 0, 1, 2, 70, 143
MODEL_FILE = "model.safetensors"
_CHECKPOINT = "checkpoint"
_REST_FILE = "initial.digest"
_STATUS_SECONDS = 0.2
_CERTIFICATE_SECONDS = 1.0
_DRAIN_SECONDS = 10.0


def main() -> int:
    """Run the server that the configuration file on the command line describes; returns the exit code."""
    log_refusals(log)
    transport.tune_malloc()
    logs.as_text(logging.INFO, "%(asctime)s %(levelname)s %(message)s")
    if len(sys.argv) != 2:
        log.error("usage: python -m fedjob.server CONFIG")
        return EXIT_USAGE
    try:
        config = read_server(Path(sys.argv[1]))
        return asyncio.run(_run(config))
    except FedJobError as e:
        log.error("%s: %s", type(e).__name__, e)
        return EXIT_SOFTWARE if isinstance(e, TransportError) else EXIT_USAGE  # a port that is taken may be free later
    except Exception as e:  # noqa: BLE001 - told, with its traceback
        return _given_up(e)


def _given_up(error: Exception) -> int:
    """Say why this process cannot go on, where another may; returns its exit code. Python's own, 1, would be a verdict."""
    if isinstance(error, OSError):  # a full disk, no descriptors
        log.error("the server cannot go on; it may be started again: %s", error)
    else:
        log.error("the server crashed; it may be started again", exc_info=error)
    return EXIT_SOFTWARE


async def _run(config: ServerConfig) -> int:
    for folder in (config.run, config.state):
        make_folder(folder)  # a fresh volume is empty
    session = _session(config)
    if config.log == "json":
        logs.as_json(logging.getLogger(), partial(_facts, config, session))
    story = Story(JobRef(config.job.metadata.name, config.uid, config.attempt), config.job.spec.workflow.rounds)
    keyring = _keyring(config)
    service = JobService(session.reception, config.uid, config.trust_domain, config.run / METRICS_FILE, story.tally)
    _show(config, story, session, keyring)
    grpc_server, port = await transport.serve(service, config.listen, keyring.now(), keyring.now)
    log.info("job %s attempt %d listens on port %d", config.job.metadata.name, config.attempt, port)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, session.interrupt)
    tasks = [
        asyncio.create_task(_report(config, story, session)),
        asyncio.create_task(_watch_certificate(keyring, config.tls, session.conditions)),
    ]
    if config.report is not None:
        tell = progress_push.push_for_ever(config.report, config.tls, partial(status, story, session), story.pause)
        tasks.append(asyncio.create_task(tell))
    try:
        code = await asyncio.to_thread(_conclude, config, story, session)
        if code in (EXIT_COMPLETE, EXIT_FAILED):
            await asyncio.to_thread(session.await_nobody, _DRAIN_SECONDS)
        return code
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _say_how_it_ended(config, story, session)
        with contextlib.suppress(Exception):
            await grpc_server.stop(grace=1.0)


def _facts(config: ServerConfig, session: Session) -> dict[str, Any]:
    """What every line of the log says."""
    job = config.job.metadata
    return {"job": job.name, "namespace": job.namespace, "attempt": config.attempt, "round": session.round}


def _keyring(config: ServerConfig) -> Keyring:
    """The server's certificate. Raises IdentityError for a wrong one; one that is over is a condition, it may be renewed."""
    own = identity.Identity(config.trust_domain, config.uid, None)
    keyring = Keyring(config.tls, own)
    if wrong := identity.misfits(keyring.now(), own):
        raise IdentityError(" ".join(wrong))
    return keyring


def _show(config: ServerConfig, story: Story, session: Session, keyring: Keyring) -> None:
    """Serve metrics, if the configuration says where."""
    if config.metrics is None:
        return
    from .metrics import ServerSeries, serve  # a library that only watched processes load

    series = ServerSeries(
        job=config.job.metadata.name,
        status=partial(status, story, session),
        sites=session.sites,
        tally=story.tally,
        round_timeout_seconds=config.job.spec.workflow.round_timeout_seconds,
        not_after=keyring.not_after,
    )
    serve(config.metrics, series)


def _session(config: ServerConfig) -> Session:
    spec = config.job.spec
    policy = spec.failure_policy
    limits = Limits(
        round_seconds=spec.workflow.round_timeout_seconds,
        wait_seconds=policy.quorum_timeout_seconds if policy.on_quorum_lost == "Wait" else 0.0,
        site_lost_seconds=policy.site_lost_seconds,
        start_seconds=spec.start_deadline_seconds,
        active_seconds=spec.active_deadline_seconds,
        params_type=ParamsType.DIFF if spec.model.exchange.params == "Diff" else ParamsType.FULL,
        wire_dtype=spec.model.exchange.dtype,
        max_bytes=spec.model.exchange.max_size,
        max_examples=spec.workflow.max_examples,
    )
    return Session(
        [s.name for s in spec.sites], frozenset(spec.required_sites), limits, config.state, attempt=config.attempt
    )


def _recall(story: Story, config: ServerConfig, rounds: int) -> None:
    """What an earlier process of this job has written.

    rounds: how many the checkpoint has. One that was told but not yet saved when the process died runs again.
    """
    history = [r for r in read_history(config.run / HISTORY_FILE) if r.round < rounds]
    story.round_seconds = [r.seconds for r in history if r.kind == "Train"]
    story.round_metrics = [r.metrics for r in history if r.kind == "Train"]
    story.contributors = next((len(r.contributors) for r in reversed(history) if r.kind == "Train"), 0)
    story.bytes_before = (sum(r.bytes_in for r in history), sum(r.bytes_out for r in history))
    story.metrics = dict(history[-1].metrics) if history else {}
    story.unscored = history[-1].missing if history and history[-1].kind == "Evaluate" else ()


async def _report(config: ServerConfig, story: Story, session: Session) -> None:
    """Keep status.json true: rewritten when something has changed, five times a second at most."""
    written, failing = None, False
    while True:
        now = status(story, session)
        if written is None or replace(now, updated_at=0.0) != written:
            try:
                write_status(config.run / STATUS_FILE, now)
            except OSError as e:  # people see an old state for a while; the job goes on
                if not failing:
                    log.warning("status is not written: %s; it is tried again", e)
                failing = True
            else:
                if failing:
                    log.info("status is written again")
                written, failing = replace(now, updated_at=0.0), False
        await asyncio.sleep(_STATUS_SECONDS)


async def _watch_certificate(keyring: Keyring, folder: Path, conditions: Conditions) -> None:
    """Say so while the server's own certificate is over: open connections last, but no site can open another."""
    while True:
        end = identity.not_after(keyring.now().cert_pem)
        if datetime.now(UTC) < end:
            conditions.clear(CERTIFICATE_EXPIRED)
        else:
            what = f"the server's certificate, {folder / identity.CERT_FILE}, expired at {end:%Y-%m-%dT%H:%M:%SZ}"
            conditions.set(Condition(CERTIFICATE_EXPIRED, "NotRenewed", f"{what}; put a renewed one in its place"))
        await asyncio.sleep(_CERTIFICATE_SECONDS)


async def _say_how_it_ended(config: ServerConfig, story: Story, session: Session) -> None:
    """To whoever looks: the status, the file that the process was given, a last report. None of it decides how the job ended."""
    last = status(story, session)
    try:
        if config.termination is not None and story.reason:
            config.termination.write_bytes(conclusion.last_words(story.reason, story.message))
        write_status(config.run / STATUS_FILE, last)
    except OSError as e:
        log.error("the last status cannot be written: %s", e)
    if config.report is not None:
        try:
            await progress_push.farewell(config.report, config.tls, last)
        except Exception:
            log.exception("the last report cannot be sent")


def _conclude(config: ServerConfig, story: Story, session: Session) -> int:
    """Bring the job to its end, whichever that is; put it on the disk, and only then tell the sites."""
    job = config.job.model_dump_json()
    try:
        end = conclusion.load(config.state, config.attempt, job)
        if end is None:
            end = _end(config, story, session)
            _conclude_on_disk(config, session, job, end)
        else:
            _stand_by(config, story, session, end)
    except Interrupted:
        story.state, story.message = "Interrupted", "stopped; a run with --resume goes on"
        log.info("interrupted")
        return EXIT_INTERRUPTED
    except Exception as e:  # noqa: BLE001 - told, with its traceback
        return _given_up(e)
    story.state, story.reason, story.message = end.state, end.reason, end.message
    complete = end.state == "Complete"
    log.log(logging.INFO if complete else logging.ERROR, "job %s: %s", end.state.lower(), end.text)
    session.end(end.state, end.reason, end.message)
    return EXIT_COMPLETE if complete else EXIT_FAILED


def _conclude_on_disk(config: ServerConfig, session: Session, job: str, end: Conclusion) -> None:
    """How the job has ended, before anybody hears of it; a disk that stays full until the job's deadline changes nothing of it."""
    try:
        session.until_space(partial(conclusion.save, config.state, config.attempt, job, end))
    except JobFailed as e:
        log.error("the job has ended, and that could not be written down: %s", e)


def _end(config: ServerConfig, story: Story, session: Session) -> Conclusion:
    try:
        return _drive(config, story, session)
    except JobFailed as e:
        return Conclusion("Failed", e.reason, e.message)
    except StateError as e:
        return Conclusion("Failed", "StateDamaged", str(e))


def _stand_by(config: ServerConfig, story: Story, session: Session, end: Conclusion) -> None:
    """A job that has ended stays as it is: what people read is there again, and nobody is asked for anything."""
    log.info("the job had ended before this process was started")
    try:
        state = _saved(config, story, session)
    except StateError:
        if end.state == "Complete":
            raise
        return  # the job may have failed of just that
    if end.state == "Complete" and state is not None:
        story.model = _published(config.run / MODEL_FILE) or _publish(config, state.model)


def _saved(config: ServerConfig, story: Story, session: Session) -> Any:
    """The state that an earlier process has left, and its story; None if there is none. Raises StateError."""
    workflow = config.job.spec.workflow
    folder, kind = config.state / _CHECKPOINT, WORKFLOWS[workflow.type].State
    told = {r.round for r in read_history(config.run / HISTORY_FILE)}
    saved = session.until_space(
        partial(checkpoint.load, folder, kind, lambda state: told.issuperset(range(state.round)))
    )
    if saved is None:
        return None
    state, before = saved
    session.add_running_seconds(before)
    session.go_on_from(state.round)
    _recall(story, config, state.round)
    story.completed_rounds = story.recalled_rounds = min(len(story.round_metrics), workflow.rounds)
    return state


def _drive(config: ServerConfig, story: Story, session: Session) -> Conclusion:
    """All rounds that are missing; returns how the job is complete.

    The model is published before anything that comes after its last round.
    """
    spec, folder = config.job.spec, config.state / _CHECKPOINT
    module = WORKFLOWS[spec.workflow.type]
    checkpoint.tidy(folder)
    state = _saved(config, story, session)
    keeper = checkpoint.Keeper(folder, [config.run / HISTORY_FILE], session.spares)
    workflow, reason = _remaining(spec.workflow.model_copy(update={"quorum": spec.effective_quorum}), story)
    if state is None:
        session.await_sites(spec.effective_quorum)
        state = module.start(_initial_model(config, session))
        session.until_space(partial(checkpoint.save, folder, state, session.running_seconds()))
        keeper.saved()
    elif state.round < workflow.rounds:
        session.await_sites(1)
    story.state = "Running"
    while state.round < workflow.rounds:
        for after in _rounds(config, story, session, keeper, module.server(session, state, workflow)):
            state, (workflow, reason) = after, _remaining(workflow, story)
            if state.round >= workflow.rounds:
                break
    story.model = session.until_space(partial(_publish, config, state.model))
    unscored = _evaluate(_rounds(config, story, session, keeper, module.server(session, state, workflow)), story)
    keeper.close(max(spec.active_deadline_seconds - session.running_seconds(), 1.0))
    session.end_rounds()
    if unscored:
        return Conclusion("Complete", "EvaluationIncomplete", "; ".join(filter(None, (reason, unscored))))
    return Conclusion("Complete", reason or "RoundsCompleted")


def _evaluate(states: Iterator[Any], story: Story) -> str:
    """What a workflow does after its last round: it costs the model nothing. Returns who did not evaluate it, and why; "": all did."""
    try:
        for _ in states:
            pass
    except FedJobError as e:
        log.error("the final evaluation ends: %s", e)
        return f"the final model is not evaluated: {e}"
    if not story.unscored:
        return ""
    return "the final model is not evaluated by " + grouped(
        (m.site, f"{m.reason}: {m.message}") for m in story.unscored
    )


def _remaining(workflow: Any, story: Story) -> tuple[Any, str]:
    """The workflow, with no more rounds than were trained if its stop condition holds; and why that is ("": it does not).

    It follows from the history alone, so that a server that is started again after the last round stops at the same place.
    """
    reason = reached(workflow.stop_when, story.scores(workflow.stop_when))
    trained = len(story.round_metrics)
    if reason and trained < workflow.rounds:
        return workflow.model_copy(update={"rounds": trained}), reason
    return workflow, reason


def _rounds(
    config: ServerConfig, story: Story, session: Session, keeper: checkpoint.Keeper, states: Iterator[Any]
) -> Iterator[Any]:
    """Each state of the workflow once it is told and safe on disk, in this order: a kill between leaves nothing untold."""
    began, traffic = time.monotonic(), (session.bytes_in, session.bytes_out)
    for state in states:
        tell = cache(partial(_tell, config, story, session, state, (began, time.monotonic()), traffic))  # once
        folder, seconds = config.state / _CHECKPOINT, session.running_seconds()
        history = [config.run / HISTORY_FILE]
        session.until_space(partial(checkpoint.save, folder, state, seconds, tell, session.spares, history))
        keeper.saved()
        session.finish_round()
        yield state
        if story.pausing and story.completed_rounds < story.total_rounds:
            raise Interrupted
        began, traffic = time.monotonic(), (session.bytes_in, session.bytes_out)


def _tell(
    config: ServerConfig,
    story: Story,
    session: Session,
    state: Any,
    times: tuple[float, float],
    traffic: tuple[int, int],
) -> None:
    """The round's line of history, when its model is written. times: of its begin and of its last answer; traffic: before."""
    began, asked = times
    moved = (session.bytes_in - traffic[0], session.bytes_out - traffic[1])
    phases = {"train": asked - began, "aggregate": time.monotonic() - asked}
    kind = session.last_kind()
    record = round_record(session, kind, session.round, phases, moved, _file(state.model).digest)
    append(config.run / HISTORY_FILE, record)
    story.tally.complete(record)
    story.metrics = dict(record.metrics) or story.metrics
    if kind == "Evaluate":
        story.unscored = record.missing
    if kind == "Train":
        story.round_seconds.append(record.seconds)
        story.round_metrics.append(record.metrics)
        story.contributors = len(record.contributors)
        story.completed_rounds = state.round
        _look_for_stop_metric(config, session, record)
    log.info("%s (%s) complete: %d answers, %d missing, %.2f s", round_text(record.round), kind, len(record.contributors),
             len(record.missing), record.seconds)  # fmt: skip


def _look_for_stop_metric(config: ServerConfig, session: Session, record: RoundRecord) -> None:
    """A condition while no site sends what the stop condition watches: a typing error there would cost every further round."""
    workflow = config.job.spec.workflow
    if why := unsent(workflow.stop_when, list(record.metrics), workflow.rounds):
        session.conditions.set(Condition(STOP_METRIC, "NotSent", why))
    else:
        session.conditions.clear(STOP_METRIC)


def _initial_model(config: ServerConfig, session: Session) -> Tree:
    """What the rounds begin with: the included tensors of the model that is there first, as the server keeps them."""
    checked = include = config.job.spec.model.exchange.include
    model: Tree
    if config.initial is None:
        site, model = _offered(config, session)
        checked = narrow.choosing(include)  # that site has left out what the others fit, and has checked them
        whose = f"the model that {site} offers; the log of {site} lists its tensors"
    else:
        model = initial = open_stored(config.initial)
        if include:  # the final model is this one, with what was trained in its place
            write_whole(config.state / _REST_FILE, initial.digest.encode())
        names = ", ".join([*list(model.layout.by_name)[:6], "…"][: len(model.layout.specs)])
        whose = f"the initial model, whose {len(model.layout.specs)} tensors are {names}"
    if not model.layout.specs:
        raise JobFailed(
            "EmptyModel", f"{whose.partition(';')[0].partition(', whose')[0]} has no tensors: there is nothing to train"
        )
    for pattern in narrow.idle(list(model.layout.by_name), checked):
        message = f"spec.model.exchange.include[{include.index(pattern)}] {pattern!r} fits no tensor of {whose}"
        raise JobFailed("NoTensorIncluded", message)
    return narrow.master_form(model, include)


def _offered(config: ServerConfig, session: Session) -> tuple[str, Tree]:
    """The first model that a site offers, required sites asked first, and whose it is."""
    required = config.job.spec.required_sites
    why = list[tuple[str, str]]()
    for name in sorted(session.clients, key=lambda n: (n not in required, n)):
        try:
            model = session.ask(name, Offer()).parts["params"]
        except PeerFailed as e:
            log.info("no initial model from %s", e)
            why.append((name, f"{e.reason}: {e.message}"))
        else:
            log.info("initial model from %s", name)
            return name, model
    raise JobFailed("NoInitialModel", f"{grouped(why)}; so no site offered an initial model")


def _file(model: Tree) -> Stored:
    stored = stored_form(model)
    assert stored is not None  # it has been through a checkpoint
    return stored


def _publish(config: ServerConfig, master: Tree) -> FinalModel:
    """The final model under its public name, in its own dtypes, whole or not at all; returns what people know it by.

    Raises StateError if the initial model, which it is laid over, is not what it was.
    """
    path = config.run / MODEL_FILE
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    model = narrow.own_form(master)
    if config.initial is not None and config.job.spec.model.exchange.include:
        model = narrow.laid_over(
            open_stored(config.initial, (config.state / _REST_FILE).read_text(encoding="utf-8")), model
        )
    if (kept := stored_form(model)) is None:
        kept = write(temporary, model)
    else:
        try:
            os.link(kept.path, temporary)  # files of the state are never changed in place
        except OSError:
            shutil.copyfile(kept.path, temporary)
    sync_file(temporary)
    temporary.rename(path)
    sync_folder(path.parent)
    return FinalModel(kept.digest, path.stat().st_size)


def _published(path: Path) -> FinalModel | None:
    """What an earlier process of this job has published."""
    return FinalModel(file_digest(path), path.stat().st_size) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
