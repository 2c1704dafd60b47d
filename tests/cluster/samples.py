"""A whole object of each kind, with every field set that can be set together, to take pieces away from or change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

Raw = dict[str, Any]
API_VERSION = "fedjob.dev/v1alpha1"
_FULL_JOB = Path(__file__).parents[1] / "api" / "full.yaml"

_SITE: Raw = {
    "type": "Local",
    "approved": True,
    "displayName": "Hospital A",
    "allowedNamespaces": ["team-a", "team-b"],
    "local": {"namespace": "hospital-a"},
}

_SITE_JOB: Raw = {
    "trustDomain": "hub.example",
    "job": {"name": "digits", "namespace": "team-a", "uid": "5f0c5a3e-0000-4000-8000-000000000001", "attempt": 2},
    "site": "hospital-a",
    "sites": ["hospital-a", "hospital-b"],
    "suspend": False,
    "server": {"address": "fj-digits.team-a.svc:8443", "name": "fj-digits.team-a.svc"},
    "authorities": "-----BEGIN CERTIFICATE-----\n",
    "workflow": {"type": "FedAvg", "rounds": 3, "stopWhen": {"metric": "loss", "patienceRounds": 2}},
    "exchange": {"params": "Diff"},
    "trainer": {
        "image": "registry.example/digits:1",
        "command": ["python", "train.py"],
        "files": {"train.py": "pass"},
        "env": [{"name": "LR", "value": "0.1"}],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "processesPerNode": 2,
        "nodes": 1,
        "sharedMemory": "1Gi",
    },
    "data": "scans",
    "scheduling": {"queueName": "gpus", "tolerations": [{"key": "spot", "operator": "Exists"}]},
    "restarts": {
        "allowed": 3,
        "forgiven": 1,
        "rules": [
            {
                "name": "bad-data",
                "role": "Client",
                "onExitCodes": {"operator": "In", "values": [42]},
                "action": "FailSite",
            }
        ],
    },
    "serverLostSeconds": 600,
    "approval": {"decision": "Approved", "digest": "0123456789abcdef", "by": "alice"},
}

_POLICY: Raw = {
    "suspend": False,
    "floor": {
        "pod": {
            "maxPerJob": {"cpu": "8", "nvidia.com/gpu": "2"},
            "priorityClassNames": ["research"],
            "queueNames": ["gpus"],
            "tolerations": [{"key": "spot", "operator": "Exists"}],
        },
        "exchange": {"maxRounds": 200, "lastWords": "ExitCode"},
    },
    "pods": {
        "runtimeClassName": "gvisor",
        "nodeSelector": {"example.com/pool": "research"},
        "labels": {"example.com/egress": "none"},
        "annotations": {"example.com/contact": "the ward's office"},
    },
    "metrics": {"scrapeFrom": ["monitoring"]},
    "data": [{"name": "scans", "claim": "scans-2026", "subPath": "v3", "readOnly": True, "supplementalGroups": [5000]}],
    "caBundle": {"configMap": "company-authorities", "key": "roots.pem"},
    "rules": [
        {
            "name": "trial-42",
            "from": {"hubs": ["hub.example"], "namespaces": ["team-a"]},
            "images": [{"repository": "registry.example/*", "digests": ["sha256:" + "0" * 64]}],
            "workflows": ["FedAvg"],
            "data": ["scans"],
            "env": ["LR"],
            "inlineCode": "Allow",
            "commands": [["python", "train.py"], ["python", "/app/train.py", "--lr=*"]],
            "approval": "Automatic",
            "validUntil": "2030-01-01T00:00:00Z",
        }
    ],
}


def job() -> Raw:
    """A FederatedJob that sets nearly every field; it asks for FedAvg at two sites."""
    found: Raw = yaml.safe_load(_FULL_JOB.read_text())
    del found["metadata"]["namespace"]
    return found


def sample(kind: str) -> Raw:
    """An object of a kind."""
    if kind == "FederatedJob":
        return job()
    name, spec = {
        "FederatedSite": ("hospital-a", _SITE),
        "SiteJob": ("fj-digits-hospital-a", _SITE_JOB),
        "SitePolicy": ("default", _POLICY),
    }[kind]
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": copy.deepcopy(spec)}


def changed(document: Raw, path: str, value: Any) -> Raw:
    """A copy with the value at a path such as spec/sites/0/name replaced; value None: taken away."""
    made = copy.deepcopy(document)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place: Any = made
    for step in parents:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made
