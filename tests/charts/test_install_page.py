"""What docs/install.md gives people to paste is what the project takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.pages import blocks, pasted
from fedjob.api import SitePolicy, load, validate
from fedjob.version import __version__

ROOT = Path(__file__).parents[2]
BUILT = {"operator", "runtime", "examples"}


def test_the_job_is_valid() -> None:
    job = validate(yaml.safe_load(pasted("install.md", "kubectl -n team-a apply -f -")))
    assert [site.name for site in job.spec.sites] == ["hospital-a"]
    compile(job.spec.trainer.files["train.py"], "train.py", "exec")


def test_the_sites_policy_is_valid_and_lets_that_job_in() -> None:
    values = yaml.safe_load(pasted("install.md", "cat > site.yaml"))
    metadata = {"name": "default", "namespace": "hospital-a"}
    policy = SitePolicy.model_validate(
        {"apiVersion": "fedjob.dev/v1alpha1", "kind": "SitePolicy", "metadata": metadata, "spec": values["policy"]}
    )
    [rule] = policy.spec.rules
    assert rule.inline_code == "Allow"
    assert rule.from_.namespaces == ("team-a",)
    assert values["hub"]["allowedNamespaces"] == ["team-a"]


def test_the_example_is_let_in_by_that_policy_and_its_sites_are_made() -> None:
    job = load(ROOT / "examples" / "mnist" / "cluster.yaml")
    [rule] = yaml.safe_load(pasted("install.md", "cat > site.yaml"))["policy"]["rules"]
    repository = str(job.spec.trainer.image).removesuffix(f":{__version__}")
    assert repository in [image["repository"].replace("$REGISTRY", "localhost") for image in rule["images"]]
    [made] = re.findall(r"^for site in (.*); do$", "".join(blocks("install.md")), re.M)
    assert made.split() == [site.name for site in job.spec.sites]


def _clusters() -> dict[str, str]:
    """The block of each kind of cluster, by its name."""
    found = (re.match(r"# (\w+): ", block) for block in blocks("install.md"))
    return {match[1]: match.string for match in found if match}


@pytest.mark.parametrize("block", blocks("install.md"))
def test_every_block_is_whole(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_cluster_has_one_block_that_brings_every_image_and_says_where_it_is() -> None:
    assert set(_clusters()) == {"kind", "k3s", "EKS"}
    assert set((ROOT / "hack" / "images").read_text().partition("${*:-")[2].partition("}")[0].split()) == BUILT
    for name, block in _clusters().items():
        [names] = re.findall(r"for name in (.*); do", block)
        assert set(names.split()) == BUILT, name
        assert "build/images/$name.oci.tar" in block
        assert len(re.findall(r"^REGISTRY=", block, re.M)) == 1
    assert f":{__version__}\n" in _clusters()["EKS"]


def test_with_a_registry_the_example_names_the_image_there() -> None:
    """The page's own sed."""
    [command] = [block.partition(" | ")[0] for block in blocks("install.md") if block.startswith("sed ")]
    done = subprocess.run(
        ["bash", "-c", f"REGISTRY=registry.example/team; {command}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    job = validate(yaml.safe_load(done.stdout))
    assert job.spec.trainer.image == f"registry.example/team/fedjob-examples:{__version__}"
    assert job.spec.trainer.files == load(ROOT / "examples" / "mnist" / "cluster.yaml").spec.trainer.files
