"""Names inside a cluster: CoreDNS as a process beside the control plane."""

from __future__ import annotations

import urllib.request
from typing import Any

from ..controlplane import ControlPlane
from ..processes import Processes
from .layout import DOMAIN, Layout

DNS = "coredns-token"
USERS = {DNS: ("coredns", "")}
_READY_PORT = 8181


def start(of: Layout, plane: ControlPlane, processes: Processes) -> None:
    """Start CoreDNS; `RIGHTS` must be applied for it to see anything."""
    path = of.folder / "Corefile"
    path.write_text(f"""
.:53 {{
    errors
    health 127.0.0.1:8053
    ready {of.inside}:{_READY_PORT}
    cache 5
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {plane.kubeconfig(DNS)}
    }}
}}
""")
    processes.start(str(plane.binaries / "coredns"), "-conf", str(path))


def ready(of: Layout) -> bool:
    """Whether it answers for the names of Services."""
    try:
        with urllib.request.urlopen(f"http://{of.inside}:{_READY_PORT}/ready", timeout=5):
            return True
    except OSError:
        return False


_READ = ["list", "watch"]
RIGHTS: list[dict[str, Any]] = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": _READ},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _READ},
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "coredns"}],
    },
]
