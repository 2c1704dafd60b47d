"""Start processes of a measure and end every one of them, whatever they started and however they left.

Peers start daemons in sessions of their own, so a process group is not enough: this process makes itself the parent
of all orphans below it (Linux, PR_SET_CHILD_SUBREAPER) and ends whatever is still its descendant.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0


class MeasureError(Exception):
    """A measure could not be taken; the message says why and where to look."""


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Every process that starts inside, at whatever depth, is gone when the block is left."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    before = descendants()
    try:
        yield
    finally:
        end(lambda: descendants() - before)


def start(
    command: Sequence[str | Path], log: Path, *, cwd: Path, env: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; what it prints goes to `log`, `env` is added to this environment."""
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd,
                                env={**os.environ, **env}, start_new_session=True, pass_fds=pass_fds)  # fmt: skip


def succeed(process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait for a process to end well. Raises MeasureError if it fails or is not done in time."""
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"{_name(process)} did not end within {seconds:.0f} s:\n{tail(log)}") from None
    if code != 0:
        raise MeasureError(f"{_name(process)} ended with exit code {code}:\n{tail(log)}")


def await_port(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait until a process accepts connections. Raises MeasureError if it ends first or is late."""

    def accepts() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    _await(accepts, f"port {port}", process, log, seconds)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


def isolated(command: Sequence[str | Path], ports: Sequence[int]) -> list[str | Path]:
    """The command in a network of its own, where there is only loopback, if this machine lets us make one.

    ports: what the command will listen on. Raises MeasureError if it must share this machine's and one is taken.
    """
    prefix = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "isolated"]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return [*prefix, *command]
    for port in ports:
        try:
            socket.create_server(("", port)).close()
        except OSError as e:
            raise MeasureError(f"port {port} is needed for this peer and taken: {e.strerror}") from e
    return list(command)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    found = log.read_text(errors="replace", encoding="utf-8").splitlines()[-lines:] if log.exists() else []
    return "\n".join(line[:300] for line in found)


def descendants() -> set[int]:
    """Identifiers of all processes below this one."""
    children: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command's name, in parentheses, may hold spaces and parentheses itself.
            parent = int(stat.read_text(errors="replace", encoding="utf-8").rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, set()).add(int(stat.parent.name))
    found: set[int] = set()
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), set()) - found
        found |= below
        queue += below
    return found


def end(who: Callable[[], set[int]]) -> None:
    """SIGTERM, then SIGKILL after a grace, until `who` names nobody; late-born children are ended as well."""
    _signal(who(), signal.SIGTERM, GRACE_SECONDS)
    for _ in range(20):
        if not (left := who()):
            return
        _signal(left, signal.SIGKILL, 1.0)
    raise MeasureError(f"processes {sorted(who())} cannot be ended")


def _signal(pids: set[int], number: int, grace: float) -> None:
    """Send a signal and wait for the processes to be gone, reaping those that have become ours."""
    until = time.monotonic() + grace
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        left = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                stack.callback(os.close, fd)
                signal.pidfd_send_signal(fd, number)
                poll.register(fd, select.POLLIN)
                left[fd] = pid
        while left and (remaining := until - time.monotonic()) > 0:
            for fd, _ in poll.poll(remaining * 1000):
                poll.unregister(fd)
                del left[fd]
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _await(done: Callable[[], bool], what: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Look 20 times a second; a measured interval never begins or ends here."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while not done():
        if process.poll() is not None:
            raise MeasureError(f"{_name(process)} ended before {what} was there:\n{tail(log)}")
        if time.monotonic() > until:
            raise MeasureError(f"{_name(process)}: no {what} within {seconds:.0f} s:\n{tail(log)}")
        pause.wait(0.05)


def _name(process: subprocess.Popen[bytes]) -> str:
    arguments = [str(a) for a in process.args] if isinstance(process.args, (list, tuple)) else [str(process.args)]
    return " ".join(Path(a).name for a in arguments[:3])
