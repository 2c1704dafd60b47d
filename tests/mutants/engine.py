"""mutmut on the one module of the workspace that is the working directory; a process of its own: mutmut is one global state.

Writes result.json: mutant -> its outcome, and the diff of each that is not killed.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

from mutmut import __main__ as mutmut
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths, walk_mutatable_files

from mutants import operators

_PROCESSES = 2


def main(sample: int, seed: int) -> None:
    """Try what has not been tried: all mutants, or as many of them, drawn by the seed."""
    operators.install()
    _speak_plainly()
    copy_src_dir()
    copy_also_copy_files()
    try:
        mutmut.create_mutants(_PROCESSES)
    except BaseException:  # a half-written file is newer than its source, and would be taken for a finished one
        shutil.rmtree("mutants/src")
        raise
    names = sorted(name for data in _found() for name in data.exit_code_by_key)
    drawn = random.Random(seed).sample(names, min(sample, len(names))) if sample else names
    if new := [name for data in _found() for name in drawn if data.exit_code_by_key[name] is None]:
        mutmut._run(new, _PROCESSES)
    else:
        setup_source_paths()
    outcomes: dict[str, dict[str, str]] = {}
    for data in _found():
        for name in drawn:
            outcome = status_by_exit_code[data.exit_code_by_key[name]]
            lost = outcome in ("killed", "timeout", "segfault")
            outcomes[name] = {"outcome": outcome, "diff": "" if lost else get_diff_for_mutant(name, path=data.path)}
    Path("result.json").write_text(json.dumps(outcomes, indent=1))


def _speak_plainly() -> None:
    """What pytest says before the first mutant goes straight to the log, where a failure can be read; no spinner."""
    mutmut.CatchOutput.start = lambda self: None  # type: ignore[method-assign, unused-ignore] # noqa: ARG005
    vars(mutmut)["print_stats"] = lambda *_, **__: None


def _found() -> list[SourceFileMutationData]:
    found = [SourceFileMutationData(path=path) for path in walk_mutatable_files()]
    for data in found:
        data.load()
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
