"""FederatedJob, fedjob.dev/v1alpha1: the resource that describes one training, on a cluster and on one machine.

These models are the only source of the field reference, of the editors' JSON schema and of the messages about a wrong
job file. A field is here once it has an effect; one that has none yet is refused, never ignored.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import Field

from fedjob.api.fields import (
    MAX_ROUND_SECONDS,
    MAX_SECONDS,
    AnnotationValue,
    Argument,
    Broken,
    ByteCount,
    DnsLabel,
    DnsName,
    EnvName,
    EnvValue,
    ExitCode,
    FileName,
    FileText,
    ImageName,
    JobName,
    LabelKey,
    LabelValue,
    ModelPath,
    ObjectName,
    Part,
    Quantity,
    ResourceName,
    TensorPattern,
    byte_count,
    repeated,
)
from fedjob.api.limits import CODE_BYTES
from fedjob.api.metadata import ObjectMetadata
from fedjob.api.workflow import AnyWorkflow, broken_round_rules

API_VERSION: Final = "fedjob.dev/v1alpha1"
KIND: Final = "FederatedJob"
MAX_FILES_BYTES = CODE_BYTES.value
RESERVED_ENV_PREFIX = "FEDJOB_"
SERVER_NAME = "server"


class Metadata(ObjectMetadata):
    """The name of the job, and what people and tools attach to it."""

    name: JobName = Field(description="Name of the job, unique in its namespace.")
    namespace: DnsLabel = Field(default="default", description="Kubernetes namespace of the job.")


class EnvVar(Part):
    """An environment variable of the training script."""

    name: EnvName = Field(description="Name of the variable. Names that begin with FEDJOB_ are fedjob's own.")
    value: EnvValue = Field(description="Value of the variable.")

    def _broken_rules(self) -> Iterator[Broken]:
        if self.name.startswith(RESERVED_ENV_PREFIX):
            yield Broken(("name",), self.name, f"a name that does not begin with {RESERVED_ENV_PREFIX}")


class Resources(Part):
    """What a container may use, as in a Kubernetes pod."""

    limits: dict[ResourceName, Quantity] = Field(
        default_factory=dict, max_length=16, description="The most that the container may use."
    )
    requests: dict[ResourceName, Quantity] = Field(
        default_factory=dict, max_length=16, description="What the node must have free. Default: the limits."
    )


def _default_command(given: dict[str, Any]) -> tuple[str, ...]:
    """What runs when the job names no command: its train.py; empty, and then refused by a rule, if it carries none."""
    return ("python", "train.py") if "train.py" in given["files"] else ()


class Trainer(Part):
    """What runs at every site."""

    image: ImageName | None = Field(
        default=None,
        description="Container image of the training script. Default: the runtime image that the operator was installed with.",
    )
    files: dict[FileName, FileText] = Field(
        default_factory=dict,
        max_length=64,
        description="Text files of the script, name to content, at most 262144 bytes in all; they lie in the working "
        "directory, read-only.",
    )
    command: tuple[Argument, ...] = Field(
        default_factory=_default_command,
        strict=False,
        min_length=1,
        max_length=64,
        description="The training script and its arguments. Default: python train.py if files holds train.py; required "
        "otherwise.",
    )
    env: tuple[EnvVar, ...] = Field(
        default=(), strict=False, max_length=64, description="Environment variables of the script."
    )
    resources: Resources = Field(default_factory=Resources, description="What the script's container may use.")
    processes_per_node: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Number of processes of the script at a site, usually one for each GPU. Above 1 the command must begin "
        "with python or python3 and is started under torchrun.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Number of pods that train together at a site, each with processesPerNode processes.",
    )
    shared_memory: Quantity | None = Field(
        default=None,
        description="Size of /dev/shm, through which data loaders pass batches; it counts as memory of the container. Default: "
        "the container's limit of memory, 1Gi without one.",
    )

    def _broken_rules(self) -> Iterator[Broken]:
        if not self.command:
            yield Broken(("command",), None, "a list of 1 to 64 strings, or a file train.py in files")
        elif self.processes_per_node * self.nodes > 1 and self.command[0] not in ("python", "python3"):
            above = "processesPerNode" if self.processes_per_node > 1 else "nodes"
            allowed = f"python or python3, as {above} is above 1 and the command is started under torchrun"
            yield Broken(("command", 0), self.command[0], allowed)
        yield from repeated([variable.name for variable in self.env], ("env",), "variable")
        yield from _broken_file_rules(self.files)


def _broken_file_rules(files: dict[str, str]) -> Iterator[Broken]:
    total = sum(len(text.encode()) for text in files.values())
    if total > MAX_FILES_BYTES:
        yield Broken(
            ("files",), f"{total} bytes", f"at most {MAX_FILES_BYTES} bytes in all; larger code belongs in the image"
        )
    for name in files:
        folders = [name[:end] for end, character in enumerate(name) if character == "/"]
        if taken := [folder for folder in folders if folder in files]:
            yield Broken(("files", name), name, f"another folder, as {taken[0]} is a file")


class Site(Part):
    """One site that takes part: an organisation that trains on its own data."""

    name: DnsLabel = Field(description="Name of the site, unique in the job.")
    required: bool = Field(default=False, description="Whether a round counts only with this site's result.")
    data: DnsLabel | None = Field(
        default=None,
        description="Logical name of the data to train on. The site maps it to a volume, a local run to a path; the script "
        "finds the path in FEDJOB_DATA.",
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        strict=False,
        max_length=64,
        description="Environment variables of the script at this site, over those of the trainer.",
    )
    resources: Resources | None = Field(
        default=None, description="What the script's container may use at this site. Default: as the trainer says."
    )

    def _broken_rules(self) -> Iterator[Broken]:
        if self.name == SERVER_NAME:
            yield Broken(("name",), self.name, f"a name other than {SERVER_NAME}, which is the job's own server")
        yield from repeated([variable.name for variable in self.env], ("env",), "variable")


class InitialModel(Part):
    """Where the first global model comes from."""

    path: ModelPath | None = Field(
        default=None, description="A safetensors file. A relative name counts from the folder of the job file."
    )
    object: ObjectName | None = Field(
        default=None,
        description="A state dict in the trainer's code, or a function without arguments that returns one; evaluated once. On a cluster "
        "that code runs at the hub: in the runtime image, or in one that the hub lists.",
    )

    def _broken_rules(self) -> Iterator[Broken]:
        if (self.path is None) == (self.object is None):
            yield Broken(("path",), self.path, "exactly one of path and object")


class Exchange(Part):
    """What travels between a site and the server."""

    params: Literal["Full", "Diff"] = Field(
        default="Full",
        description="What a site sends. Full: the parameters after training. Diff: their difference from the model received.",
    )
    include: tuple[TensorPattern, ...] = Field(
        default=(),
        strict=False,
        max_length=64,
        description="Patterns over the names of tensors, * for any text: only tensors that one of them fits travel, both "
        "ways; the others stay as they are and may be of any type. A pattern that begins with ! excludes what it fits; where "
        "all do, every other tensor travels. Each must fit a tensor of the initial model. Default: all travel.",
    )
    dtype: Literal["Keep", "F32", "BF16", "F16"] = Field(
        default="Keep",
        description="Floating-point type on the wire, both ways. Wider tensors are rounded to it; a script has its own types, "
        "and the server rounds nothing that it keeps. Keep: each tensor travels in its own type.",
    )
    max_bytes: ByteCount = Field(
        default="256Gi",
        description="Most bytes of the model on the wire, and of what a site sends at once, parameters and optimizer state "
        "together. More is refused before it travels.",
    )

    def _broken_rules(self) -> Iterator[Broken]:
        for at, pattern in enumerate(self.include):
            if pattern in self.include[:at]:
                allowed = f"each pattern once; include[{self.include.index(pattern)}] is the same"
                yield Broken(("include", at), pattern, allowed)
        if self.max_size < 1:
            yield Broken(("maxBytes",), self.max_bytes, "at least 1 byte")

    @property
    def max_size(self) -> int:
        """`max_bytes` as a number."""
        return byte_count(self.max_bytes)


class ModelSpec(Part):
    """The model that the sites train together."""

    initial: InitialModel | None = Field(
        default=None,
        description="Where the first global model comes from. Default: a site's script offers it, the first "
        "required site's in the order of names if there is one.",
    )
    exchange: Exchange = Field(default_factory=Exchange, description="What travels between a site and the server.")


class Storage(Part):
    """The server's volume."""

    size: Quantity = Field(
        default="20Gi",
        description="Size of the volume for the global model, the updates of a round and the checkpoint. It may grow at any time, "
        "where the storage class allows expansion.",
    )
    storage_class_name: DnsName | None = Field(
        default=None,
        description="StorageClass of the volume. Default: the one that the hub was installed with, or else the cluster's.",
    )


