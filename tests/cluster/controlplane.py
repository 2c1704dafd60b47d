"""A real control plane: etcd, kube-apiserver, kube-controller-manager; by itself on free ports of the loopback, without a node.

There the Job controller makes pods and nothing runs them: a test plays the kubelet by writing their status. RBAC is on, and the audit
log holds every call of everybody but the administrator and Kubernetes itself. `real.cluster` puts nodes beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import certificates, processes
from .kube import Kube, RefusedError, until
from .processes import Processes

ADMIN, OPERATOR, LIMITED, SCIENTIST = "admin-token", "operator-token", "limited-token", "scientist-token"
# token: name, group
USERS = {
    ADMIN: ("admin", "system:masters"), OPERATOR: ("operator", ""), LIMITED: ("limited", ""), SCIENTIST: ("scientist", ""),
}  # fmt: skip
START_SECONDS = 90.0
API_SERVER = "kube-apiserver"

_PREFIX = "fedjob-plane-"


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class ControlPlane:
    """The processes, and where they are. folder: logs, keys and data; binaries: the folder that hack/control-plane prints.

    host: under which name the API server is reached; users: who has a token; more: further flags of a program, by its name.
    """

    folder: Path
    binaries: Path
    processes: Processes
    host: str = "127.0.0.1"
    etcd_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    users: Mapping[str, tuple[str, str]] = field(default_factory=lambda: USERS)
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://{self.host}:{self.port}"

    @property
    def ca(self) -> Path:
        """The authority of the API server."""
        return self.folder / "ca.crt"

    def user(self, token: str, url: str = "", as_user: str = "") -> Kube:
        """The API server as the bearer of a token sees it. url: of a proxy before it; as_user: a name to act under."""
        return Kube(url or self.url, token, ssl.create_default_context(cafile=str(self.ca)), as_user)

    def kubeconfig(self, token: str, url: str = "") -> Path:
        """A kubeconfig for the bearer of a token. url: of a proxy before the API server."""
        port = (url or self.url).rpartition(":")[2]
        path = self.folder / f"kubeconfig-{token}-{port}"
        cluster = {"server": url or self.url, "certificate-authority": str(self.ca)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def kubectl(self, *arguments: str, token: str = ADMIN) -> str:
        """What kubectl prints. Raises CalledProcessError with its words in stderr."""
        command = [str(self.binaries / "kubectl"), "--kubeconfig", str(self.kubeconfig(token)), *arguments]
        environment = {**os.environ, "HOME": str(self.folder)}  # its cache of kinds lies with the plane
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment).stdout

    def audit(self, user: str) -> list[Any]:
        """Calls of a user, as the API server's audit log has them, oldest first. An administrator's are not in it."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        events = [json.loads(line) for line in lines if line.endswith("}")]  # the last line may be half written
        return [event for event in events if event["user"].get("username") == user]  # who is refused has none

    def start(self, hosts: tuple[str, ...] = ()) -> certificates.Authority:
        """Start the processes, and return the authority when the API server is ready.

        hosts: further addresses in the API server's certificate. Raises AssertionError if it does not get there.
        """
        authority = certificates.write(self.folder, hosts)
        self.processes.claim()
        (self.folder / "tokens").write_text("".join(self._token_line(token) for token in self.users))
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(_AUDIT_POLICY))
        self.run("etcd", *self._etcd_flags())
        self.start_api_server()
        self.run(str(self.binaries / "kube-controller-manager"), *self._controller_flags())
        return authority

    def start_api_server(self) -> None:
        """Start the API server alone, beside an etcd that runs, and return when it is ready."""
        self.run(str(self.binaries / API_SERVER), *self._api_server_flags())
        admin = self.user(ADMIN)
        until("the API server to be ready", lambda: self._ready(admin), START_SECONDS)

    def run(self, *command: str) -> None:
        """Start a program, with the further flags that it has."""
        self.processes.start(*command, *self.more.get(Path(command[0]).name, ()))

    def _token_line(self, token: str) -> str:
        user, group = self.users[token]
        return f"{token},{user},{user}{f',{group}' if group else ''}\n"

    def _ready(self, admin: Kube) -> bool:
        self.processes.check()
        with contextlib.suppress(OSError, RefusedError):
            admin.call("GET", "/readyz")
            return bool(admin.call("GET", "/api/v1/namespaces/default"))
        return False

    def _etcd_flags(self) -> tuple[str, ...]:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        return (
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",  # the data does not outlive the test
            "--logger=zap",
            "--log-level=error",
        )

    def _api_server_flags(self) -> tuple[str, ...]:
        folder = self.folder
        return (
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={folder}/server.crt",
            f"--tls-private-key-file={folder}/server.key",
            f"--token-auth-file={folder}/tokens",
            f"--service-account-key-file={folder}/accounts.key",
            f"--service-account-signing-key-file={folder}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-certificate-authority={folder}/ca.crt",
            f"--kubelet-client-certificate={folder}/caller.crt",
            f"--kubelet-client-key={folder}/caller.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={folder}/audit.yaml",
            f"--audit-log-path={folder}/audit.log",
            "--audit-log-mode=blocking-strict",  # a call that was answered is in the log
        )

    def _controller_flags(self) -> tuple[str, ...]:
        return (
            f"--kubeconfig={self.kubeconfig(ADMIN)}",
            f"--service-account-private-key-file={self.folder}/accounts.key",
            f"--root-ca-file={self.ca}",
            "--leader-elect=false",
            f"--secure-port={free_port()}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder}/controller-manager",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )


_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:masters", "system:serviceaccounts"]},
        {"level": "None", "users": ["system:apiserver", "system:anonymous"]},
        {"level": "Metadata"},
    ],
}


# Pods stay without a node. A collector takes such pods for failed when they are being deleted, before the test that plays their
# kubelet has said anything of them.
_NO_NODES = {"kube-controller-manager": ("--controllers=*,-pod-garbage-collector-controller",)}


@contextlib.contextmanager
def control_plane(binaries: Path) -> Iterator[ControlPlane]:
    """A control plane that runs inside the block. binaries: the folder that hack/control-plane prints."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    plane = ControlPlane(folder, binaries, Processes(folder), more=_NO_NODES)
    try:
        plane.start()
        yield plane
    finally:
        plane.processes.stop()
        shutil.rmtree(folder)


def sweep() -> None:
    """Remove what a test left behind that was killed: its processes and the folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        user = processes.owner(folder)
        if user is None or user.alive():
            continue  # just being made, or in use
        processes.kill(folder)
        shutil.rmtree(folder, ignore_errors=True)
