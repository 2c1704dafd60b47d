"""The resources: FederatedJob, FederatedSite, SiteJob and SitePolicy; a job's loading from a file. Imports nothing else of ours."""

from fedjob.api.cluster import CLUSTER_ONLY, cluster_only, reason
from fedjob.api.conditions import Condition, Status
from fedjob.api.fields import can_be_job
from fedjob.api.job import (
    API_VERSION,
    KIND,
    EnvVar,
    Exchange,
    Exposure,
    FailurePolicy,
    FailureRule,
    FederatedJob,
    InitialModel,
    JobSpec,
    Metadata,
    ModelSpec,
    Resources,
    Scheduling,
    Server,
    Site,
    Storage,
    Toleration,
    Trainer,
)
from fedjob.api.job_status import JobStatus
from fedjob.api.load import load, loads, to_yaml, validate
from fedjob.api.policy import POLICY_NAME, PolicySpec, PolicyStatus, SitePolicy
from fedjob.api.problems import JobFileError, Problem
from fedjob.api.schema import inlined, json_schema
from fedjob.api.site import FederatedSite, SiteSpec, SiteStatus
from fedjob.api.site_job import SiteJob, SiteJobSpec, SiteJobStatus
from fedjob.api.workflow import AnyWorkflow, FedAvg, FedAvgOptions, StopWhen, Workflow

__all__ = [
    "API_VERSION",
    "CLUSTER_ONLY",
    "KIND",
    "POLICY_NAME",
    "AnyWorkflow",
    "Condition",
    "EnvVar",
    "Exchange",
    "Exposure",
    "FailurePolicy",
    "FailureRule",
    "FedAvg",
    "FedAvgOptions",
    "FederatedJob",
    "FederatedSite",
    "InitialModel",
    "JobFileError",
    "JobSpec",
    "JobStatus",
    "Metadata",
    "ModelSpec",
    "PolicySpec",
    "PolicyStatus",
    "Problem",
    "Resources",
    "Scheduling",
    "Server",
    "Site",
    "SiteJob",
    "SiteJobSpec",
    "SiteJobStatus",
    "SitePolicy",
    "SiteSpec",
    "SiteStatus",
    "Status",
    "StopWhen",
    "Storage",
    "Toleration",
    "Trainer",
    "Workflow",
    "can_be_job",
    "cluster_only",
    "inlined",
    "json_schema",
    "load",
    "loads",
    "reason",
    "to_yaml",
    "validate",
]
