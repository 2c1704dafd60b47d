"""The field references, printed from the models.

`python -m fedjob.api.reference > docs/job-reference.md`: job files. `python -m fedjob.api.reference resources >
docs/resource-reference.md`: every status, and the kinds that only a cluster has. `python -m fedjob.api.reference limits >
docs/limits.md`: fixed limits.
"""

import json
import sys

from pydantic import BaseModel

from fedjob.api.job_status import JobStatus
from fedjob.api.limits import table
from fedjob.api.policy import PolicySpec, PolicyStatus
from fedjob.api.schema import FieldPath, Schema, allowed, fields, inlined
from fedjob.api.site import SiteSpec, SiteStatus
from fedjob.api.site_job import SiteJobSpec, SiteJobStatus

_HEAD = """\
# Job reference

Every field of a job file, `apiVersion: fedjob.dev/v1alpha1`, `kind: FederatedJob`. Files are YAML, JSON or TOML. A field that
is not here is refused. `[]` stands for each entry of a list. Generated from the models by
`python -m fedjob.api.reference`; a test compares.

"""
_RESOURCES_HEAD = """\
# Resource reference

Every field of the resources that a cluster has besides the [spec of a job](job-reference.md), `apiVersion: fedjob.dev/v1alpha1`.
`[]` stands for each entry of a list. Status is written by fedjob, and read by people and scripts. Generated from the models by
`python -m fedjob.api.reference resources`; a test compares.
"""
_LIMITS_HEAD = """\
# Limits

Every size, count, rate and wait that somebody else can influence has a bound. Those that a job or a site may want to set are fields:
see the [job reference](job-reference.md) and the [resource reference](resource-reference.md). The fixed ones are here, each with its
reason. Generated from `runtime/fedjob/api/limits.py` by `python -m fedjob.api.reference limits`; a test compares.
"""
_TABLE_HEAD = "| Field | Allowed | Default | Meaning |\n|---|---|---|---|\n"
_SECTIONS: tuple[tuple[str, str, type[BaseModel], str], ...] = (
    ("FederatedJob", "Status of a job; `kubectl get fj`.", JobStatus, "status"),
    (
        "FederatedSite",
        "A site, as the hub knows it; in the operator's namespace; `kubectl get fsite`.",
        SiteSpec,
        "spec",
    ),
    ("FederatedSite status", "Where a site stands with the hub.", SiteStatus, "status"),
    (
        "SitePolicy",
        "What a site lets run, written by its administrator; it is called `default`, in the namespace of the site's SiteJobs; "
        "`kubectl get spol`.",
        PolicySpec,
        "spec",
    ),
    ("SitePolicy status", "How a policy is applied.", PolicyStatus, "status"),
    (
        "SiteJob",
        "One job's assignment to one site, written by the hub, but for `approval`; `kubectl get sj`.",
        SiteJobSpec,
        "spec",
    ),
    ("SiteJob status", "Where the site's part of a job stands.", SiteJobStatus, "status"),
)


def markdown() -> str:
    """The reference of job files as one page of Markdown."""
    return _HEAD + _TABLE_HEAD + "".join(_row(path, node, required) for path, node, required in fields())


def resources() -> str:
    """The reference of the other resources and of every status as one page of Markdown."""
    return _RESOURCES_HEAD + "".join(_section(*section) for section in _SECTIONS)


def limits() -> str:
    """The table of fixed limits as one page of Markdown, a section per scope."""
    scopes = dict.fromkeys(limit.scope for limit in table())
    return _LIMITS_HEAD + "".join(_scope(scope) for scope in scopes)


def _scope(scope: str) -> str:
    rows = "".join(
        f"| {limit.what} | {limit.value:,} {limit.unit} | {limit.reason} | {limit.beyond} |\n"
        for limit in table()
        if limit.scope == scope
    )
    return f"\n## {scope}\n\n| Bounded | Limit | Reason | Beyond it |\n|---|---|---|---|\n{rows}"


def _section(title: str, what: str, model: type[BaseModel], root: str) -> str:
    rows = (_row((root, *path), node, required) for path, node, required in fields(inlined(model)))
    return f"\n## {title}\n\n{what}\n\n{_TABLE_HEAD}{''.join(rows)}"


def _row(path: FieldPath, node: Schema, required: bool) -> str:
    name = ".".join(map(str, path)).replace(".[]", "[]")
    phrase = "a mapping" if "properties" in node else allowed(node)
    cells = [f"`{name}`", phrase, _default(node, required), node["description"]]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(node: Schema, required: bool) -> str:
    if required:
        return "required"
    if "default" not in node or node["default"] in ([], {}):
        return ""
    default = node["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    pages = {"job": markdown, "resources": resources, "limits": limits}
    sys.stdout.write(pages[sys.argv[1] if sys.argv[1:] else "job"]())
