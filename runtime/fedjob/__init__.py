"""fedjob: federated learning on Kubernetes.

A training script takes part in a job with four calls::

    import fedjob

    fedjob.init(model.state_dict())
    while fedjob.is_running():
        received = fedjob.receive()
        model.load_state_dict(received.params)
        ...                                    # train as ever
        fedjob.send(fedjob.FLModel(params=model.state_dict(), meta={"num_examples": len(data)}))

Importing this package imports nothing heavy.
"""

from .client import (
    Context,
    Receipt,
    get_config,
    get_job_id,
    get_site_name,
    get_task_name,
    init,
    is_evaluate,
    is_running,
    is_submit_model,
    is_train,
    log,
    receive,
    send,
    shutdown,
    skip,
    system_info,
)
from .errors import (
    FedJobError,
    JobFailed,
    LocalProtocolError,
    NotAdmitted,
    NotWanted,
    ReceiveTimeout,
    ServerLost,
    StaleAttempt,
    Superseded,
)
from .model import AnalyticsDataType, FLModel, MetaKey, ParamsType
from .version import __version__

__all__ = [
    "AnalyticsDataType",
    "Context",
    "FLModel",
    "FedJobError",
    "JobFailed",
    "LocalProtocolError",
    "MetaKey",
    "NotAdmitted",
    "NotWanted",
    "ParamsType",
    "Receipt",
    "ReceiveTimeout",
    "ServerLost",
    "StaleAttempt",
    "Superseded",
    "__version__",
    "get_config",
    "get_job_id",
    "get_site_name",
    "get_task_name",
    "init",
    "is_evaluate",
    "is_running",
    "is_submit_model",
    "is_train",
    "log",
    "receive",
    "send",
    "shutdown",
    "skip",
    "system_info",
]
