"""The processes of a local job: started, started again when they die, ended in order. What each of them is, `local` says."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from . import identity, room, warden
from .api import FailureRule
from .conclusion import Conclusion
from .errors import ConfigError
from .last_words import last_words
from .local import ADDRESS, SERVER, Process, Run, prepared
from .quantities import plural
from .records import HISTORY_FILE, STATUS_FILE, Status, read_history, write_status
from .restarts import Budget, End, delay_seconds, fitting, spend

_SERVER_REFUSES, _SERVER_STOPPED = 2, 143  # exit codes of a server that is not started again
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT}  # may pass
_CANNOT_START = 126
_GRACE_SECONDS = 10.0
_LEAVING_SECONDS = 0.5  # for a server to see by itself that a script has left; only then is it told
_ROOM_SECONDS = 2.0  # between two looks at the disk
_OVERTIME_SECONDS = 120.0  # past the job's deadlines, for a server that hangs
_NO_SCRIPT = "can't open file"  # of Python
_OWN_FOLDERS = "each site runs in a folder of its own, with a copy of what lies beside the job file: give an absolute path, or one below it"
_UNTRAINED = (
    "the script ended without training: call fedjob.init(), then receive and send in `while fedjob.is_running()`"
)
_LEFT_EARLY = (
    "the script ended by itself before the job: receive and send in `while fedjob.is_running()`, which ends with it"
)
_UNCAUGHT = "exit code 1: "  # of Python for any exception, which then says more

log = logging.getLogger("fedjob.local")


def run_job(run: Run, *, resume: bool) -> int:
    """Prepare and supervise; returns the exit code. Raises ConfigError, KeyboardInterrupt."""
    with prepared(run, resume=resume):
        return supervise(run)


def supervise(run: Run) -> int:
    """Start all processes, start again what dies, until the job is over; returns the exit code.

    0 complete, 1 failed. Raises KeyboardInterrupt, after every process has ended, if the user stops it.
    """
    exits: queue.SimpleQueue[tuple[Process, int]] = queue.SimpleQueue()
    spec = run.job.spec
    until = time.monotonic() + spec.start_deadline_seconds + spec.active_deadline_seconds + _OVERTIME_SECONDS
    try:
        for process in run.processes.values():
            _start(run, process, exits)
        while True:
            code = _step(run, exits, until)
            if code is not None:
                return code
    finally:
        _stop(run)
        run.over = True
        run.herald.close()
        if status := run.status():
            _write_status(run, status)


def _step(run: Run, exits: queue.SimpleQueue[tuple[Process, int]], until: float) -> int | None:
    """Wait for one exit or due start and see to it; the job's exit code once the server has ended for good.

    until: monotonic time at which the server should have ended the job itself, long since.
    """
    due = min((p.due for p in run.processes.values() if p.due is not None), default=until)
    try:
        process, code = exits.get(timeout=min(max(min(due, until) - time.monotonic(), 0.0), _ROOM_SECONDS))
    except queue.Empty:
        _tell_room(run)
        if time.monotonic() >= until:
            why = "the server did not end the job at its deadline; see logs/server.log"
            _end(run, run.conclusion() or Conclusion("Failed", "DeadlineExceeded", why))
            return 1
        for process in run.processes.values():
            if process.due is not None and process.due <= time.monotonic():
                _start_again(run, process, exits)
        return None
    process.started = None
    if process.name == SERVER:
        return _server_ended(run, exits, process, code)
    if (end := run.conclusion()) is not None:
        _ended_late(run, process, code, end)
        process.due = time.monotonic() + _LEAVING_SECONDS
        return None
    if code == 0:
        why = _left_early(run, process)
        log.warning(
            "%s ended with exit code 0: %s; see %s", process.name, why, os.path.relpath(_log_path(run, process.name))
        )
        _say_final(run, process, "ScriptEnded", why)
        return None
    return _again(run, process, code)


def _tell_room(run: Run) -> None:
    """Say once that the disk is full, and once that it no longer is."""
    why, before = room.lacking(run.folder), run.no_room
    run.no_room = why
    if why and not before:
        step = "the job waits until there is room; or stop it with Ctrl-C, and go on with --resume"
        log.warning("%s: %s: %s", run.folder, why, step)
    elif before and not why:
        log.warning("%s: there is room again", run.folder)


def _start_again(run: Run, process: Process, exits: queue.SimpleQueue[tuple[Process, int]]) -> None:
    """Start what had died, unless the job has ended meanwhile: then the server need not wait for it."""
    if process.name == SERVER or run.conclusion() is None:
        _start(run, process, exits)
        return
    process.due = None
    _say_final(run, process, "ScriptEnded", "nobody starts it again")


def _ended_late(run: Run, process: Process, code: int, end: Conclusion) -> None:
    """A script has ended behind the end of the job. Where that was complete, an error is worth a line, though it changes nothing."""
    if code != 0 and end.state == "Complete":
        how, colon, said = _how(run, process, code).partition(": ")
        told = f"ended with {how} after the job was complete{colon}{said}"
        log.warning("%s %s; see %s", process.name, told, _log_path(run, process.name))


def _server_ended(run: Run, exits: queue.SimpleQueue[tuple[Process, int]], server: Process, code: int) -> int | None:
    """The job's exit code, if this is its end. A verdict is one that is on the disk: any crash of Python may end with 1."""
    end = run.conclusion()
    if code in (0, 1) and end is not None:
        _await_sites(run, exits, end)
        return 0 if end.state == "Complete" else 1
    if code == _SERVER_REFUSES:
        _end(
            run,
            Conclusion(
                "Failed", "ServerNotStarted", f"{last_words(_log_path(run, SERVER), server.said)}; see logs/server.log"
            ),
        )
        return code
    if code == _SERVER_STOPPED:
        _await_sites(run, exits, end)
        return code
    return _again(run, server, code)


