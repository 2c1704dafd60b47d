"""The error tree. Every message says what happened, with values, and what to do."""

from __future__ import annotations


class FedJobError(Exception):
    """Anything that fedjob raises on purpose."""


class ConfigError(FedJobError):
    """A file or variable that a process was started with cannot be used."""


class IdentityError(FedJobError):
    """A certificate does not say what it must."""


class CodecError(FedJobError):
    """A value cannot travel as a tensor, or bytes that arrived are not a tensor file."""


class OutOfRange(CodecError):  # noqa: N818
    """A number that the dtype in which it must travel cannot hold."""


class StateError(FedJobError):
    """A file of the job's state is missing, truncated or altered."""


class LocalProtocolError(FedJobError):
    """The training script called the client API out of turn."""


class TransportError(FedJobError):
    """The connection failed; the same call may succeed later."""


class ServerLost(TransportError):  # noqa: N818 - what happened, in the script's words
    """The server stayed away for longer than `failurePolicy.serverLostSeconds`."""


class ReceiveTimeout(FedJobError):  # noqa: N818
    """No task came within the `timeout` given to `receive`. The job goes on; call again."""


class JobFailed(FedJobError):  # noqa: N818
    """The job has ended without its result.

    reason: CamelCase word, as in the job's status, e.g. "QuorumNotMet".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class PeerFailed(FedJobError):  # noqa: N818
    """A peer that was asked gave no answer: it is lost, declined or was refused.

    reason: one of `PeerLost`, `DeadlineExceeded`, `Declined`, or the name of a refusal.
    """

    def __init__(self, peer: str, reason: str, message: str) -> None:
        super().__init__(f"{peer}: {reason}: {message}")
        self.peer = peer
        self.reason = reason
        self.message = message
