"""`python -m cluster.real up NAME` and `down NAME`: clusters for a person, behind `make cluster-up` and `make cluster-down`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from . import cluster, host


def main() -> int:
    """Returns the exit code: 2 if this machine lacks something."""
    parser = argparse.ArgumentParser("cluster", description="Real Kubernetes clusters on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="a cluster; one that stands already is left as it is")
    up.add_argument("name")
    up.add_argument("--nodes", type=int, default=1)
    up.add_argument("--image", action="append", default=[], type=Path, help="an OCI archive to import; may be repeated")
    down = commands.add_parser("down", help="remove a cluster")
    which = down.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?")
    which.add_argument("--all", action="store_true", help="remove every cluster but those that running tests use")
    given = parser.parse_args()
    if given.command == "down":
        return _down(cluster.names() if given.all else [given.name])
    binaries = Path(os.environ.get("FEDJOB_CONTROL_PLANE", "."))
    if why := host.lacking(binaries):
        print(why, file=sys.stderr)
        return 2
    return _up(given.name, binaries, given.nodes, given.image)


def _up(name: str, binaries: Path, nodes: int, images: list[Path]) -> int:
    began = time.monotonic()
    try:
        made = cluster.up(name, binaries, nodes)
    except (ValueError, cluster.InUseError) as e:
        print(e, file=sys.stderr)
        return 2
    print(f"The cluster {name} stands after {time.monotonic() - began:.0f} s.")
    for archive in images:
        made.import_image(archive)
        print(f"Imported {archive.name}.")
    print(f"""
  export KUBECONFIG={made.kubeconfig} PATH={binaries}:$PATH

  kubectl get nodes
  kubectl run try --image localhost/busybox:1 -it --rm -- sh     # nslookup kubernetes.default

Other clusters reach its NodePorts at {" or ".join(node.address for node in made.nodes)}.
Logs of its parts: {made.layout.folder}/*.log; of a node: {made.nodes[0].folder}/*.log
`make cluster-down NAME={name}` removes it.""")
    return 0


def _down(names: list[str]) -> int:
    code = 0
    for name in names:
        try:
            print(f"The cluster {name} is gone." if cluster.down(name) else f"There is no cluster {name}.")
        except cluster.InUseError as e:
            print(f"{e}; left as it is", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
