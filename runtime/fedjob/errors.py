"""The error tree. Every message says what happened, with values, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ClassVar


class FedJobError(Exception):
    """Anything that fedjob raises on purpose.

    exit_code: of a training script that lets it pass; whoever supervises the script sees what has happened.
    """

    exit_code: ClassVar[int] = 1


def exit_code_of(work: Callable[[], object]) -> int:
    """That of a process which does `work` and nothing else: 0, or 2 with the FedJobError that it raised on stderr."""
    try:
        work()
    except FedJobError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    return 0


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


class RemoteProtocolError(FedJobError):
    """The server says what no fedjob server of this version says."""


class TransportError(FedJobError):
    """The connection failed; the same call may succeed later."""


class ServerLost(TransportError):  # noqa: N818 - what happened, in the script's words
    """The server stayed away for longer than `failurePolicy.serverLostSeconds`."""

    exit_code = 83


class ReceiveTimeout(FedJobError):  # noqa: N818
    """No task came within the `timeout` given to `receive`. The job goes on; call again."""


class JobFailed(FedJobError):  # noqa: N818
    """The job has ended without its result.

    reason: CamelCase word, as in the job's status, e.g. "QuorumNotMet".
    """

    exit_code = 80

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class NotWanted(FedJobError):  # noqa: N818
    """The job goes on without this process. There is nothing left for it to do, and it should not be started again."""

    exit_code = 81


class Superseded(NotWanted):
    """A newer process of this site has taken its place."""


class StaleAttempt(NotWanted):
    """The process belongs to an earlier attempt at the job."""

    exit_code = 82


class NotAdmitted(FedJobError):  # noqa: N818
    """The server does not serve this site, whatever it is asked."""

    exit_code = 84


def ended(reason: str, message: str) -> FedJobError:
    """The error that a script gets when its job has not ended well for it; reason: as on the wire."""
    kinds = (Superseded, StaleAttempt, NotAdmitted, ServerLost)
    return next((k(message) for k in kinds if k.__name__ == reason), None) or JobFailed(reason, message)


# Of the processes of one site: a loop in which only rank 0 calls fedjob shares its collectives with those of the script.
OUT_OF_STEP = (
    "with several processes at a site every rank calls is_running(), receive() and send(), in the same order; do not call them on "
    "rank 0 alone and broadcast the outcome yourself"
)


class PeerFailed(FedJobError):  # noqa: N818
    """A peer that was asked gave no answer: it is lost, declined or was refused.

    reason: one of `PeerLost`, `DeadlineExceeded`, `Declined`, or the name of a refusal.
    """

    def __init__(self, peer: str, reason: str, message: str) -> None:
        super().__init__(f"{peer}: {reason}: {message}")
        self.peer = peer
        self.reason = reason
        self.message = message
