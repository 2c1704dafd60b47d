"""PyTorch, imported only where a tensor must be made: a server has none, and a script may import it late."""

from __future__ import annotations

import sys
from typing import Any


def loaded() -> Any:
    """The module if something has imported it, else None. Without it no value is a torch tensor."""
    return sys.modules.get("torch")


def needed() -> Any:
    """The module, imported now if it is installed; None if it is not."""
    try:
        import torch
    except (ImportError, OSError):  # OSError: a library that it links is missing
        return None
    return torch
