"""Hold a command's whole family together: `python warden.py COMMAND…`, Linux only.

torchrun starts its workers in sessions of their own, as experiment trackers do their helpers, where no signal to a group and no
parent-death signal of ours reaches them. The warden adopts whatever loses its parent, so that all of the family can be found and ended. It sleeps until a signal:
SIGCHLD, something has ended; SIGTERM, passed on to the command's group; SIGHUP, end everything now, which the kernel also sends
when whoever started the warden is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

# By its path and isolated: a script's folder may hold a signal.py, and each site has a warden, which should be small.
COMMAND = (sys.executable, "-I", "-S", str(Path(__file__).resolve()))
END_NOW = signal.SIGHUP
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, END_NOW)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_NOT_STARTED = 127  # as a shell says it


def main(command: list[str]) -> int:
    """Run the command to its end; its exit code, or minus the number of the signal that ended it."""
    libc = ctypes.CDLL(None, use_errno=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1) or libc.prctl(_PR_SET_PDEATHSIG, int(END_NOW)):
        raise OSError(ctypes.get_errno(), "prctl")

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    try:
        # A group of its own: a signal to the warden's group reaches the command once, from the warden.
        child = subprocess.Popen(command, process_group=0, preexec_fn=in_child)
    except OSError as e:
        sys.stderr.write(f"cannot start {command[0]!r}: {e.strerror}\n")
        return _NOT_STARTED
    code = _await_end(child.pid)
    _end_family()
    return code


def _await_end(pid: int) -> int:
    """Until the command has ended, or everything is to end. It may run as long as it likes: the job has the deadline."""
    while True:
        number = signal.sigwait(_SIGNALS)
        if number == END_NOW:
            return -signal.SIGKILL
        if number == signal.SIGTERM:
            os.killpg(pid, signal.SIGTERM)  # not reaped yet, so the number is still its own
        elif (code := _reap(pid)) is not None:
            return code


def _reap(pid: int) -> int | None:
    """Collect all that have ended, one SIGCHLD may stand for several; the exit code of `pid` once it is among them."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)
        if ended == 0:
            return None


def _end_family() -> None:
    """Kill children until there are none; theirs become ours as they end, so that this goes down the whole tree."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _children():
                os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)  # ends by itself: each child there is has been killed, or is killed on the next turn


def _children() -> list[int]:
    """Processes whose parent this one is, also those that have ended and are not reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(path.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def _leave(code: int) -> None:
    """End this process as the command did."""
    if code >= 0:
        sys.exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left its core, if any
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
    os.kill(os.getpid(), -code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
