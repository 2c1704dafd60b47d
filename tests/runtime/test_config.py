"""What starts a process: written by one, read by another, and refused with the file's name if it is not right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict, ValidationError, create_model

from fedjob import config
from fedjob.api import loads
from fedjob.config import Ranks, ServerConfig, SiteConfig, read_ranks, read_server, read_site
from fedjob.errors import ConfigError
from fedjob.version import __version__

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


def test_paths_need_not_be_utf_8(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(b"/caf\xe9/run"))
    site = SITE.model_copy(update={"work": odd, "tls": odd})
    config.write(tmp_path / "site.json", site)
    assert read_site(str(tmp_path / "site.json")) == site
    server = SERVER.model_copy(update={"run": odd, "state": odd, "initial": odd})
    config.write(tmp_path / "server.json", server)
    assert read_server(tmp_path / "server.json") == server
    (tmp_path / "odd.json").write_text(
        config.text(site).replace(odd.as_posix().encode("utf-8", "surrogateescape").hex(), "x")
    )
    with pytest.raises(ConfigError, match=r"odd\.json: not a configuration"):
        read_site(str(tmp_path / "odd.json"))


# What fedjob 0.1.0 reads of a plain job. A field that is new and always written would stop every image of that version.
KNOWN_TO_SITES = {
    "version", "job", "uid", "attempt", "trust_domain", "site", "sites", "workflow", "workflow.rounds", "params_type", "server",
    "server_name", "tls", "work", "server_lost_seconds",
}  # fmt: skip
KNOWN_TO_SERVERS = {
    "version", "job", "job.apiVersion", "job.kind", "job.metadata", "job.metadata.name", "job.spec", "job.spec.workflow",
    "job.spec.workflow.rounds", "job.spec.workflow.stopWhen", "job.spec.workflow.stopWhen.metric",
    "job.spec.workflow.stopWhen.value", "job.spec.trainer", "job.spec.trainer.command", "job.spec.sites", "job.spec.sites[].name",
    "uid", "attempt", "trust_domain", "listen", "tls", "run", "state", "initial",
}  # fmt: skip


def paths(node: object, at: str = "") -> set[str]:
    """The names of all fields of a document, the entries of a list as []."""
    if isinstance(node, dict):
        here = {f"{at}.{name}".removeprefix(".") for name in node}
        return here.union(*(paths(value, f"{at}.{name}".removeprefix(".")) for name, value in node.items()))
    if isinstance(node, list):
        return set().union(*(paths(value, f"{at}[]") for value in node))
    return set()


def test_a_plain_job_has_no_field_that_an_older_image_would_refuse() -> None:
    assert paths(json.loads(config.text(SITE))) <= KNOWN_TO_SITES
    assert paths(json.loads(config.text(SERVER))) <= KNOWN_TO_SERVERS


def test_an_older_reader_takes_a_plain_job_and_refuses_only_what_it_could_not_do() -> None:
    newer = {"include", "wire_dtype"}
    known = {name: (f.annotation, f) for name, f in SiteConfig.model_fields.items() if name not in newer}
    older: Any = create_model("Older", __config__=ConfigDict(extra="forbid"), **known)
    assert older.model_validate_json(config.text(SITE)).server == SITE.server
    used = SITE.model_copy(update={"wire_dtype": "BF16"})
    with pytest.raises(ValidationError, match="wire_dtype"):
        older.model_validate_json(config.text(used))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"job": {"spec": {"privacy": {"epsilon": 1}}}}, "spec.privacy"),
        ({"job": {"spec": {"workflow": {"mu": 0.1}}}}, "spec.workflow.mu"),
        ({"job": {"spec": {"workflow": {"type": "FedNext"}}}}, "spec.workflow.type"),
        ({"compression": "zstd"}, "compression"),
    ],
)
def test_what_a_newer_writer_uses_is_named_with_the_fix(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    def merged(old: Any, new: Any) -> Any:
        return {**old, **{k: merged(old.get(k, {}), v) if isinstance(v, dict) else v for k, v in new.items()}}

    path = tmp_path / "server.json"
    path.write_text(json.dumps(merged(json.loads(config.text(SERVER)), {**change, "version": "9.8.7"})))
    with pytest.raises(ConfigError) as refused:
        read_server(path)
    said = str(refused.value)
    assert said == (
        f"{path}: this image has fedjob {__version__} and cannot read {field}, which fedjob 9.8.7 has written; use an image with "
        "fedjob 9.8.7, or a job without it"
    )


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