def _again(run: Run, process: Process, code: int) -> int | None:
    """Plan a restart, if the failure policy has one left, or do what a rule of it says."""
    status, role = run.status(), "Server" if process.name == SERVER else "Client"
    rule = fitting(run.job.spec.failure_policy.rules, role, [End(code if code >= 0 else 128 - code)])
    if rule is not None and rule.action in ("FailSite", "FailJob"):
        return _by_rule(run, process, code, rule)
    ignored = rule is not None and rule.action == "Ignore"
    how = _how(run, process, code)
    budget = process.budget if ignored else spend(process.budget, status.progress.completed_rounds if status else 0)
    if budget is None:
        process.given_up = _last_death(run, process, how, _spent(process.budget))
        if process.name == SERVER:
            why = f"the server ended with {process.given_up}; see logs/server.log"
            end = run.conclusion() or Conclusion("Failed", "RestartBudgetExhausted", why)
            _end(run, end)
            return 0 if end.state == "Complete" else 1
        _say_final(run, process, "RestartBudgetExhausted", process.given_up)
        return None
    process.budget, process.restarts = budget, process.restarts + 1
    process.due = time.monotonic() + delay_seconds(process.restarts if ignored else budget.used)
    log.warning("%s ended with %s; restart %d", process.name, how, process.restarts)
    return None


def _by_rule(run: Run, process: Process, code: int, rule: FailureRule) -> int | None:
    """A rule ends a site, or the job: its exit code, unless the server had ended it already."""
    fate = f"rule {rule.name} of failurePolicy: {rule.action}"
    process.given_up = _last_death(run, process, _how(run, process, code), fate)
    if rule.action == "FailSite":
        _say_final(run, process, "SiteFailedByRule", process.given_up)
        return None
    _stop(run)  # the server first writes that it was interrupted
    end = run.conclusion() or Conclusion("Failed", "FailedByRule", f"{process.name}: {process.given_up}")
    _end(run, end)
    return 0 if end.state == "Complete" else 1


def _last_death(run: Run, process: Process, how: str, fate: str) -> str:
    """Tell of a process that is not started again, and where its log is; returns why, for who does not see that line."""
    log.warning("%s ended with %s (%s); see %s", process.name, how, fate, os.path.relpath(_log_path(run, process.name)))
    return f"{how.removeprefix(_UNCAUGHT)} ({fate})"


def _spent(budget: Budget) -> str:
    return f"{plural(budget.allowed, 'restart')} used up" if budget.allowed else "no restart is allowed"


