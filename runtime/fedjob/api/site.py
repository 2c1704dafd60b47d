"""FederatedSite: what the hub knows of a site, and whether it may take part. It lives in the operator's namespace."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from fedjob.api.conditions import Status
from fedjob.api.fields import Broken, Count, DnsLabel, Part
from fedjob.api.job import SERVER_NAME
from fedjob.api.metadata import ObjectMetadata


class LocalSite(Part):
    """A site in the hub's own cluster."""

    namespace: DnsLabel | None = Field(
        default=None,
        description="Namespace of its SiteJobs, its SitePolicy and its data; it cannot be changed. Default: the "
        "namespace of each job.",
    )


class SiteSpec(Part):
    """Who the site is to the hub."""

    type: Literal["Local"] = Field(default="Local", description="Where the site is. Local: in the hub's own cluster.")
    approved: bool = Field(
        default=False, description="Whether jobs may be placed at the site. The hub's half of the consent."
    )
    display_name: str | None = Field(
        default=None, max_length=253, title="text", description="Name of the organisation, for people."
    )
    allowed_namespaces: tuple[DnsLabel, ...] = Field(
        default=(),
        strict=False,
        max_length=256,
        description="Namespaces whose jobs may be placed at the site. Default: none.",
    )
    local: LocalSite = Field(default_factory=LocalSite, description="A site in the hub's own cluster.")


class SiteStatus(Status):
    """Where the site stands with the hub."""

    active_jobs: Count | None = Field(default=None, description="Number of jobs that it takes part in now.")


class FederatedSite(Part):
    """One site: an organisation that trains on its own data."""

    api_version: Literal["fedjob.dev/v1alpha1"] = Field(description="Version of this format.")
    kind: Literal["FederatedSite"] = Field(description="Kind of the resource.")
    metadata: ObjectMetadata = Field(description="Name of the site, the one that jobs know it by.")
    spec: SiteSpec = Field(description="Who the site is to the hub.")

    def _broken_rules(self) -> Iterator[Broken]:
        if self.metadata.name == SERVER_NAME:
            allowed = f"a name other than {SERVER_NAME}, which is each job's own server"
            yield Broken(("metadata", "name"), self.metadata.name, allowed)
