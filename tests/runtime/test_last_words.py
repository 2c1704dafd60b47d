"""The line of a log that says why its process has ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob.last_words import last_words

CHAINED = """
try:
    1 / 0
except ZeroDivisionError as e:
    raise ValueError("first line\\nsecond line") from e
"""
COLON = """
import atexit
atexit.register(print, "bye")
raise ValueError("wrong shapes:\\na has 3")
"""
OTHERS_FAIL_LATER = """
import atexit, threading
def late():
    raise RuntimeError("not the reason")
def in_thread():
    try:
        late()
    except RuntimeError as e:
        raise KeyError("not the reason either") from e
def at_exit():
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    late()
atexit.register(at_exit)
raise ValueError("the reason")
"""
IN_A_THREAD = """
import sys, threading
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
sys.exit(1)
"""
MISMATCH = """
raise RuntimeError("Error(s) in loading state_dict for Sequential:\\n\\tMissing key(s) in state_dict: '0.bias'. ")
"""
RANKS = """[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 2, in <module>
[rank1]: KeyError: 'weights'
Traceback (most recent call last):
  File "torchrun", line 8, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
"""


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("input()", "EOFError: EOF when reading a line"),
        (CHAINED, "ValueError: first line"),
        (COLON, "ValueError: wrong shapes: a has 3"),
        (
            MISMATCH,
            "RuntimeError: Error(s) in loading state_dict for Sequential: Missing key(s) in state_dict: '0.bias'.",
        ),
        (OTHERS_FAIL_LATER, "ValueError: the reason"),
        (IN_A_THREAD, "ZeroDivisionError: division by zero"),
        ("import sys; print('one'); sys.exit('no data')", "no data"),
        ("def", "SyntaxError: invalid syntax"),
        ("pass", ""),
        ("import atexit; atexit.register(print, 'bye'); 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_python_says_of_an_end_is_found(script: str, words: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        subprocess.run(
            [sys.executable, "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=60
        )
    assert last_words(tmp_path / "log") == words


def test_a_traceback_of_a_file_that_is_no_python_is_the_line_behind_its_frames(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("python: can't open file '/x/trian.py': [Errno 2] No such file or directory\n\n")
    assert last_words(tmp_path / "log").startswith("python: can't open file")
    (tmp_path / "log").write_text(RANKS)
    assert last_words(tmp_path / "log") == "KeyError: 'weights'"
    crash = "Traceback (most recent call last):\n  File x\nOSError: [Errno 24] Too many open files\n"
    (tmp_path / "log").write_text(
        crash + crash.replace("OSError: [Errno 24] Too many open files", "asyncio.CancelledError")
    )
    assert last_words(tmp_path / "log") == "OSError: [Errno 24] Too many open files"


def test_what_an_earlier_process_said_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("ValueError: before\n")
    assert last_words(tmp_path / "log", since=(tmp_path / "log").stat().st_size) == ""
    assert last_words(tmp_path / "nowhere") == ""


@given(st.binary(max_size=200))
def test_any_bytes_are_one_short_printable_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    log = tmp_path_factory.getbasetemp() / "log"
    log.write_bytes(data * 200)
    said = last_words(log)
    assert len(said) <= 300
    assert said == "" or said.isprintable()


@pytest.mark.parametrize("length", [100, 20_000, 3_000_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_error_of_any_length_is_known_by_its_type(tmp_path: Path, length: int, end: str) -> None:
    log = tmp_path / "a.log"
    earlier = "KeyError: of an earlier process" + end
    raised = [
        "Traceback (most recent call last):",
        '  File "train.py", line 1, in <module>',
        f"ValueError: {'y' * length}",
    ]
    log.write_bytes((earlier + end.join([*raised, ""])).encode())
    assert last_words(log, len(earlier)).startswith("ValueError: yyy")
    assert len(last_words(log, len(earlier))) <= 300