class Exposure(Part):
    """How clients outside the server's cluster reach it."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP",
        description="Type of the server's Service. ClusterIP: reached from inside the cluster alone. As long as every site is "
        "in the hub's cluster, no other is allowed.",
    )
    annotations: dict[LabelKey, AnnotationValue] = Field(
        default_factory=dict,
        max_length=64,
        description="Annotations of the Service, for what provides its address; the hub lists which a job may set.",
    )


class Toleration(Part):
    """A taint of nodes that the pods put up with, as in a Kubernetes pod."""

    key: LabelKey | None = Field(
        default=None, description="Key of the taint. Default: every taint; operator must be Exists."
    )
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Exists: whatever value the taint has. Equal: this value."
    )
    value: LabelValue | None = Field(
        default=None, description="Value of the taint, if operator is Equal. Default: empty."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Default: every effect."
    )

    def _broken_rules(self) -> Iterator[Broken]:
        if self.key is None and self.operator == "Equal":
            yield Broken(("operator",), self.operator, "Exists, as there is no key")
        if self.value and self.operator == "Exists":
            yield Broken(("value",), self.value, "no value, as operator is Exists")


class ServerScheduling(Part):
    """Where the server's pod runs, in the cluster of the hub."""

    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        max_length=16,
        description="Labels of the nodes that the pod may run on; the hub lists which a job may name. Default: any node.",
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        strict=False,
        max_length=16,
        description="Taints of nodes that the pod puts up with; the hub lists which a job may name.",
    )
    priority_class_name: DnsName | None = Field(
        default=None, description="PriorityClass of the pod; the hub lists which a job may name."
    )


