"""Who asks the API server: as a plugin of kubectl, and with a login that ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controlplane import SCIENTIST, ControlPlane
from cluster.operator.cli.conftest import CLI_SECONDS
from fedjob.cluster import connection
from fedjob_operator import names

pytestmark = pytest.mark.timeout(CLI_SECONDS)


def test_it_is_a_plugin_of_kubectl(
    plane: ControlPlane, submit: Any, scientist: Any, namespace: str, tmp_path: Path
) -> None:
    """kubectl finds it by its name on the path, and it speaks of itself as kubectl does."""
    submit()
    script = tmp_path / "kubectl-fedjob"
    script.write_text(f"#!{sys.executable}\nfrom fedjob.cli.main import main\nmain()\n")
    script.chmod(0o755)
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig(SCIENTIST)), "HOME": str(tmp_path)}
    environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"

    def kubectl(*words: str) -> str:
        command = [str(plane.binaries / "kubectl"), "fedjob", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    assert kubectl("get", "-n", namespace, "-o", "name") == "federatedjob.fedjob.dev/digits\n"
    assert "Usage: kubectl fedjob status" in kubectl("status", "--help")


PLUGIN = """#!/bin/sh
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}' "$(cat TOKEN)"
"""


def test_a_login_that_has_ended_is_made_anew(
    plane: ControlPlane, scientist: Any, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloud's token lives a quarter of an hour, a training days: the kubeconfig's plugin is asked again."""
    monkeypatch.setattr(connection, "_LOGIN_SECONDS", 0.0)
    token, plugin = tmp_path / "token", tmp_path / "plugin"
    plugin.write_text(PLUGIN.replace("TOKEN", str(token)))
    plugin.chmod(0o755)
    config = yaml.safe_load(plane.kubeconfig(SCIENTIST).read_text())
    version = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": {**version, "command": str(plugin)}}
    (tmp_path / "config").write_text(yaml.safe_dump(config))

    async def calls() -> list[Any]:
        token.write_text("ended")
        async with connection.connected(connection.Where(tmp_path / "config")) as cluster:
            token.write_text(SCIENTIST)
            found = await cluster.get(names.FEDERATED_JOB.path(namespace), "list jobs")
            token.write_text("ended")
            return [found["items"], await cluster.get(names.FEDERATED_JOB.path(namespace), "list jobs")]

    assert asyncio.run(calls())[0] == []
