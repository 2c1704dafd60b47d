"""SitePolicy: what a site's administrator lets run on the site's data. Without one, nothing runs."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from fedjob.api.conditions import Status
from fedjob.api.fields import (
    AnnotationValue,
    Broken,
    CommandPattern,
    ConfigKey,
    Count,
    DnsLabel,
    DnsName,
    EnvName,
    GroupId,
    ImagePattern,
    LabelKey,
    LabelValue,
    Part,
    Quantity,
    ResourceName,
    Sha256,
    Timestamp,
    Word,
    repeated,
)
from fedjob.api.job import Toleration
from fedjob.api.metadata import ObjectMetadata

POLICY_NAME = "default"


class PodFloor(Part):
    """What the pods of one job may use at the site, and what it may choose for them in spec.scheduling."""

    max_per_job: dict[ResourceName, Quantity] = Field(
        default_factory=dict,
        max_length=16,
        description="The most of each resource, all nodes of the job together; a job must limit what stands here. Default: no "
        "bound.",
    )
    priority_class_names: tuple[DnsName, ...] = Field(
        default=(), strict=False, max_length=64, description="Priority classes that a job may name. Default: none."
    )
    queue_names: tuple[DnsLabel, ...] = Field(
        default=(), strict=False, max_length=64, description="Kueue's LocalQueues that a job may name. Default: none."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        strict=False,
        max_length=64,
        description="Taints of nodes that a job may put up with: one of these, or less than one. Taints named after a resource "
        "that it asks for, such as nvidia.com/gpu, it puts up with anyway. Default: none.",
    )


class ExchangeFloor(Part):
    """What may leave the site."""

    max_rounds: int | None = Field(
        default=None, ge=1, le=100_000, description="Most rounds that a job may have. Default: no bound."
    )
    last_words: Literal["Full", "ExitCode"] = Field(
        default="Full",
        description="What the status of SiteJob and job tell of a script that died. Full: also the end of its log, at most 1000 "
        "characters. ExitCode: its exit code, and what the cluster says of the pod.",
    )


class Floor(Part):
    """What holds whichever rule fits; no approval goes beyond it."""

    pod: PodFloor = Field(
        default_factory=PodFloor, description="What the pods of one job may use at the site, and may choose."
    )
    exchange: ExchangeFloor = Field(default_factory=ExchangeFloor, description="What may leave the site.")


class SitePods(Part):
    """What the site adds to the pods of every job."""

    runtime_class_name: DnsName | None = Field(
        default=None,
        description="RuntimeClass of the pods, such as gvisor or nvidia; a job may name this one, and no other. Default: the "
        "cluster's own.",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        max_length=16,
        description="Labels of the nodes that the pods may run on. Default: any node.",
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        max_length=16,
        description="Labels on the pods, such as those that policies of the site's network select by; fedjob's own stay as "
        "they are.",
    )
    annotations: dict[LabelKey, AnnotationValue] = Field(
        default_factory=dict, max_length=16, description="Annotations on the pods; fedjob's own stay as they are."
    )


class SiteMetrics(Part):
    """Who may read the metrics of jobs' pods at the site."""

    scrape_from: tuple[DnsLabel, ...] = Field(
        default=(),
        strict=False,
        max_length=64,
        description="Namespaces whose pods may read the metrics of jobs' pods here: the one of your Prometheus. Default: nobody.",
    )


class DataVolume(Part):
    """Data of the site, under the name that jobs know it by."""

    name: DnsLabel = Field(description="Name that jobs give in spec.sites[].data.")
    claim: DnsName = Field(description="PersistentVolumeClaim in the namespace of the policy.")
    sub_path: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$",
        title="a relative path without '..'",
        description="Folder in the volume. Default: the whole volume.",
    )
    read_only: bool = Field(default=True, description="Whether the script may only read it.")
    supplemental_groups: tuple[GroupId, ...] = Field(
        default=(),
        strict=False,
        max_length=16,
        description="Groups that the pods belong to as well, such as the one that may read an NFS export; they run as user 65532.",
    )


class CaBundle(Part):
    """Authorities that scripts trust when they call others over HTTPS."""

    config_map: DnsName = Field(description="ConfigMap in the namespace of the policy.")
    key: ConfigKey = Field(
        default="ca.crt",
        description="Key of the ConfigMap: certificates in PEM, all that are to be trusted, the public ones too.",
    )


