"""A search for inputs that break a parser, guided by the coverage that they reach: `make fuzz`, or

    python -m fuzz.guided --seconds 60 frame tensors     # these alone
    python -m fuzz.guided --again build/fuzz/frame/crash-…  # what once broke it

What it learns stays in build/fuzz/PARSER and the next search goes on from there. It needs atheris: pip install fedjob[fuzz].
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fedjob", "fuzz.parsers"]):
    from fuzz.parsers import PARSERS

FOUND = Path("build/fuzz")
MAX_BYTES = 4096
MEMORY_MIB = 2048
ONE_INPUT_SECONDS = 10


def main() -> int:
    """The exit code: 1 if a parser broke; its input lies beside what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", metavar="PARSER", help=f"of {', '.join(PARSERS)}; default: all")
    parser.add_argument("--seconds", type=int, default=30, help="for each parser; default 30")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="give this one input to the parser that its folder names"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.parsers) - PARSERS.keys():
        parser.error(f"no parser {', '.join(sorted(unknown))}; there are {', '.join(PARSERS)}")
    if given.again:
        PARSERS[given.again.resolve().parent.name](given.again.read_bytes())
        return 0
    if given.here:
        _search(given.parsers[0], given.seconds)
    broken = [name for name in given.parsers or PARSERS if not _searched(name, given.seconds)]
    sys.stdout.write(f"broken: {', '.join(broken)}; see {FOUND}\n" if broken else "no parser broke\n")
    return 1 if broken else 0


def _searched(name: str, seconds: int) -> bool:
    """Search in a process of its own: libFuzzer ends the one in which it runs."""
    sys.stdout.write(f"== {name}, {seconds} s\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "fuzz.guided", "--here", "--seconds", str(seconds), name]
    return subprocess.run(command, check=False).returncode == 0


def _search(name: str, seconds: int) -> None:
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(PARSERS[name].seeds):
        (folder / f"seed-{i}").write_bytes(seed)
    options = {
        "max_total_time": seconds, "max_len": MAX_BYTES, "rss_limit_mb": MEMORY_MIB, "timeout": ONE_INPUT_SECONDS,
        "artifact_prefix": f"{folder}/", "verbosity": 0, "print_final_stats": 1,
    }  # fmt: skip
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(folder)], PARSERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
