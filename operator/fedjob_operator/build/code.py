"""The trainer's own files inside a pod, and the command that starts the script.  PURE"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import names
from .pod import literal

VOLUME = "trainer"


def data(files: Mapping[str, str]) -> dict[str, str]:
    """Files as a ConfigMap's data: its keys cannot hold slashes, so they are numbered in the order of names."""
    return {f"file-{i}": files[name] for i, name in enumerate(sorted(files))}


def volume(files: Mapping[str, str], config_map: str) -> dict[str, Any]:
    """The volume in which the files have their names again."""
    items = [{"key": f"file-{i}", "path": name} for i, name in enumerate(sorted(files))]
    return {"name": VOLUME, "configMap": {"name": config_map, "items": items}}


def command(given: Sequence[str], processes_per_node: int, nodes: int, rendezvous: str) -> list[str]:
    """The script's command as Kubernetes reads it, under torchrun if it has several processes.

    rendezvous: host of node 0, if there are several nodes.
    """
    program, *arguments = map(literal, given)
    if processes_per_node == nodes == 1:
        return [program, *arguments]
    torchrun = [program, "-m", "torch.distributed.run", f"--nproc-per-node={processes_per_node}"]
    if nodes == 1:
        return [*torchrun, "--standalone", *arguments]
    return [
        *torchrun,
        f"--nnodes={nodes}",
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        f"--master-addr={rendezvous}",
        f"--master-port={names.RENDEZVOUS_PORT}",
        *arguments,
    ]
