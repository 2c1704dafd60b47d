"""What starts a process: written by one, read by another, and refused with the file's name if it is not right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedjob import config
from fedjob.api import loads
from fedjob.config import Ranks, ServerConfig, SiteConfig, read_ranks, read_server, read_site
from fedjob.errors import ConfigError

JOB = loads(
    """
apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata: {name: digits}
spec:
  workflow: {rounds: 10, stopWhen: {metric: accuracy, value: 0.9}}
  trainer: {command: [python, train.py]}
  sites: [{name: hospital-a}, {name: hospital-b}]
"""
)
SITE = SiteConfig(
    job="digits", uid="u", attempt=2, trust_domain="fedjob", site="a", sites=("a", "b"), workflow={"rounds": 3},
    params_type="DIFF", server="127.0.0.1:8443", server_name="localhost", tls=Path("/tls"), work=Path("/work"),
    server_lost_seconds=600.0,
)  # fmt: skip
SERVER = ServerConfig(
    job=JOB, uid="u", attempt=2, trust_domain="fedjob", listen="127.0.0.1:0", tls=Path("/tls"), run=Path("/run"),
    state=Path("/state"), initial=Path("/initial.safetensors"),
)  # fmt: skip


def test_a_sites_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    config.write(tmp_path / "site.json", SITE)
    assert read_site(str(tmp_path / "site.json")) == SITE


def test_a_servers_configuration_is_read_as_it_was_written_with_the_whole_job(tmp_path: Path) -> None:
    config.write(tmp_path / "server.json", SERVER)
    assert read_server(tmp_path / "server.json") == SERVER


def test_a_site_finds_its_configuration_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write(tmp_path / "site.json", SITE)
    monkeypatch.setenv("FEDJOB_CONFIG", str(tmp_path / "site.json"))
    assert read_site() == SITE


def test_a_script_started_by_hand_hears_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDJOB_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=r"FEDJOB_CONFIG is not set: .* Start it with `fedjob run job\.yaml`"):
        read_site()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "not a configuration of this version", id="nothing"),
        pytest.param("{", "not a configuration of this version", id="half an object"),
        pytest.param("\udcff", "not a configuration of this version", id="no text"),
        pytest.param("[]", "not a configuration of this version", id="a list"),
        pytest.param("{}", "not a configuration.*server_lost_seconds", id="nothing in it, and each name is told"),
        pytest.param(json.dumps({**json.loads(SITE.model_dump_json()), "extra": 1}), "not a configuration.*extra",
                     id="a field that is not known"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "site.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=rf"(?s)site\.json: .*{message}"):
        read_site(str(tmp_path / "site.json"))


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json: No such file"):
        read_server(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("variables", "rank", "expected"),
    [
        pytest.param({}, None, Ranks(), id="alone, if nothing is said"),
        pytest.param({"RANK": "3", "WORLD_SIZE": "8"}, None, Ranks(rank=3, world_size=8), id="as torchrun says"),
        pytest.param({"RANK": "3", "WORLD_SIZE": "8"}, 5, Ranks(rank=5, world_size=8), id="as the script says"),
        pytest.param({"RANK": "3"}, "0", Ranks(), id="zero is said, not left out"),
    ],
)
def test_the_place_of_a_process_in_its_site(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], rank: int | str | None, expected: Ranks
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read_ranks(rank) == expected


def test_a_rank_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match=r"RANK, WORLD_SIZE and rank must be whole numbers: .*first"):
        read_ranks()