def _say_final(run: Run, site: Process, reason: str, message: str) -> None:
    """Tell the server, in a site's name, that nobody will start it again."""
    site.final = True
    credentials = identity.read(run.keys / site.name)
    run.herald.say(f"{ADDRESS}:{run.port}", credentials, run.attempt, reason, message)


def _end(run: Run, end: Conclusion) -> None:
    """What a server that is gone for good could not say itself."""
    status = run.status() or run.first_status()
    _write_status(run, replace(status, state=end.state, reason=end.reason, message=end.message))


def _write_status(run: Run, status: Status) -> None:
    """What people read never decides how a job ends."""
    try:
        write_status(run.folder / STATUS_FILE, status)
    except OSError as e:
        run.unwritten = f"{STATUS_FILE}: {e.strerror}"


def _await_sites(run: Run, exits: queue.SimpleQueue[tuple[Process, int]], end: Conclusion | None) -> None:
    """Let the scripts see the end of the job and leave by themselves, for a while."""
    until = time.monotonic() + _GRACE_SECONDS
    while any(p.started for p in run.processes.values()) and (left := until - time.monotonic()) > 0:
        try:
            process, code = exits.get(timeout=left)
        except queue.Empty:
            return
        process.started = None
        if end is not None:
            _ended_late(run, process, code, end)


# ------------------------------------------------------------------------------------------------- processes


def _start(run: Run, process: Process, exits: queue.SimpleQueue[tuple[Process, int]]) -> None:
    process.due = None
    try:
        with _log_path(run, process.name).open("ab") as out:
            process.said = out.tell()
            started = subprocess.Popen(
                process.command,
                cwd=process.directory,
                env=dict(process.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the runner, which ends the others in order
                preexec_fn=_die_with_parent,
            )
    except OSError as e:
        if process.restarts and e.errno in _NO_ROOM:
            log.warning("%s cannot be started: %s", process.name, e.strerror)
            exits.put((process, _CANNOT_START))
            return
        raise ConfigError(f"{process.name}: cannot start {process.command[0]!r}: {e.strerror}") from e
    process.started = started
    threading.Thread(target=_await_end, args=(process, started, exits), daemon=True).start()


def _await_end(
    process: Process, started: subprocess.Popen[bytes], exits: queue.SimpleQueue[tuple[Process, int]]
) -> None:
    """Report the exit; what the process has started itself, and left behind, goes with it."""
    code = started.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    exits.put((process, code))


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Linux: a runner that is killed leaves no orphans."""
    if _libc is not None:
        pr_set_pdeathsig = 1
        _libc.prctl(pr_set_pdeathsig, signal.SIGKILL)


def _stop(run: Run) -> None:
    """End what still runs: politely first, each with its process group, then for certain."""
    started = [(p.started, _last_signal(p)) for p in run.processes.values() if p.started is not None]
    running = [popen for popen, _ in started if popen.poll() is None]
    for polite, patience in ((True, _GRACE_SECONDS), (False, _GRACE_SECONDS)):
        for popen, last in started:
            if popen.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(popen.pid, signal.SIGTERM if polite else last)
        until = time.monotonic() + patience
        for popen in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.wait(max(until - time.monotonic(), 0.01))


def _last_signal(process: Process) -> signal.Signals:
    """What ends a process for certain; a warden must live until it has ended the others."""
    return warden.END_NOW if tuple(process.command[: len(warden.COMMAND)]) == warden.COMMAND else signal.SIGKILL


def _how(run: Run, process: Process, code: int) -> str:
    """The exit code and what the process said last; one that was ended by a signal had no say in it."""
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    said = last_words(_log_path(run, process.name), process.said)
    hint = f"; {_OWN_FOLDERS}" if _NO_SCRIPT in said else ""
    return f"exit code {code}" + (f": {said}{hint}" if said else "")


def _left_early(run: Run, site: Process) -> str:
    """What is wrong with a script that ends well, and too soon."""
    try:
        contributed = any(site.name in record.contributors for record in read_history(run.folder / HISTORY_FILE))
    except (OSError, ValueError):  # what people read
        contributed = True
    status = run.status()
    answered = status is not None and any(s.name == site.name and s.examples for s in status.sites)
    return _LEFT_EARLY if contributed or answered else _UNTRAINED


def _log_path(run: Run, name: str) -> Path:
    return run.folder / "logs" / f"{name}.log"
