"""Evaluate `spec.model.initial.object` in the trainer's code: `python -m fedjob.initial MODULE:NAME FILE`.

NAME is a state dict, a torch module (or anything with `state_dict()`), or a class or function without arguments that makes
one of these. It runs once, in a process of its own, and writes a safetensors file.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError, exit_code_of
from .model import holds_tensors
from .stored import write_values


def evaluate(name: str) -> Mapping[str, Any]:
    """The state dict that `module:attribute` stands for. Raises ConfigError with the reason."""
    module_name, _, attribute = name.partition(":")
    try:
        value = importlib.import_module(module_name)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"spec.model.initial.object {name!r}: {e}") from e
    made: Any = value
    if isinstance(made, type) or (callable(made) and not hasattr(made, "state_dict")):
        made = made()
    if hasattr(made, "state_dict"):
        made = made.state_dict()
    if not isinstance(made, Mapping):
        raise ConfigError(
            f"spec.model.initial.object {name!r} gives a {type(made).__name__}, allowed: a state dict, a module, or a "
            "function or class without arguments that makes one"
        )
    if not holds_tensors(made):
        raise ConfigError(
            f"spec.model.initial.object {name!r} gives a state dict without tensors: there is nothing to train"
        )
    return made


def main() -> int:
    """Write what the first argument names to the file that the second names; returns the exit code."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as for a script that lies here
    return exit_code_of(lambda: write_values(Path(sys.argv[2]), evaluate(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
