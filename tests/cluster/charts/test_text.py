"""Text that looks like something else, in every value that takes text: what is rendered is what was given, byte for byte."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm import ROOT, Helm

PLAIN = "plainword"
MOST = 16  # labels and annotations that a policy takes
LABELS = ["007", "no", "y", "null", "1e3", "0x1f", "12345678"]  # a name may be each of them
VALUES = [
    *LABELS,
    "on",
    "true",
    "0b1",
    "0o7",
    "1_000",
    "1.0",
    "2026-11-30",
    "1.5e9",
    "Yes",
    "NaN",
]  # and a label's value these too
TEXTS = [
    *VALUES, "~", " a", "a ", "a: b", "- a", "# a", "a #b", "{{ .Values.replicas }}", "{a}", "[a", "&a", "*a", "!!int 1", "=",
    "'", '"', "\\", "a\nb: c", "a\n\n", "\n---\na", "a\r\nb", "\ta", "%a", "@a", "`a", "| a", "é 𝄞", "\x1b[2J", "$(HOME)", "$$(HOME)",
]  # fmt: skip


class Reader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: 1e3, y and 0o7 are no text either."""

    def text(self, node: yaml.ScalarNode) -> str:
        """A scalar as it stands."""
        return str(self.construct_scalar(node))


Reader.add_implicit_resolver(
    "tag:yaml.org,2002:null",
    re.compile(r"^([-+]?[0-9][0-9_.]*[eE][-+]?[0-9]+|[yYnN]|0o[0-7]+)$"),
    list("+-0123456789yYnN"),
)

for tag in ("value", "merge"):  # = and <<, which are text here
    Reader.add_constructor(f"tag:yaml.org,2002:{tag}", Reader.text)