class Server(Part):
    """The process that manages the job."""

    resources: Resources = Field(
        default_factory=Resources,
        description="What the server's container may use. Default, for each resource that neither limits nor requests name: as the "
        "hub was installed, usually 100m cpu and 512Mi of memory, at most 1Gi.",
    )
    scheduling: ServerScheduling = Field(default_factory=ServerScheduling, description="Where the server's pod runs.")
    storage: Storage = Field(default_factory=Storage, description="The server's volume.")
    exposure: Exposure = Field(
        default_factory=Exposure, description="How clients outside the server's cluster reach it."
    )


class Scheduling(Part):
    """Where and when the pods of the sites run; a site refuses what its policy does not list, and says so."""

    queue_name: DnsLabel | None = Field(
        default=None, description="Kueue's LocalQueue that admits the pods. Default: no queue, pods start at once."
    )
    priority_class_name: DnsName | None = Field(default=None, description="PriorityClass of the pods.")
    runtime_class_name: DnsName | None = Field(default=None, description="RuntimeClass of the pods, such as nvidia.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        strict=False,
        max_length=16,
        description="Taints of nodes that the pods put up with. Taints named after a resource in the limits, such as "
        "nvidia.com/gpu, are put up with anyway.",
    )


class ExitCodes(Part):
    """Exit codes that a rule is about."""

    operator: Literal["In", "NotIn"] = Field(
        default="In", description="In: one of the values. NotIn: any other than the values and 0."
    )
    values: tuple[ExitCode, ...] = Field(
        strict=False,
        min_length=1,
        max_length=64,
        description="Exit codes. A signal is 128 and its number: SIGKILL is 137.",
    )


class FailureRule(Part):
    """What to do about one kind of death."""

    name: DnsLabel = Field(description="Name of the rule, for messages.")
    role: Literal["Client", "Server"] = Field(
        default="Client",
        description="Whose death. Client: a site's script. Server: the job's server, whose codes 0, 1 and 2 are verdicts and no "
        "deaths.",
    )
    on_exit_codes: ExitCodes | None = Field(default=None, description="Fits these exit codes.")
    on_reasons: tuple[Literal["OOMKilled", "Disrupted"], ...] = Field(
        default=(),
        strict=False,
        max_length=2,
        description="Fits these causes. OOMKilled: killed for the memory that it used. Disrupted: ended from outside, by an "
        "eviction, a preemption or the loss of a node. One machine knows neither.",
    )
    action: Literal["Restart", "Ignore", "FailSite", "FailJob"] = Field(
        description="Restart: start it again, and count that. Ignore: start it again, and do not. FailSite: the site takes no "
        "part any more. FailJob: the job fails.",
    )

    def _broken_rules(self) -> Iterator[Broken]:
        if (self.on_exit_codes is None) == (not self.on_reasons):
            yield Broken(("onExitCodes",), None, "exactly one of onExitCodes and onReasons")
        if self.action == "FailSite" and self.role == "Server":
            yield Broken(("action",), self.action, "Restart, Ignore or FailJob, as role is Server")


