"""The table of workflows: `spec.workflow.type` → module. One paper each."""

from . import fedavg

WORKFLOWS = {"FedAvg": fedavg}