def hub(name: str, values: list[str], texts: list[str]) -> dict[str, Any]:
    """Values of the hub's chart: a name, values of labels and texts, everywhere where each may be."""
    labels = {f"a.example/l{i}": value for i, value in enumerate(values[:MOST])}
    value, text = values[0], texts[0]
    notes = {f"n{i}": text for i, text in enumerate(texts[:MOST])}
    named = [{"name": f"X{i}", "value": text} for i, text in enumerate(texts)]
    peer = {"namespaceSelector": {"matchLabels": labels}, "podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": [value]}]}}  # fmt: skip
    return {
        "commonLabels": labels,
        "image": {"registry": name, "repository": name, "tag": name},
        "runtimeImage": {"registry": name, "repository": name, "tag": name},
        "imagePullSecrets": [name],
        "rbac": {"namespaces": [name], "granted": [name]},
        "serviceAccount": {"name": name, "annotations": notes},
        "caBundle": {"configMap": name, "key": name},
        "server": {"storageClassName": name},
        "trustDomain": name,
        "extraArgs": [f"--x={text}" for text in texts],
        "extraEnv": named,
        "podLabels": labels,
        "podAnnotations": notes,
        "nodeSelector": labels,
        "tolerations": [{"key": "a", "operator": "Equal", "value": value}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": labels}}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                                       "labelSelector": {"matchLabels": labels}}],
        "priorityClassName": name,
        "podSecurityContext": {"seLinuxOptions": {"level": text}},
        "jobs": {"podLabels": labels, "podAnnotations": notes, "env": named},
        "networkPolicy": {"dns": [peer], "extraEgress": [{"to": [peer], "ports": [{"port": 1, "protocol": "TCP"}]}]},
        "metrics": {
            "scrapeFrom": [name],
            "serviceMonitor": {"enabled": True, "labels": labels},
            "podMonitor": {"enabled": True, "labels": labels},
            "prometheusRule": {"enabled": True, "labels": labels},
            "dashboard": {"enabled": True, "labels": labels, "annotations": notes},
        },
    }  # fmt: skip


def site(name: str, values: list[str], texts: list[str]) -> dict[str, Any]:
    """Values of the site's chart, likewise."""
    labels = {f"a.example/l{i}": value for i, value in enumerate(values[:MOST])}
    value, text = values[0], texts[0]
    notes = {f"n{i}": text for i, text in enumerate(texts[:MOST])}
    return {
        "commonLabels": labels,
        "site": {"name": name, "displayName": text},
        "hub": {"namespace": name, "register": True, "allowedNamespaces": [name]},
        "policy": {
            "floor": {"pod": {"priorityClassNames": [name], "queueNames": [name], "tolerations": [{"key": name, "value": value}]}},
            "pods": {"runtimeClassName": name, "nodeSelector": labels, "labels": labels, "annotations": notes},
            "metrics": {"scrapeFrom": [name]},
            "rules": [{"name": name, "from": {"hubs": [name], "namespaces": [name]}, "images": [{"repository": name}],
                       "data": [name], "commands": [["python", f"x{text}"] for text in texts]}],
        },
        "data": [{"name": name, "claim": name, "subPath": name}],
        "caBundle": {"configMap": name, "key": name},
        "claims": [{"name": name, "size": "1Gi", "volumeName": name, "storageClassName": name}],
        "rbac": {"grant": True, "serviceAccount": name, "approvers": [{"kind": "Group", "name": f"x{text}"} for text in texts]},
    }  # fmt: skip


MAKERS = {"fedjob": hub, "fedjob-site": site}


def rendered(helm: Helm, folder: Path, chart: str, name: str, values: list[str], texts: list[str]) -> list[Any]:
    """The objects of a release that is called `name`, in a namespace of that name."""
    path = folder / "values.json"
    path.write_text(json.dumps(MAKERS[chart](name, values, texts), ensure_ascii=False))
    told = helm.run("template", name, str(ROOT / "charts" / chart), "-n", name, "-f", str(path))
    return [found for found in yaml.load_all(told, Reader) if found]


def put(tree: Any, given: dict[str, str]) -> Any:
    """A tree with words replaced in every text."""
    if isinstance(tree, dict):
        return {put(key, given): put(value, given) for key, value in tree.items()}
    if isinstance(tree, list):
        return [put(value, given) for value in tree]
    if isinstance(tree, str):
        for word, told in given.items():
            tree = tree.replace(word, told)
    return tree


@pytest.mark.parametrize("chart", MAKERS)
def test_names_and_labels_stay_text(helm: Helm, tmp_path: Path, chart: str) -> None:
    words = [f"WORD{i}X" for i in range(len(VALUES))]
    plain = rendered(helm, tmp_path, chart, PLAIN, words, ["a"])
    for index, name in enumerate(LABELS):
        values = [*VALUES[index:], *VALUES[:index]]
        odd = rendered(helm, tmp_path, chart, name, values, ["a"])
        assert odd == put(plain, {PLAIN: name, **dict(zip(words, values, strict=True))}), name


@pytest.mark.parametrize("chart", MAKERS)
def test_texts_arrive_byte_for_byte(helm: Helm, tmp_path: Path, chart: str) -> None:
    words = [f"WORD{i}X" for i in range(len(TEXTS))]
    plain = read(rendered(helm, tmp_path, chart, "a", ["b"], words))
    for first in range(0, len(TEXTS), MOST):
        texts = [*TEXTS[first:], *TEXTS[:first]]
        found = read(rendered(helm, tmp_path, chart, "a", ["b"], texts))
        assert found == put(plain, dict(zip(words, texts, strict=True)))


def read(objects: list[Any]) -> list[Any]:
    """The objects, and what an operator reads of --job-pods after the kubelet; the argument itself is left out."""
    found, pods = deepcopy(objects), []
    for deployment in (o for o in found if o["kind"] == "Deployment"):
        arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        [told] = [argument for argument in arguments if argument.startswith("--job-pods=")]
        arguments.remove(told)
        assert not re.search(r"(?<!\$)(\$\$)*\$\(", told)
        pods.append(json.loads(told.removeprefix("--job-pods=").replace("$$", "$")))
    return [*found, *pods]


def test_large_numbers_stay_whole(helm: Helm, tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(
        "jobsAtOnce: 100000\nworkers: 8\nserver: {resources: {limits: {memory: 1234567890}}}\n"
        "podSecurityContext: {runAsUser: 1000680000}\nnetworkPolicy: {dnsPorts: [53, 5353]}\n"
    )
    told = helm.run("template", "a", str(ROOT / "charts" / "fedjob"), "-f", str(path))
    assert not re.search(r"[0-9]e\+[0-9]", told)
    assert "--jobs-at-once=100000" in told
    assert "memory=1234567890" in told
    assert 'runAsUser": 1000680000' in told
