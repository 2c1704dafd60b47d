"""What went wrong with a cluster, as one line: the cause, and what to do about it.  PURE"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..text import one_line

EXIT_CLUSTER = 3


class ClusterError(Exception):
    """A command that cannot do what it was asked. The message is one line."""

    exit_code = EXIT_CLUSTER


class Unreachable(ClusterError):  # noqa: N818 - what was found
    """The API server has not answered."""


class StreamCut(ClusterError):  # noqa: N818 - what has happened
    """A stream has ended before it was complete; asking again may go on."""


@dataclass
class ApiFailure(Exception):  # noqa: N818 - what was answered
    """The API server's refusal. status: HTTP code. what: "list pods in namespace team-a". details: of its Status."""

    status: int
    reason: str
    message: str
    what: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what}: {self.status} {self.reason}: {self.message}"

    @property
    def passing(self) -> bool:
        """Whether the same call may be answered a moment later: the API server, or the node behind it, is away or busy."""
        return self.status == 429 or self.status >= 500

    @property
    def no_such_kind(self) -> bool:
        """Whether the API server does not know the kind itself, rather than the object."""
        return self.status == 404 and not self.details.get("name")


def explained(failure: ApiFailure, server: str) -> str:
    """One line for people. server: the API server's address."""
    said = one_line(failure.message.strip() or failure.reason or f"HTTP {failure.status}")
    if failure.status == 401:
        return f"{server} does not know you (401 Unauthorized): log in again, or name another context with --context"
    if failure.status == 403:
        return f"you may not {failure.what}: ask the cluster's administrator for the role edit in that namespace; the cluster says: {said}"
    if failure.no_such_kind and "fedjob.dev" in failure.what:
        return (
            f"{server} does not know FederatedJobs: fedjob is not installed there, or --context names another cluster"
        )
    if failure.status in (400, 422):
        return f"the cluster refuses to {failure.what}: {said}"
    if failure.status == 409:
        return f"somebody else changed it at the same time; try again: {said}"
    if failure.passing:
        return f"the cluster cannot {failure.what} now, try again: {said}"
    return f"cannot {failure.what}: {said}"


def unreachable(server: str, why: str) -> str:
    """No answer at all."""
    return f"no answer from {server}: {one_line(why)}; is the cluster up, and is it the right --context?"


def not_found(name: str, namespace: str, there: Collection[str], elsewhere: Collection[str]) -> str:
    """No job of this name. there: jobs of the namespace. elsewhere: namespaces that have one of this name."""
    said = f"no job {name} in namespace {namespace}"
    if elsewhere:
        return f"{said}; there is one in {', '.join(sorted(elsewhere)[:3])}: name it with -n"
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.6)
    if near:
        return f"{said}; did you mean {' or '.join(near)}?"
    if there:
        listed = sorted(there)
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        return f"{said}; there are {', '.join(listed[:5])}{more}"
    return f"{said}, and no other; fedjob get -A lists those of all namespaces"
