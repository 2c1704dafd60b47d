"""A cluster's network: its namespace, its wire to this machine, its wire to the bridge where clusters meet."""

from __future__ import annotations

import contextlib
import subprocess

from .layout import SERVICES, WAN, Layout


def ip(*arguments: str) -> str:
    """What the command `ip` prints. Raises RuntimeError with its words."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def namespaces() -> set[str]:
    """Names of the network namespaces of this machine."""
    return {line.split()[0] for line in ip("netns", "list").splitlines()}


def create(of: Layout) -> None:
    """Make the namespace and its two wires; the bridge too, for the first cluster."""
    if WAN not in namespaces():
        ip("netns", "add", WAN)
        ip("-n", WAN, "link", "add", "wan", "type", "bridge")
        ip("-n", WAN, "link", "set", "wan", "up")
    ip("netns", "add", of.namespace)
    ip("-n", of.namespace, "link", "set", "lo", "up")

    ip("link", "add", of.wire, "type", "veth", "peer", "name", "host0", "netns", of.namespace)
    ip("address", "add", f"{of.outside}/30", "dev", of.wire)
    ip("link", "set", of.wire, "up")
    ip("-n", of.namespace, "address", "add", f"{of.inside}/30", "dev", "host0")
    ip("-n", of.namespace, "link", "set", "host0", "up")

    ip("-n", WAN, "link", "add", of.wire, "type", "veth", "peer", "name", "wan0", "netns", of.namespace)
    ip("-n", WAN, "link", "set", of.wire, "master", "wan", "up")
    ip("-n", of.namespace, "address", "add", f"{of.node}/24", "dev", "wan0")
    ip("-n", of.namespace, "link", "set", "wan0", "up")

    # An address of a Service needs some route, or a process of the node has no way out before the address is rewritten.
    ip("-n", of.namespace, "route", "add", SERVICES, "dev", "wan0")
    forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
    subprocess.run([*of.enter, "sh", "-c", forward], check=True)


def connect(of: Layout, *, up: bool) -> None:
    """Cut a cluster off from the others, or let it back."""
    ip("-n", WAN, "link", "set", of.wire, "up" if up else "down")


def delete(of: Layout, *, last: bool) -> None:
    """Remove the namespace, with whose end its wires go; the bridge too, if this was the last cluster."""
    with contextlib.suppress(RuntimeError):
        ip("link", "delete", of.wire)  # at once, so that the address is free
    for name in (of.namespace, *([WAN] if last else [])):
        if name in namespaces():
            ip("netns", "delete", name)
