"""The operator's options, as a chart gives them."""

from __future__ import annotations

import json

import pytest

from fedjob_operator.arguments import read
from fedjob_operator.settings import KUBE_DNS

NEEDED = ("--runtime-image", "runtime:1")


@pytest.mark.parametrize("peers", [[], [{"ipBlock": {"cidr": "169.254.20.10/32"}}, dict(KUBE_DNS)]])
def test_name_servers_are_peers_of_a_network_policy(peers: list[object]) -> None:
    settings, _, _ = read([*NEEDED, f"--dns={json.dumps(peers)}"])
    assert settings.dns == tuple(peers)
    assert read(NEEDED)[0].dns == (KUBE_DNS,)


def test_name_servers_answer_at_ports() -> None:
    assert read(NEEDED)[0].dns_ports == (53,)
    assert read([*NEEDED, "--dns-ports=53,5353"])[0].dns_ports == (53, 5353)


@pytest.mark.parametrize("text", ["", "dns", "0", "53,", "65536", "-1"])
def test_what_is_no_port_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read([*NEEDED, f"--dns-ports={text}"])
    assert "--dns-ports: got" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["kube-dns", "{}", "[{}]", '[{"cidr": "10.0.0.0/8"}]', '["10.0.0.10"]'])
def test_what_would_be_no_peer_or_everybody_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read([*NEEDED, f"--dns={text}"])
    assert "allowed: a JSON list of mappings with namespaceSelector, podSelector or ipBlock" in capsys.readouterr().err
