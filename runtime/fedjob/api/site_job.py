"""SiteJob: one job's assignment to one site. The hub writes it, the site judges and runs it."""

from typing import Literal

from pydantic import Field

from fedjob.api.conditions import Status
from fedjob.api.fields import (
    Address,
    Argument,
    Count,
    DnsLabel,
    DnsName,
    FileName,
    FileText,
    ImageName,
    JobName,
    Part,
    Pem,
    Quantity,
    Sentence,
    Timestamp,
    Uid,
)
from fedjob.api.job import EnvVar, Exchange, FailureRule, Resources, Scheduling
from fedjob.api.metadata import ObjectMetadata
from fedjob.api.workflow import AnyWorkflow


class AssignedJob(Part):
    """The job that the assignment belongs to."""

    name: JobName = Field(description="Name of the FederatedJob.")
    namespace: DnsLabel = Field(description="Its namespace at the hub.")
    uid: Uid = Field(description="Its UID. A job that was made anew under the same name is another job.")
    attempt: int = Field(
        ge=1,
        le=2**31 - 1,
        description="Number of the attempt; it never goes down, and clients of older ones are stopped.",
    )


class AssignedServer(Part):
    """The job's server."""

    address: Address = Field(description="Where the clients reach it.")
    name: DnsName = Field(description="Name in its certificate.")


class AssignedTrainer(Part):
    """What runs at the site: the job's trainer, with what the job says of this site over it."""

    image: ImageName = Field(description="Container image of the training script.")
    command: tuple[Argument, ...] = Field(
        strict=False, min_length=1, max_length=64, description="The training script and its arguments."
    )
    files: dict[FileName, FileText] = Field(
        default_factory=dict, max_length=64, description="Text files of the script, name to content."
    )
    env: tuple[EnvVar, ...] = Field(
        default=(), strict=False, max_length=128, description="Environment variables of the script."
    )
    resources: Resources = Field(default_factory=Resources, description="What the script's container may use.")
    processes_per_node: int = Field(
        default=1, ge=1, le=64, description="Number of processes of the script on each node."
    )
    nodes: int = Field(default=1, ge=1, le=64, description="Number of pods that train together.")
    shared_memory: Quantity | None = Field(default=None, description="Size of /dev/shm. Default: chosen by the site.")


class AssignedRestarts(Part):
    """The budget of restarts of the script."""

    allowed: int = Field(ge=0, le=1000, description="Restarts without a completed round after which the site is lost.")
    forgiven: Count = Field(
        default=0, description="Restarts that no longer count, as rounds were completed since; it never goes down."
    )
    rules: tuple[FailureRule, ...] = Field(
        default=(),
        strict=False,
        max_length=20,
        description="What to do about particular deaths of the script; the first rule that fits decides.",
    )


class Approval(Part):
    """The word of the site's administrator on the job, where the policy leaves it to one."""

    decision: Literal["Approved", "Denied"] = Field(description="Whether the job may run.")
    digest: str = Field(
        min_length=8,
        max_length=64,
        pattern=r"^[0-9a-f]+$",
        title="hexadecimal digits",
        description="Of the assignment that was judged: all 64 digits, from the message of the condition Accepted. Another "
        "assignment is judged anew.",
    )
    by: str | None = Field(default=None, max_length=253, title="text", description="Who decided.")


class SiteJobSpec(Part):
    """What the hub asks of the site, and the site's word on it."""

    trust_domain: DnsName = Field(description="Trust domain of the hub that asks.")
    job: AssignedJob = Field(description="The job that the assignment belongs to.")
    site: DnsLabel = Field(description="Name of the site.")
    sites: tuple[DnsLabel, ...] = Field(
        strict=False, min_length=1, max_length=256, description="Names of all sites of the job, in order."
    )
    suspend: bool = Field(default=False, description="No pods: the job is paused or over, or its server is not up yet.")
    server: AssignedServer = Field(description="The job's server.")
    authorities: Pem = Field(description="Authorities whose certificates the clients trust.")
    workflow: AnyWorkflow = Field(description="Which algorithm runs.")
    exchange: Exchange = Field(default_factory=Exchange, description="What travels between the site and the server.")
    trainer: AssignedTrainer = Field(description="What runs at the site.")
    data: DnsLabel | None = Field(
        default=None, description="Logical name of the data; the site's policy maps it to a volume."
    )
    scheduling: Scheduling = Field(default_factory=Scheduling, description="Where and when the pods run.")
    restarts: AssignedRestarts = Field(description="The budget of restarts of the script.")
    server_lost_seconds: int = Field(
        default=600, ge=1, le=2_592_000, description="Seconds that a client waits for a server that is gone."
    )
    approval: Approval | None = Field(
        default=None, description="The word of the site's administrator, where the policy leaves the job to one."
    )


class SiteJobStatus(Status):
    """Where the site's part of the job stands."""

    attempt: Count | None = Field(default=None, description="Attempt of the job that the present run belongs to.")
    run: Count | None = Field(default=None, description="Number of the script's present Job, from 1.")
    restarts: Count | None = Field(default=None, description="Times that the script was restarted after it died.")
    last_termination: Sentence | None = Field(default=None, description="Last words of the last process that ended.")
    certificate_not_after: Timestamp | None = Field(
        default=None, description="When the site's certificate for this job ends."
    )


class SiteJob(Part):
    """One job at one site."""

    api_version: Literal["fedjob.dev/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["SiteJob"] = Field(description="Kind of the resource.")
    metadata: ObjectMetadata = Field(description="Name of the resource, made by the hub.")
    spec: SiteJobSpec = Field(description="What the hub asks of the site, and the site's word on it.")
