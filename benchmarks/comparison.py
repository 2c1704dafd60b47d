"""Each peer's job is run once, whichever and however many measures ask for it."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from figure import Settings
from peers import PeerRun, Work, flower, nvflare
from processes import MeasureError

PEERS = {"nvflare": nvflare, "flower": flower}


def peer_runs(settings: Settings, work: Work) -> tuple[dict[str, PeerRun], dict[str, str]]:
    """The peers' runs, and why there is none for a peer that failed."""
    done = {name: _run(name, settings.folder / name, work) for name in settings.peers}
    runs = {name: run for name, run in done.items() if isinstance(run, PeerRun)}
    return runs, {name: run for name, run in done.items() if isinstance(run, str)}


@functools.cache
def _run(name: str, folder: Path, work: Work) -> PeerRun | str:
    # A peer that cannot be measured must not cost the others their figures.
    try:
        done: PeerRun = PEERS[name].run(folder, work)
    except (MeasureError, OSError, subprocess.SubprocessError) as e:
        return f"{type(e).__name__}: {e}"
    return done
