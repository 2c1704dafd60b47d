"""What docs/install.md gives people to paste is what the project takes."""

from __future__ import annotations

import yaml

from cluster.pages import pasted
from fedjob.api import SitePolicy, validate


def test_the_job_is_valid() -> None:
    job = validate(yaml.safe_load(pasted("install.md", "kubectl -n team-a apply -f -")))
    assert [site.name for site in job.spec.sites] == ["hospital-a"]
    compile(job.spec.trainer.files["train.py"], "train.py", "exec")


def test_the_sites_policy_is_valid_and_lets_that_job_in() -> None:
    values = yaml.safe_load(pasted("install.md", "helm install site charts/fedjob-site"))
    metadata = {"name": "default", "namespace": "hospital-a"}
    policy = SitePolicy.model_validate(
        {"apiVersion": "fedjob.dev/v1alpha1", "kind": "SitePolicy", "metadata": metadata, "spec": values["policy"]}
    )
    [rule] = policy.spec.rules
    assert rule.inline_code == "Allow"
    assert rule.from_.namespaces == ("team-a",)
    assert values["hub"]["allowedNamespaces"] == ["team-a"]
