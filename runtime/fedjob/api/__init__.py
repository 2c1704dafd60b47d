"""The resource that describes a job: FederatedJob, its loading from a file, its schema. Imports nothing else of ours."""

from fedjob.api.cluster import CLUSTER_ONLY, cluster_only, reason
from fedjob.api.job import (
    API_VERSION,
    KIND,
    EnvVar,
    Exchange,
    FailurePolicy,
    FederatedJob,
    InitialModel,
    JobSpec,
    Metadata,
    ModelSpec,
    Resources,
    Server,
    Site,
    Storage,
    Trainer,
)
from fedjob.api.load import load, loads, to_yaml, validate
from fedjob.api.problems import JobFileError, Problem
from fedjob.api.schema import json_schema
from fedjob.api.workflow import AnyWorkflow, FedAvg, FedAvgOptions, StopWhen, Workflow

__all__ = [
    "API_VERSION",
    "CLUSTER_ONLY",
    "KIND",
    "AnyWorkflow",
    "EnvVar",
    "Exchange",
    "FailurePolicy",
    "FedAvg",
    "FedAvgOptions",
    "FederatedJob",
    "InitialModel",
    "JobFileError",
    "JobSpec",
    "Metadata",
    "ModelSpec",
    "Problem",
    "Resources",
    "Server",
    "Site",
    "StopWhen",
    "Storage",
    "Trainer",
    "Workflow",
    "cluster_only",
    "json_schema",
    "load",
    "loads",
    "reason",
    "to_yaml",
    "validate",
]
