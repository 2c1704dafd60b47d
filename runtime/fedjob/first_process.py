"""SIGTERM for a script that is the first process of its container, where the kernel drops a signal that nothing handles.

Without it a pod that is to go lives on for all its grace, and a job waits for it.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_before_fork = threading.local()


def heed_termination() -> None:
    """End on SIGTERM as any other process would, with exit code 143, if this is process 1 and the script has no handler.

    Its forks, such as a data loader's workers, die by the signal as they would elsewhere.
    """
    main = threading.current_thread() is threading.main_thread()  # no other may set a handler
    if main and os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
        # Python forgets signals that come to a child before its first statement, so they are held back until it has no handler.
        os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_be_as_elsewhere)


def _end(number: int, _: FrameType | None) -> None:
    """End at once and without a farewell: whoever told the process to end knows what comes next."""
    os._exit(128 + number)


def _hold_back() -> None:
    _before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before_fork.mask)


def _be_as_elsewhere() -> None:
    if signal.getsignal(signal.SIGTERM) is _end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_through()