class Origin(Part):
    """Where a job comes from. What is left out allows all."""

    hubs: tuple[DnsName, ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=16,
        description="Trust domains of hubs. Default: every hub.",
    )
    namespaces: tuple[DnsLabel, ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=256,
        description="Namespaces at the hub. Default: every namespace.",
    )


class AllowedImage(Part):
    """Images that may run."""

    repository: ImagePattern = Field(
        description="Repository, such as registry.example/team/digits or registry.example/team/*: the registry is named in full."
    )
    digests: tuple[Sha256, ...] = Field(
        default=(),
        strict=False,
        max_length=64,
        description="Digests, one of which the image must be named by. Default: any tag or digest.",
    )


class Rule(Part):
    """Jobs that may run. The first rule that fits a job decides."""

    name: DnsLabel = Field(description="Name of the rule, for messages and the record of decisions.")
    from_: Origin = Field(default_factory=Origin, alias="from", description="Where the job comes from.")
    images: tuple[AllowedImage, ...] = Field(
        strict=False, min_length=1, max_length=64, description="Images that may run; one must fit."
    )
    workflows: tuple[Word, ...] | None = Field(
        default=None, strict=False, min_length=1, max_length=32, description="Workflows that may run. Default: all."
    )
    data: tuple[DnsLabel, ...] | None = Field(
        default=None,
        strict=False,
        max_length=64,
        description="Names in spec.data that may be trained on. Default: all.",
    )
    env: tuple[EnvName, ...] = Field(
        default=(), strict=False, max_length=64, description="Variables that the job may set. Default: none."
    )
    inline_code: Literal["Deny", "Allow"] = Field(
        default="Deny",
        description="Deny: only code of the image runs: a job brings no files (spec.trainer.files), and its command is one of "
        "commands. Allow: a job may bring files.",
    )
    commands: tuple[CommandPattern, ...] | None = Field(
        default=None,
        strict=False,
        max_length=64,
        description="Commands that may run, each as the list of the program and all its arguments, such as [python, /app/train.py, "
        "--lr=*]. Default: with inlineCode Deny none, with Allow every one.",
    )
    approval: Literal["Manual", "Automatic"] = Field(
        default="Manual",
        description="Manual: a person decides on each job, in spec.approval of its SiteJob. Automatic: it runs.",
    )
    valid_until: Timestamp | None = Field(default=None, description="When the rule ends. Default: never.")


class PolicySpec(Part):
    """What may run at this site."""

    suspend: bool = Field(default=False, description="Stop every client at once, and take no job.")
    floor: Floor = Field(
        default_factory=Floor, description="What holds whichever rule fits; no approval goes beyond it."
    )
    pods: SitePods = Field(
        default_factory=SitePods,
        description="What the site adds to the pods of every job; what runs keeps what it was started with.",
    )
    metrics: SiteMetrics = Field(
        default_factory=SiteMetrics, description="Who may read the metrics of jobs' pods at the site."
    )
    data: tuple[DataVolume, ...] = Field(
        default=(),
        strict=False,
        max_length=256,
        description="Data of the site, each name once. A hub learns names only.",
    )
    ca_bundle: CaBundle | None = Field(
        default=None,
        description="Authorities that scripts trust when they call others over HTTPS, instead of the public ones; between a "
        "client and its server nothing changes. Default: those of the image.",
    )
    rules: tuple[Rule, ...] = Field(
        default=(),
        strict=False,
        max_length=64,
        description="Rules in the order of trial, each name once. Default: nothing runs.",
    )

    def _broken_rules(self) -> Iterator[Broken]:
        yield from repeated([volume.name for volume in self.data], ("data",), "name")
        yield from repeated([rule.name for rule in self.rules], ("rules",), "rule")


class PolicyStatus(Status):
    """How the policy is applied."""

    active_jobs: Count | None = Field(default=None, description="Number of SiteJobs that it lets run now.")


class SitePolicy(Part):
    """The policy of one site: it is called default, and holds for the SiteJobs of its namespace."""

    api_version: Literal["fedjob.dev/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["SitePolicy"] = Field(description="Kind of the resource.")
    metadata: ObjectMetadata = Field(description="Name of the policy, default, and the site's namespace.")
    spec: PolicySpec = Field(description="What may run at this site.")

    def _broken_rules(self) -> Iterator[Broken]:
        if self.metadata.name != POLICY_NAME:
            allowed = f"{POLICY_NAME}, as a namespace has one policy"
            yield Broken(("metadata", "name"), self.metadata.name, allowed)
