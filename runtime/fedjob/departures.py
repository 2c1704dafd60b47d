"""Which sites have left for good, over restarts of the server. A new attempt begins with nobody gone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from .stored import sweep, write_whole

log = logging.getLogger(__name__)
_FILE = "departures.json"

JOB_OVER = "the job is over"  # why a site went that did its part to the end


class Departures:
    """Site -> why it has left, in a file of `folder`. Each change is on disk when its call returns, or raises OSError."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self._path = folder / _FILE
        self._attempt = attempt
        sweep(self._path)
        self._left = self._read()

    @property
    def left(self) -> Mapping[str, str]:
        """Those who have left."""
        return self._left

    def add(self, site: str, why: str) -> None:
        """A site has left."""
        self._write({**self._left, site: why})

    def remove(self, site: str) -> None:
        """It is back, if it had left."""
        if site in self._left:
            self._write({name: why for name, why in self._left.items() if name != site})

    def _write(self, left: dict[str, str]) -> None:
        write_whole(self._path, json.dumps({"attempt": self._attempt, "left": left}).encode())
        self._left = left

    def _read(self) -> dict[str, str]:
        try:
            saved = json.loads(self._path.read_bytes())
            return {str(k): str(v) for k, v in saved["left"].items()} if saved["attempt"] == self._attempt else {}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as e:  # nothing but some waiting depends on it
            log.warning("%s: not a list of departures, nobody is taken to have left: %r", self._path, e)
            return {}
