"""A cluster's network: a namespace for each machine, wires to the bridge where all machines meet, one wire to this machine."""

from __future__ import annotations

import contextlib
import subprocess

from .layout import SERVICES, WAN, Layout, Machine, Node


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
    """Make the network of the control plane, with the wire to this machine; the bridge too, for the first cluster."""
    if WAN not in namespaces():
        ip("netns", "add", WAN)
        ip("-n", WAN, "link", "add", "wan", "type", "bridge")
        ip("-n", WAN, "link", "set", "wan", "up")
    control = of.control
    _add(of, control)
    ip("link", "add", of.wire, "type", "veth", "peer", "name", "host0", "netns", control.namespace)
    ip("address", "add", f"{of.outside}/30", "dev", of.wire)
    ip("link", "set", of.wire, "up")
    ip("-n", control.namespace, "address", "add", f"{of.inside}/30", "dev", "host0")
    ip("-n", control.namespace, "link", "set", "host0", "up")


def create_node(of: Layout, node: Node) -> None:
    """Make the network of a node. Its pods keep their addresses towards the cluster's other machines, and take the node's beyond."""
    _add(of, node)
    # An address of a Service needs some route, or a process of the node has no way out before the address is rewritten.
    ip("-n", node.namespace, "route", "add", SERVICES, "dev", "wan0")
    ours = {of.pods, *(machine.address for machine in of.machines)}
    rules = f"""
table ip fedjob {{
  chain leaving {{
    type nat hook postrouting priority srcnat;
    ip saddr {node.pods} ip daddr != {{ {", ".join(sorted(ours))} }} masquerade
  }}
}}
"""
    _run(node, "nft", "--file", "-", given=rules)
    _run(node, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def _add(of: Layout, machine: Machine) -> None:
    """A namespace with its wire to the bridge, and the ways to the pods of the nodes beside it."""
    name = machine.namespace
    ip("netns", "add", name)
    ip("-n", name, "link", "set", "lo", "up")
    ip("-n", WAN, "link", "add", machine.wire, "type", "veth", "peer", "name", "wan0", "netns", name)
    ip("-n", WAN, "link", "set", machine.wire, "master", "wan", "up")
    ip("-n", name, "address", "add", f"{machine.address}/16", "dev", "wan0")
    ip("-n", name, "link", "set", "wan0", "up")
    for node in of.nodes:
        if node != machine:
            ip("-n", name, "route", "add", node.pods, "via", node.address)


def _run(machine: Machine, *command: str, given: str = "") -> None:
    done = subprocess.run([*machine.enter, *command], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} in {machine.namespace}: {done.stderr.strip()}")


def connect(machine: Machine, *, up: bool) -> None:
    """Cut a machine off from all others, or let it back."""
    ip("-n", WAN, "link", "set", machine.wire, "up" if up else "down")


def delete_machine(machine: Machine) -> None:
    """Remove a machine's namespace, with whose end its wires go."""
    with contextlib.suppress(RuntimeError):
        ip("-n", WAN, "link", "delete", machine.wire)  # at once, so that the address is free
    if machine.namespace in namespaces():
        ip("netns", "delete", machine.namespace)


def delete(of: Layout, *, last: bool) -> None:
    """Remove the control plane's network; the bridge too, if this was the last cluster."""
    with contextlib.suppress(RuntimeError):
        ip("link", "delete", of.wire)
    delete_machine(of.control)
    if last and WAN in namespaces():
        ip("netns", "delete", WAN)
