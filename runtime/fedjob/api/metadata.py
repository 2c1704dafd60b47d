"""What every resource has beside its spec: a name, and what people and tools attach to it."""

from pydantic import Field

from fedjob.api.fields import AnnotationValue, DnsLabel, LabelKey, LabelValue, Part


class ObjectMetadata(Part):
    """The name of a resource, and what people and tools attach to it."""

    name: DnsLabel = Field(description="Name of the resource, unique in its namespace.")
    namespace: DnsLabel = Field(default="default", description="Kubernetes namespace of the resource.")
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=64, description="Labels of the resource, to select it by."
    )
    annotations: dict[LabelKey, AnnotationValue] = Field(
        default_factory=dict, max_length=64, description="Notes of tools on the resource."
    )
