"""The workflows that a job may name, each with its typed options.

To add one: a class of options, a subclass of `Workflow` with its `type`, and its place in `AnyWorkflow`, which then
becomes a union discriminated by `type`.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from fedjob.api.fields import MAX_ROUND_SECONDS, Broken, MetricName, Part


class StopWhen(Part):
    """End the job before its last round, as complete, once a metric is good enough or no longer improves."""

    metric: MetricName = Field(
        description="Name of a metric that the sites send; its mean over the contributing sites, weighted by examples, "
        "is compared after each round."
    )
    goal: Literal["Minimize", "Maximize"] = Field(
        default="Maximize", description="Whether a lower or a higher metric is better."
    )
    value: float | None = Field(
        default=None, description="Stop when the metric is at least (Maximize) or at most (Minimize) this value."
    )
    patience_rounds: int | None = Field(
        default=None, ge=1, le=100_000, description="Stop after this many rounds in a row without a better metric."
    )

    def _broken_rules(self) -> Iterator[Broken]:
        if self.value is None and self.patience_rounds is None:
            yield Broken(("value",), None, "value or patienceRounds, or both")


class Workflow(Part):
    """What every workflow has: how many rounds, and when a round counts. Each subclass fixes its type."""

    type: str = Field(description="The algorithm.")
    rounds: int = Field(ge=1, le=100_000, description="Number of rounds.")
    quorum: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Fewest results that complete a round. Default: the number of required sites, at least 1.",
    )
    clients_per_round: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Number of sites asked in each round; 0 asks all. More than the quorum is over-sampling.",
    )
    close: Literal["Deadline", "Quorum"] = Field(
        default="Deadline",
        description="When a round closes. Deadline: when every site asked has answered, or at the deadline, with the "
        "quorum as the least. Quorum: as soon as the quorum has answered.",
    )
    round_timeout_seconds: int = Field(
        default=3600,
        ge=1,
        le=MAX_ROUND_SECONDS,
        description="Deadline of a round, in seconds. A site that answers later is left out of the round, not of the job.",
    )
    max_examples: int = Field(
        default=1_000_000_000,
        ge=1,
        le=2**53,
        description="Largest num_examples that an answer may state: how much one site can weigh in the mean. A site that "
        "states more is refused (BadWeight).",
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=2**63 - 1,
        description="Seed of every random choice that fedjob makes, such as which sites a round asks.",
    )
    stop_when: StopWhen | None = Field(
        default=None, description="A condition that ends the job before its last round. Default: none."
    )


class FedAvgOptions(Part):
    """Options of federated averaging."""

    evaluate: bool = Field(
        default=False, description="Ask every site, after the last round, for its metrics of the final model."
    )
    weighting: Literal["Examples", "Uniform"] = Field(
        default="Examples",
        description="Weight of a site's update in the mean. Examples: its number of examples. Uniform: the same for all.",
    )


class FedAvg(Workflow):
    """Federated averaging: McMahan et al., 2017."""

    type: Literal["FedAvg"] = Field(default="FedAvg", description="The algorithm. FedAvg: federated averaging.")
    options: FedAvgOptions = Field(default_factory=FedAvgOptions, description="Options of the algorithm.")


AnyWorkflow = FedAvg


def broken_round_rules(workflow: Workflow, sites: int, required: int) -> Iterator[Broken]:
    """The rules between a workflow and the sites that do not hold; paths begin at the workflow.

    sites: the number of sites; required: how many of them every round needs.
    """
    quorum, asked = workflow.quorum, workflow.clients_per_round
    least = max(required, 1) if quorum is None else quorum
    if quorum is not None and quorum > sites:
        yield Broken(("quorum",), quorum, f"at most {sites}, the number of sites")
    elif quorum is not None and quorum < required:
        yield Broken(("quorum",), quorum, f"at least {required}, the number of required sites")
    if asked > sites:
        yield Broken(("clientsPerRound",), asked, f"at most {sites}, the number of sites, or 0 for all")
    elif 0 < asked < least <= sites:
        yield Broken(("clientsPerRound",), asked, f"at least {least}, the quorum, or 0 for all sites")
    elif workflow.close == "Quorum" and (asked or sites) == least:
        allowed = f"Deadline; Quorum needs a quorum below the number of sites asked, and both are {least}"
        yield Broken(("close",), workflow.close, allowed)
