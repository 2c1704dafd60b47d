"""What a person wrote reaches a process byte for byte: through what Kubernetes makes of commands, arguments and variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedjob.api import validate
from fedjob_operator import names
from fedjob_operator.build import client, server, site_job
from fedjob_operator.settings import Settings, job_pods
from fedjob_operator.trust import Trust

SETTINGS = Settings("fedjob-system", "runtime:1", "test")

# Text that means something to Kubernetes, a shell, YAML or JSON, and all the rest but NUL and lone surrogates, which no field allows.
TEXT = st.text(
    st.sampled_from("$$()AB_ \t\r\n\"'\\-:#é\ufeff")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=24,
)


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """What the kubelet makes of a text: k8s.io/kubernetes/third_party/forked/golang/expansion, step by step."""
    made, at = "", 0
    while at < len(text):
        if text[at] != "$" or at + 1 == len(text):
            made, at = made + text[at], at + 1
        elif text[at + 1] == "$":
            made, at = made + "$", at + 2
        elif text[at + 1] == "(" and (end := text.find(")", at + 2)) > 0:
            name = text[at + 2 : end]
            made, at = made + variables.get(name, f"$({name})"), end + 1
        else:
            made, at = made + text[at : at + 2], at + 2
    return made


def started(container: Mapping[str, Any], given: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command and the environment with which the kubelet starts a container. given: what is there besides, such as the index of a pod."""
    variables = dict(given)
    for variable in container.get("env") or ():
        variables[variable["name"]] = expanded(variable["value"], variables)
    words = [*container["command"], *(container.get("args") or ())]
    return [expanded(word, variables) for word in words], variables


def of(arguments: list[str], variables: Mapping[str, str], settings: Settings = SETTINGS, **trainer: Any) -> server.Of:
    env = [{"name": name, "value": value} for name, value in variables.items()]
    spec = {
        "workflow": {"type": "FedAvg", "rounds": 3},
        "trainer": {"command": ["python", *arguments], "env": env, "files": {"train.py": ""}, **trainer},
        "sites": [{"name": "a"}],
        "model": {"initial": {"object": "train:model"}},
    }
    metadata = {"name": "digits", "namespace": "team-a"}
    job = validate({"apiVersion": names.API_VERSION, "kind": "FederatedJob", "metadata": metadata, "spec": spec})
    return server.Of(job, "0a1b", 1, settings)


def of_client(made: server.Of) -> dict[str, Any]:
    """The container of the script."""
    manifest = site_job.site_job(made, "a", "team-a", Trust("issuer", "PEM"), forgiven=0, suspend=False)
    raw = {**manifest, "metadata": {**manifest["metadata"], "uid": "u", "generation": 1}}
    pod = client.job(client.At(raw, made.settings), 1).manifest["spec"]["template"]["spec"]
    found: dict[str, Any] = pod["containers"][0]
    return found


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("pa$$word", "pa$word"),
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("$A$", "$A$"),
        ("$$$(A)", "$1"),
    ],
)
def test_the_kubelets_expansion_as_its_own_tests_have_it(text: str, becomes: str) -> None:
    assert expanded(text, {"A": "1"}) == becomes


@given(arguments=st.lists(TEXT, max_size=3), value=TEXT, other=TEXT)
@example(arguments=["/app/$(RUN).py"], value="../data/evil", other="$(RUN)")
@example(arguments=["--lr=$(FEDJOB_CONFIG)"], value="pa$$word", other="$$(A)")
def test_arguments_and_variables_arrive_as_they_were_written(arguments: list[str], value: str, other: str) -> None:
    command, variables = started(of_client(of(arguments, {"RUN": value, "A": other})), {})
    assert command == ["python", *arguments]
    assert (variables["RUN"], variables["A"]) == (value, other)


@given(arguments=st.lists(TEXT, max_size=3))
@example(arguments=["$(JOB_COMPLETION_INDEX)"])
def test_under_torchrun_only_our_own_reference_is_one(arguments: list[str]) -> None:
    container = of_client(of(arguments, {}, nodes=2))
    command, _ = started(container, {"JOB_COMPLETION_INDEX": "1"})
    assert "--node-rank=1" in command
    assert command[len(command) - len(arguments) :] == arguments


@given(value=TEXT)
def test_the_installations_variables_arrive_in_scripts_and_in_the_code_of_a_first_model(value: str) -> None:
    settings = replace(SETTINGS, job_pods=job_pods(json.dumps({"env": [{"name": "PROXY", "value": value}]})))
    made = of([], {}, settings)
    pod = server.job(made, 1).manifest["spec"]["template"]["spec"]
    for container in (of_client(made), pod["initContainers"][0]):
        assert started(container, {})[1]["PROXY"] == value


@given(text=TEXT)
def test_files_arrive_as_they_were_written(text: str) -> None:
    made = of([], {}, files={"train.py": text, "a/b": text + "x"})
    data = json.loads(json.dumps(server.config_map(made)))["data"]  # the API server speaks JSON
    pod = server.job(made, 1).manifest["spec"]["template"]["spec"]
    items = next(volume for volume in pod["volumes"] if volume["name"] == "trainer")["configMap"]["items"]
    assert {item["path"]: data[item["key"]] for item in items} == {"train.py": text, "a/b": text + "x"}


def test_no_dollar_of_a_person_stands_alone_in_any_container() -> None:
    """Also in one that is added later: what Kubernetes expands has no single dollar but that of our own reference."""
    hostile = "$(A)$$(A)$"
    settings = replace(SETTINGS, job_pods=job_pods(json.dumps({"env": [{"name": "PROXY", "value": hostile}]})))
    made = of([hostile], {"A": hostile}, settings, nodes=2)
    pod = server.job(made, 1).manifest["spec"]["template"]["spec"]
    containers = [*pod["initContainers"], *pod["containers"], of_client(made)]
    words = [word for one in containers for word in (*one["command"], *(one.get("args") or ()))]
    values = [variable["value"] for one in containers for variable in one["env"]]
    assert (
        sum("$" in text for text in (*words, *values)) == 5
    )  # the script's argument, its variable, our reference, PROXY twice
    assert [text for text in (*words, *values) if "$" in text.replace("$$", "")] == [
        "--node-rank=$(JOB_COMPLETION_INDEX)"
    ]
