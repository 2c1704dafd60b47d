"""Steps that do not depend on each other, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*steps: Coroutine[Any, Any, None]) -> None:
    """Do all steps. Each comes to its end, good or bad, before the first error is raised: no write is left half known."""
    if len(steps) == 1:
        await steps[0]
        return
    for error in await asyncio.gather(*steps, return_exceptions=True):
        if error is not None:
            raise error
