"""The status of a FederatedJob. Two parties write it, each its own fields: the operator, and the job's server its progress."""

from pydantic import Field

from fedjob.api.conditions import Status
from fedjob.api.fields import Count, DnsLabel, MetricName, Note, Part, Sentence, Timestamp, Word


class ServerCondition(Part):
    """Something that the job's server wants people to know of while it lasts."""

    type: Word = Field(description="What is the matter, such as DiskFull.")
    reason: Word | None = Field(default=None, description="Why, in one word.")
    message: Note | None = Field(default=None, description="Why, for people.")


class Progress(Part):
    """How far the job is, as its server reports it."""

    state: Word | None = Field(default=None, description="Starting, Running, Complete, Failed or Interrupted.")
    reason: Word | None = Field(default=None, description="Why, in one word.")
    message: Note | None = Field(default=None, description="Why, for people.")
    attempt: Count | None = Field(default=None, description="Attempt that the report belongs to.")
    current_round: Count | None = Field(default=None, description="Round that runs, counted from 0.")
    completed_rounds: Count | None = Field(default=None, description="Number of complete rounds.")
    total_rounds: Count | None = Field(default=None, description="Number of rounds of the job.")
    percent: int | None = Field(default=None, ge=0, le=100, description="completedRounds of totalRounds, in percent.")
    last_round_time: Timestamp | None = Field(
        default=None, description="When the last complete round was first reported."
    )
    last_round_seconds: str | None = Field(
        default=None,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?$",
        title="a decimal number in quotes",
        description="Seconds that the last complete round took.",
    )
    eta_seconds: Count | None = Field(
        default=None, description="Seconds until the last round ends, as far as can be told."
    )
    bytes_in: Count | None = Field(default=None, description="Bytes of models that the sites have sent.")
    bytes_out: Count | None = Field(default=None, description="Bytes of models that the sites have received.")
    conditions: tuple[ServerCondition, ...] | None = Field(
        default=None, strict=False, max_length=8, description="What hinders the server while it lasts."
    )


class Metric(Part):
    """A metric of the global model: the mean over the contributing sites, weighted by examples."""

    name: MetricName = Field(description="Name of the metric.")
    value: str | None = Field(
        default=None, max_length=64, title="a number in quotes", description="Its value after the last complete round."
    )


class FinalModel(Part):
    """The final model, on the server's volume."""

    digest: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        title="64 hexadecimal digits",
        description="Its digest, as `fedjob digest FILE` prints it.",
    )
    size: Count | None = Field(default=None, description="Its bytes.")


class SiteState(Part):
    """One site of the job."""

    name: DnsLabel = Field(description="Name of the site.")
    state: Word | None = Field(default=None, description="Where its pods stand, in one word for people.")
    reason: Word | None = Field(default=None, description="Why, in one word of a closed list.")
    message: Note | None = Field(default=None, description="Why, for people.")
    restarts: Count | None = Field(default=None, description="Times that its script was restarted.")
    forgiven: Count | None = Field(
        default=None, description="Restarts that no longer count, as rounds were completed since."
    )
    restart_round: Count | None = Field(default=None, description="Complete rounds at its last restart.")
    training: Word | None = Field(default=None, description="What it does in the round, as the server sees it.")
    training_message: Note | None = Field(default=None, description="More on what it does, for people.")
    examples: Count | None = Field(default=None, description="Number of examples of its last update.")


class SiteSummary(Part):
    """The sites in numbers."""

    total: Count | None = Field(default=None, description="Number of sites of the job.")
    running: Count | None = Field(default=None, description="Sites whose script runs or has ended well.")
    out: Count | None = Field(default=None, description="Sites that take no part any more.")
    text: str | None = Field(
        default=None, max_length=16, title="text", description="running of total, for kubectl get."
    )


class ServerState(Part):
    """The job's server."""

    run: Count | None = Field(default=None, description="Number of its present Job, from 1.")
    ready: bool | None = Field(default=None, description="Whether it answers.")
    released: bool | None = Field(
        default=None, description="Whether it has answered once in this attempt, so that the sites may start."
    )
    restarts: Count | None = Field(default=None, description="Times that it was restarted.")
    counted: Count | None = Field(default=None, description="Restarts that count against failurePolicy.serverRestarts.")
    counted_round: Count | None = Field(default=None, description="Complete rounds at the last restart that counted.")
    job: str | None = Field(default=None, max_length=63, title="text", description="Name of its present Job.")
    endpoint: str | None = Field(
        default=None, max_length=512, title="host:port", description="Where the clients in its cluster reach it."
    )
    external_endpoint: str | None = Field(
        default=None, max_length=512, title="host:port", description="Where clients outside its cluster reach it."
    )
    last_termination: Sentence | None = Field(default=None, description="Last words of its last process that ended.")
    storage_class_name: str | None = Field(
        default=None,
        max_length=253,
        title="text",
        description="StorageClass that its volume was asked for with, if any was named.",
    )


class Certificates(Part):
    """Until when the job's certificates are valid."""

    server_not_after: Timestamp | None = Field(default=None, description="When the server's certificate ends.")


class JobStatus(Status):
    """Where the job stands."""

    state: Word | None = Field(
        default=None, description="One word for people. Not a contract: scripts read conditions."
    )
    attempt: Count | None = Field(
        default=None, description="Number of the attempt, from 1; reports of older attempts are dropped."
    )
    runtime_image: str | None = Field(
        default=None,
        max_length=512,
        title="text",
        description="Image of the server, and of scripts without one of their own: the hub's when the job began.",
    )
    start_time: Timestamp | None = Field(default=None, description="When the job was first let run.")
    running_time: Timestamp | None = Field(default=None, description="When its first round began.")
    completion_time: Timestamp | None = Field(default=None, description="When it ended.")
    suspended_time: Timestamp | None = Field(default=None, description="Since when it is paused.")
    suspended_seconds: Count | None = Field(
        default=None,
        description="Seconds that it was paused, until the last time it went on; they count against no deadline.",
    )
    progress: Progress | None = Field(default=None, description="How far the job is.")
    metrics: tuple[Metric, ...] | None = Field(
        default=None, strict=False, max_length=32, description="Metrics of the global model."
    )
    model: FinalModel | None = Field(default=None, description="The final model, once the job is complete.")
    server: ServerState | None = Field(default=None, description="The job's server.")
    site_summary: SiteSummary | None = Field(default=None, description="The sites in numbers.")
    sites: tuple[SiteState, ...] | None = Field(
        default=None, strict=False, max_length=256, description="Each site of the job."
    )
    certificates: Certificates | None = Field(default=None, description="Until when the job's certificates are valid.")
