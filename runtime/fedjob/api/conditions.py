"""What every status has: conditions, after the conventions of the Kubernetes API."""

from typing import Literal

from pydantic import Field

from fedjob.api.fields import Count, Part, Sentence, Timestamp, Word


class Condition(Part):
    """One thing that is so or is not, why, and since when. A status has at most one condition of a type."""

    type: Word = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: Word = Field(description="Why, in one word of a closed list; scripts may match on it.")
    message: Sentence | None = Field(default=None, description="Why, for people, and what to do.")
    observed_generation: Count | None = Field(
        default=None, description="metadata.generation of the resource that this was decided for."
    )
    last_transition_time: Timestamp = Field(description="When status last changed.")


class Status(Part):
    """What every status has."""

    observed_generation: Count | None = Field(
        default=None, description="metadata.generation of the resource that the status was decided for."
    )
    conditions: tuple[Condition, ...] | None = Field(
        default=None, strict=False, max_length=16, description="What is so, why, and since when."
    )
