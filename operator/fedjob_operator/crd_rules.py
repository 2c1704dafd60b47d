"""What the API server checks beyond types and bounds: rules in CEL, by the path of the value that they are about.  PURE

The rules within one FederatedJob say what `fedjob.api` says, so that a wrong job is refused by whoever sees it first. Those that
compare with `oldSelf` are the API server's alone: nobody else sees both versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rule:
    """A CEL expression that must hold, and what to say if it does not. A message names the field and what is allowed."""

    expression: str
    message: str


_REQUIRED: Final = "size(self.sites.filter(site, site.required))"
_LEAST: Final = (
    f"(has(self.workflow.quorum) ? self.workflow.quorum : self.sites.exists(site, site.required) ? {_REQUIRED} : 1)"
)
_ASKED: Final = "(self.workflow.clientsPerRound == 0 ? size(self.sites) : self.workflow.clientsPerRound)"
_STARTED: Final = "has(oldSelf.status) && has(oldSelf.status.startTime)"
_PAUSED: Final = "self.spec.suspend && oldSelf.spec.suspend"


def _same(path: str) -> str:
    """Both versions have the same value at a path, or neither has one; any name of it may be missing, but for spec.

    Written out, because the API server cannot bound the cost of comparing optional values (`self.?a == oldSelf.?a`).
    """
    new, old = _there("self", path), _there("oldSelf", path)
    return f"({new} == {old} && (!{new} || self.{path} == oldSelf.{path}))"


def _there(root: str, path: str) -> str:
    """There is something at a path: `has` itself is an error where a name before the last one is missing."""
    first, *names = path.split(".") if path.startswith("spec.") else ("", *path.split("."))
    place, found = ".".join(filter(None, (root, first))), []
    for name in names:
        place = f"{place}.{name}"
        found.append(f"has({place})")
    return f"({' && '.join(found)})"


_WORKFLOW: Final[Mapping[str, tuple[Rule, ...]]] = {
    "workflow.stopWhen": (
        Rule("has(self.value) || has(self.patienceRounds)", "allowed: value or patienceRounds, or both"),
    ),
}
_TOLERATION: Final = (
    Rule("has(self.key) || self.operator == 'Exists'", "operator: allowed: Exists, as there is no key"),
    Rule(
        "!has(self.value) || self.value == '' || self.operator == 'Equal'",
        "value: allowed: no value, as operator is Exists",
    ),
)
_TRAINER: Final[Mapping[str, tuple[Rule, ...]]] = {
    "trainer.files": (
        Rule(
            "self.map(name, size(bytes(self[name]))).sum() <= 262144",
            "allowed: at most 262144 bytes in all; larger code belongs in the image",
        ),
        Rule(
            "self.all(name, !self.exists(other, other.startsWith(name + '/')))",
            "allowed: names of which none is the folder of another",
        ),
    ),
    "trainer.env[].name": (
        Rule("!self.startsWith('FEDJOB_')", "allowed: a name that does not begin with FEDJOB_"),
    ),
    "scheduling.tolerations[]": _TOLERATION,
}  # fmt: skip


_FAILURES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "rules": (Rule("self.all(rule, self.exists_one(other, other.name == rule.name))", "name: allowed: each rule once"),),
    "rules[]": (
        Rule(
            "has(self.onExitCodes) != (has(self.onReasons) && size(self.onReasons) > 0)",
            "allowed: exactly one of onExitCodes and onReasons",
        ),
        Rule(
            "self.action != 'FailSite' || self.role == 'Client'",
            "action: allowed: Restart, Ignore or FailJob, as role is Server",
        ),
    ),
}  # fmt: skip


def _below(path: str, rules: Mapping[str, tuple[Rule, ...]]) -> dict[str, tuple[Rule, ...]]:
    return {f"{path}.{name}": found for name, found in rules.items()}


JOB: Final[Mapping[str, tuple[Rule, ...]]] = {
    "": (
        Rule(
            "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: allowed: at most 40 lower-case letters, digits and '-', beginning with a letter",
        ),
        Rule(
            f"!({_STARTED}) || (self.spec.workflow.type == oldSelf.spec.workflow.type"
            f" && {_same('spec.model')} && {_same('spec.server.storage.storageClassName')}"
            " && self.spec.sites.map(site, site.name) == oldSelf.spec.sites.map(site, site.name))",
            "spec: the workflow's type, the model, the names of the sites and the server's storageClassName cannot be changed once "
            "the job has started; make a new job",
        ),
        Rule(
            f"!({_STARTED}) || ({_PAUSED}) || (self.spec.workflow == oldSelf.spec.workflow"
            f" && self.spec.trainer == oldSelf.spec.trainer && {_same('spec.scheduling')} && {_same('spec.server.resources')}"
            f" && {_same('spec.server.scheduling')} && {_same('spec.server.exposure')})",
            "spec: workflow, trainer, scheduling and server, but for the size of its storage, can be changed while the job is paused; "
            "set suspend to true first",
        ),
    ),
    "spec": (
        Rule(
            "!has(self.workflow.quorum) || self.workflow.quorum <= size(self.sites)",
            "workflow.quorum: allowed: at most the number of sites",
        ),
        Rule(
            f"!has(self.workflow.quorum) || self.workflow.quorum >= {_REQUIRED}",
            "workflow.quorum: allowed: at least the number of required sites",
        ),
        Rule(
            "self.workflow.clientsPerRound <= size(self.sites)",
            "workflow.clientsPerRound: allowed: at most the number of sites, or 0 for all",
        ),
        Rule(
            f"self.workflow.clientsPerRound == 0 || self.workflow.clientsPerRound >= {_LEAST}",
            "workflow.clientsPerRound: allowed: at least the quorum, or 0 for all sites",
        ),
        Rule(
            f"self.workflow.close != 'Quorum' || {_ASKED} > {_LEAST}",
            "workflow.close: allowed: Deadline; Quorum needs a quorum below the number of sites asked",
        ),
    ),
    **_below("spec", _WORKFLOW),
    **_below("spec", _TRAINER),
    **_below("spec.failurePolicy", _FAILURES),
    "spec.trainer": (
        Rule(
            "has(self.command) || (has(self.files) && 'train.py' in self.files)",
            "command: allowed: a list of 1 to 64 strings, or a file train.py in files",
        ),
        Rule(
            "self.processesPerNode * self.nodes == 1 || !has(self.command) || self.command[0] in ['python', 'python3']",
            "command: allowed: python or python3 first, as the command is started under torchrun",
        ),
    ),
    "spec.sites[].name": (Rule("self != 'server'", "allowed: a name other than server, which is the job's own server"),),
    "spec.sites[].env[].name": (
        Rule("!self.startsWith('FEDJOB_')", "allowed: a name that does not begin with FEDJOB_"),
    ),
    "spec.model.initial": (Rule("has(self.path) != has(self.object)", "allowed: exactly one of path and object"),),
    "spec.server.scheduling.tolerations[]": _TOLERATION,
    "spec.model.exchange.maxBytes": (
        Rule("quantity(self).compareTo(quantity('1')) >= 0", "allowed: at least 1 byte"),
    ),
}  # fmt: skip

SITE: Final[Mapping[str, tuple[Rule, ...]]] = {
    "": (
        Rule(
            "size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: allowed: at most 63 lower-case letters, digits and '-', neither first nor last '-'",
        ),
        Rule(
            "self.metadata.name != 'server'",
            "metadata.name: allowed: a name other than server, which is each job's own server",
        ),
    ),
    "spec": (
        Rule(
            _same("local"),
            "local: cannot be changed, as SiteJobs may live there; make the site anew",
        ),
    ),
}

SITE_JOB: Final[Mapping[str, tuple[Rule, ...]]] = {
    "spec": (
        Rule(
            "self.trustDomain == oldSelf.trustDomain && self.site == oldSelf.site && self.job.uid == oldSelf.job.uid"
            " && self.job.name == oldSelf.job.name && self.job.__namespace__ == oldSelf.job.__namespace__",
            "trustDomain, site, job.name, job.namespace, job.uid: cannot be changed; an assignment is one job's",
        ),
        Rule("self.job.attempt >= oldSelf.job.attempt", "job.attempt: allowed: what it was, or more"),
        Rule("self.restarts.forgiven >= oldSelf.restarts.forgiven", "restarts.forgiven: allowed: what it was, or more"),
        Rule("self.site in self.sites", "site: allowed: one of sites"),
    ),
    "spec.trainer": (
        Rule(
            "self.processesPerNode * self.nodes == 1 || self.command[0] in ['python', 'python3']",
            "command: allowed: python or python3 first, as the command is started under torchrun",
        ),
    ),
    **_below("spec", _WORKFLOW),
    **_below("spec", _TRAINER),
    **_below("spec.restarts", _FAILURES),
}

POLICY: Final[Mapping[str, tuple[Rule, ...]]] = {
    "": (Rule("self.metadata.name == 'default'", "metadata.name: allowed: default, as a namespace has one policy"),),
    "spec.rules": (
        Rule("self.all(rule, self.exists_one(other, other.name == rule.name))", "name: allowed: each rule once"),
    ),
    "spec.floor.pod.tolerations[]": _TOLERATION,
}