class FailurePolicy(Part):
    """What happens when processes die or sites fall silent."""

    server_restarts: int = Field(
        default=5, ge=0, le=1000, description="Times that the server is restarted before the job fails."
    )
    site_restarts: int = Field(
        default=3, ge=0, le=1000, description="Times that the script of one site is restarted before the site is lost."
    )
    refill_on_rounds: int = Field(
        default=1, ge=1, le=100_000, description="Completed rounds after which the restarts are counted from 0 again."
    )
    on_quorum_lost: Literal["Wait", "Fail"] = Field(
        default="Fail",
        description="What happens when a round cannot reach its quorum. Fail: the job fails. Wait: missing sites are waited "
        "for, quorumTimeoutSeconds longer than the round's deadline.",
    )
    quorum_timeout_seconds: int = Field(
        default=1800,
        ge=0,
        le=MAX_ROUND_SECONDS,
        description="Seconds past the round's deadline during which missing sites are waited for, if onQuorumLost is Wait.",
    )
    site_lost_seconds: int = Field(
        default=300,
        ge=1,
        le=MAX_ROUND_SECONDS,
        description="Seconds without a live process after which a site is left out of the round.",
    )
    server_lost_seconds: int = Field(
        default=600, ge=1, le=MAX_ROUND_SECONDS, description="Seconds that a client waits for a server that is gone."
    )
    rules: tuple[FailureRule, ...] = Field(
        default=(),
        strict=False,
        max_length=20,
        description="What to do about particular deaths, each name once; the first rule that fits decides. Default: an end from "
        "outside is restarted and not counted, any other is restarted and counted.",
    )

    def _broken_rules(self) -> Iterator[Broken]:
        yield from repeated([rule.name for rule in self.rules], ("rules",), "rule")


class JobSpec(Part):
    """What the user asks for."""

    workflow: AnyWorkflow = Field(description="Which algorithm runs, and when a round counts.")
    trainer: Trainer = Field(description="What runs at every site.")
    sites: tuple[Site, ...] = Field(
        strict=False, min_length=1, max_length=256, description="The sites that take part, each name once."
    )
    model: ModelSpec = Field(default_factory=ModelSpec, description="The model that the sites train together.")
    server: Server = Field(default_factory=Server, description="The process that manages the job.")
    failure_policy: FailurePolicy = Field(
        default_factory=FailurePolicy, description="What happens when processes die or sites fall silent."
    )
    start_deadline_seconds: int = Field(
        default=1800,
        ge=1,
        le=MAX_SECONDS,
        description="Seconds within which the job must be running; it fails otherwise.",
    )
    active_deadline_seconds: int = Field(
        default=86_400, ge=1, le=MAX_SECONDS, description="Seconds that the job may run; it fails past them."
    )
    suspend: bool = Field(
        default=False,
        description="Pause the job: the running round is finished, then it has no pods. Its state stays, and false goes on from it.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, le=MAX_SECONDS, description="Seconds after its end that the job is deleted. Default: never."
    )
    clean_pod_policy: Literal["Running", "All", "None"] = Field(
        default="Running",
        description="Which pods go when the job has ended. Running: those that still run. All: also those that have ended, with "
        "their logs. None: no pod.",
    )
    scheduling: Scheduling = Field(default_factory=Scheduling, description="Where and when the pods of the sites run.")

    @property
    def required_sites(self) -> tuple[str, ...]:
        """Names of the sites without whose result a round does not count, in the order of the list."""
        return tuple(site.name for site in self.sites if site.required)

    @property
    def effective_quorum(self) -> int:
        """Fewest results that complete a round: the quorum given, or the number of required sites, at least 1."""
        return self.workflow.quorum or max(1, len(self.required_sites))

    def _broken_rules(self) -> Iterator[Broken]:
        yield from repeated([site.name for site in self.sites], ("sites",), "site")
        for rule in broken_round_rules(self.workflow, len(self.sites), len(self.required_sites)):
            yield Broken(("workflow", *rule.path), rule.given, rule.allowed)


class FederatedJob(Part):
    """One federated training."""

    api_version: Literal["fedjob.dev/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["FederatedJob"] = Field(description="Kind of the resource.")
    metadata: Metadata = Field(description="Name of the job.")
    spec: JobSpec = Field(description="What the job does.")
