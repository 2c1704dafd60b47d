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
LABELS = ["007", "no", "on", "y", "true", "null", "1e3", "0x1f", "12345678", "0b1", "0o7"]  # a name may be each of them
VALUES = [*LABELS, "1_000", "1.0", "2026-11-30", "1.5e9", "Yes", "NaN"]  # and a label's value these too
TEXTS = [
    *VALUES, "~", " a", "a ", "a: b", "- a", "# a", "a #b", "{{ .Values.replicas }}", "{a}", "[a", "&a", "*a", "!!int 1", "<<", "=",
    "'", '"', "\\", "a\nb: c", "a\n\n", "\n---\na", "a\r\nb", "\ta", "%a", "@a", "`a", "| a", "é 𝄞 \u2028", "\x1b[2J", "$(HOME)", "$$(HOME)",
]  # fmt: skip


class Reader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: 1e3, y and 0o7 are no text either."""


Reader.add_implicit_resolver(
    "tag:yaml.org,2002:null",
    re.compile(r"^([-+]?[0-9][0-9_.]*[eE][-+]?[0-9]+|[yYnN]|0o[0-7]+)$"),
    list("+-0123456789yYnN"),
)


def hub(name: str, value: str, text: str) -> dict[str, Any]:
    """Values of the hub's chart: a name, a label's value and a text, everywhere where each may be."""
    labels = {"a.example/b": value}
    named = {"name": "X", "value": text}
    peer = {"namespaceSelector": {"matchLabels": labels}, "podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": [value]}]}}  # fmt: skip
    return {
        "commonLabels": labels,
        "image": {"registry": name, "repository": name, "tag": name},
        "runtimeImage": {"registry": name, "repository": name, "tag": name},
        "imagePullSecrets": [name],
        "rbac": {"namespaces": [name], "granted": [name]},
        "serviceAccount": {"name": name, "annotations": {"note": text}},
        "caBundle": {"configMap": name, "key": name},
        "server": {"storageClassName": name},
        "trustDomain": name,
        "extraArgs": [f"--x={text}"],
        "extraEnv": [named],
        "podLabels": labels,
        "podAnnotations": {"note": text},
        "nodeSelector": labels,
        "tolerations": [{"key": "a", "operator": "Equal", "value": value}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": labels}}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                                       "labelSelector": {"matchLabels": labels}}],
        "priorityClassName": name,
        "podSecurityContext": {"seLinuxOptions": {"level": text}},
        "jobs": {"podLabels": labels, "podAnnotations": {"note": text}, "env": [named]},
        "networkPolicy": {"dns": [peer], "extraEgress": [{"to": [peer], "ports": [{"port": 1, "protocol": "TCP"}]}]},
        "metrics": {
            "scrapeFrom": [name],
            "serviceMonitor": {"enabled": True, "labels": labels},
            "podMonitor": {"enabled": True, "labels": labels},
            "prometheusRule": {"enabled": True, "labels": labels},
            "dashboard": {"enabled": True, "labels": labels, "annotations": {"note": text}},
        },
    }  # fmt: skip


def site(name: str, value: str, text: str) -> dict[str, Any]:
    """Values of the site's chart, likewise."""
    labels = {"a.example/b": value}
    return {
        "commonLabels": labels,
        "site": {"name": name, "displayName": text},
        "hub": {"namespace": name, "register": True, "allowedNamespaces": [name]},
        "policy": {
            "floor": {"pod": {"priorityClassNames": [name], "queueNames": [name], "tolerations": [{"key": name, "value": value}]}},
            "pods": {"runtimeClassName": name, "nodeSelector": labels, "labels": labels, "annotations": {"note": text}},
            "metrics": {"scrapeFrom": [name]},
            "rules": [{"name": name, "from": {"hubs": [name], "namespaces": [name]}, "images": [{"repository": name}],
                       "data": [name], "commands": [["python", f"x{text}"]]}],
        },
        "data": [{"name": name, "claim": name, "subPath": name}],
        "caBundle": {"configMap": name, "key": name},
        "claims": [{"name": name, "size": "1Gi", "volumeName": name, "storageClassName": name}],
        "rbac": {"grant": True, "serviceAccount": name, "approvers": [{"kind": "Group", "name": f"x{text}"}]},
    }  # fmt: skip


MAKERS = {"fedjob": hub, "fedjob-site": site}


def rendered(helm: Helm, folder: Path, chart: str, name: str, value: str, text: str) -> list[Any]:
    """The objects of a release that is called `name`, in a namespace of that name."""
    path = folder / "values.json"
    path.write_text(json.dumps(MAKERS[chart](name, value, text)))
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
    plain = rendered(helm, tmp_path, chart, PLAIN, "othervalue", "a")
    for index, value in enumerate(VALUES):
        name = LABELS[index % len(LABELS)]
        odd = rendered(helm, tmp_path, chart, name, value, "a")
        assert odd == put(plain, {PLAIN: name, "othervalue": value}), (name, value)


@pytest.mark.parametrize("chart", MAKERS)
def test_texts_arrive_byte_for_byte(helm: Helm, tmp_path: Path, chart: str) -> None:
    plain = rendered(helm, tmp_path, chart, "a", "b", "QQ")
    for text in TEXTS:
        found = rendered(helm, tmp_path, chart, "a", "b", text)
        assert read(found) == put(read(plain), {"QQ": text}), text


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
