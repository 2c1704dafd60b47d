"""The entry point: what holds for every command, and holds before any of them is loaded. It imports nothing slow itself."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import NoReturn

EXIT_INTERRUPTED = 130
_EXIT_UNWRITTEN = 1


def main() -> None:
    """Entry point of `fedjob` and `kubectl fedjob`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as behind `&` in a script
        signal.signal(signal.SIGINT, _leave)  # until a command has begun, see `commands.Commands`
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale that has no "…" is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    from ..cluster.running import program
    from .commands import app

    try:
        try:
            app(prog_name=program())
        finally:
            _flush()
    except OSError as e:
        _say_unwritten(e)


def _leave(*_: object) -> NoReturn:
    """At once: there is nothing to tidy yet, and an exception within an import may come out as anything."""
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(EXIT_INTERRUPTED)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _say_unwritten(error: OSError) -> NoReturn:
    """End with one line if it is the standard output that takes no more, as an empty line shows, too."""
    from ..terminal import discard_output, say

    try:
        os.write(1, b"\n")
    except OSError:
        discard_output()
        if not isinstance(error, BrokenPipeError):  # whoever reads no further knows
            with contextlib.suppress(OSError):  # a terminal that has closed takes neither
                say(f"stdout: {error.strerror}", err=True)
        sys.exit(_EXIT_UNWRITTEN)
    raise error


if __name__ == "__main__":
    main()
