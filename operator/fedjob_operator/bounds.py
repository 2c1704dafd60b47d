"""What the hub's administrator lets jobs ask for what runs at the hub: their servers, and the code that makes a first model.  PURE"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from fedjob.api.fields import DnsName, LabelKey, Part, Quantity, ResourceName
from fedjob.api.job import Toleration
from fedjob.api.policy import AllowedImage

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class InitialModelBounds(Part):
    """Whose code may make a first model (spec.model.initial.object)."""

    images: tuple[AllowedImage, ...] = Field(default=(), strict=False, max_length=64)
    inline_code: Literal["Allow", "Deny"] = "Allow"


class ServerBounds(Part):
    """The most that a job may ask for its server, and the choices that it has. What is not listed is refused.

    max: of each resource; one without an entry is not bounded if it is cpu, memory or ephemeral-storage, and refused otherwise.
    node_labels: patterns of values by label. service_annotations: patterns of keys. In patterns, * stands for any text without /.
    """

    max: dict[ResourceName, Quantity] = Field(default_factory=dict, max_length=16)
    max_storage: Quantity | None = None
    priority_class_names: tuple[DnsName, ...] = Field(default=(), strict=False, max_length=64)
    tolerations: tuple[Toleration, ...] = Field(default=(), strict=False, max_length=64)
    node_labels: dict[LabelKey, Annotated[tuple[Pattern, ...], Field(strict=False)]] = Field(
        default_factory=dict, max_length=64
    )
    service_annotations: tuple[Pattern, ...] = Field(default=(), strict=False, max_length=64)
    initial_model: InitialModelBounds = Field(default_factory=InitialModelBounds)


def server_bounds(text: str) -> ServerBounds:
    """From JSON. Raises ValueError, which names the value of the chart that is wrong."""
    try:
        return ServerBounds.model_validate_json(text, by_alias=True, by_name=False)
    except ValidationError as e:
        wrong = e.errors()[0]
        where = ".".join(map(str, ("server", "allowed", *wrong["loc"])))
        raise ValueError(f"{where}: {wrong['msg']}") from None
