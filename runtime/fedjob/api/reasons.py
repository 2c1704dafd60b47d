"""Conditions and their reasons: the closed list of what status may say, and what a reader does about it.  PURE

docs/operator.md prints these tables; a test compares. A reason is a contract: scripts and alerts match on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Reason:
    """What a condition with this reason means, and what to do: "" where there is nothing to do."""

    meaning: str
    remedy: str = ""


@dataclass(frozen=True)
class Condition:
    """A type of condition and its reasons. For a positive one, True is good news."""

    meaning: str
    reasons: Mapping[str, Reason]


_REFUSED: Final = {
    "QuotaExceeded": Reason("A quota of the namespace keeps the pod from being made.", "Lower the resources, free the quota or have it raised; the message is the API server's."),
    "PodSecurity": Reason("The namespace enforces a Pod Security standard that the pod does not meet.", "See the message, which is the API server's."),
    "WebhookDenied": Reason("An admission webhook keeps the pod from being made.", "Ask whoever runs the webhook that the message names."),
    "PodRefused": Reason("The API server does not let the pod be made.", "See the message, which is the API server's."),
}  # fmt: skip

_PODS: Final = {
    **_REFUSED,
    "ImagePull": Reason("The image cannot be pulled.", "Check the image's name and spec.trainer.image, and the pull secret."),
    "Unschedulable": Reason("No node has room for the pod.", "Lower the resources, or wait for a node; the message is the scheduler's."),
    "MountFailed": Reason(
        "A volume of the pod cannot be mounted: a ConfigMap or a key of it is missing (volume ca-bundle: the one that caBundle names), or storage fails.",
        "See the message, which is the kubelet's; the pod starts by itself once what is missing is there.",
    ),
    "NodeLost": Reason(
        "The pod's node does not answer; no other pod is started while this one may still be alive.",
        "Bring the node back, or delete the Node, or taint it node.kubernetes.io/out-of-service.",
    ),
    "Restarting": Reason("The process died and is started again after a pause.", "See the message for its last words."),
    "OOMKilled": Reason(
        "The process used more memory than its container's limit and was killed; it is started again after a pause.",
        "Raise the limit that the message names, or use less memory.",
    ),
}  # fmt: skip

JOB_CONDITIONS: Final[Mapping[str, Condition]] = {
    "Accepted": Condition(
        "The job can run as it is written, at sites that exist.",
        {
            "Accepted": Reason("Nothing stands in the way."),
            "Invalid": Reason("The spec breaks a rule; the message names the field.", "Edit the field."),
            "Unsupported": Reason("The spec asks for what this version cannot do on a cluster.", "Edit the field that the message names."),
            "SiteNotFound": Reason("A site is not registered here.", "Create its FederatedSite, or correct the name."),
            "SiteNotApproved": Reason("A site is registered and not approved.", "Set spec.approved of its FederatedSite."),
            "SiteNotAllowed": Reason("A site takes no jobs of this namespace.", "Add the namespace to spec.allowedNamespaces of its FederatedSite."),
            "SiteForbidden": Reason(
                "A site's namespace does not let the operator in, which is told to look after it: the Role is missing there.",
                "Install fedjob-site there with rbac.grant; the message is the API server's. The job begins by itself then.",
            ),
            "ServerNotAllowed": Reason(
                "The job asks for what the hub lists for no server, or for code at the hub that it does not let in.",
                "Take the field that the message names away, or have the hub's administrator set the value of the chart that it names.",
            ),
            "NameConflict": Reason("An object that the job needs exists and belongs to someone else.", "Rename the job, or delete that object."),
        },
    ),
    "CertificatesReady": Condition(
        "The job's server has a valid certificate.",
        {
            "Issued": Reason("The certificate is valid."),
            "Issuing": Reason("The certificate is being made."),
        },
    ),
    "Admitted": Condition(
        "The job may have pods.",
        {
            "Admitted": Reason("The job may have pods."),
            "NotAccepted": Reason("The job is not accepted yet.", "See the condition Accepted."),
            "WaitingForTurn": Reason("As many jobs of the namespace run as the hub lets run at a time; the oldest that waits is next.", "Wait; or suspend another, or raise jobsAtOnce of the hub's chart."),
            "Suspended": Reason("spec.suspend is true: no pods; the state stays.", "Set spec.suspend to false."),
            "Suspending": Reason("spec.suspend is true: the running round is finished first."),
            "Forbidden": Reason("The API server refuses what the job needs: a quota, an admission rule, or the operator's role.", "See the message, which is the API server's."),
            "Finished": Reason("The job has ended."),
        },
    ),
    "ServerReady": Condition(
        "The job's server answers.",
        {
            "Ready": Reason("The server answers."),
            "NotStarted": Reason("The server has no pod yet."),
            "Pending": Reason("The server's pod is being started."),
            **_PODS,
            "Finished": Reason("The job has ended."),
        },
    ),
    "QuorumReached": Condition(
        "Enough sites are connected for a round to count.",
        {
            "Reached": Reason("Enough sites are connected."),
            "WaitingForSites": Reason("Sites are missing; the message says which, and why.", "See the sites in status.sites."),
            "Finished": Reason("The job has ended."),
        },
    ),
    "Progressing": Condition(
        "Rounds are being completed.",
        {
            "Training": Reason("The workflow runs."),
            "Waiting": Reason("The workflow has not begun."),
            "Stalled": Reason(
                "The server has reported no complete round for longer than a round may take.",
                "See the server's log and status.sites.",
            ),
            "NotReported": Reason(
                "The server is ready, and the hub has heard nothing of it; it may be at work all the same.",
                "See the server's log, the hub's Service and NetworkPolicies, and --hub-url; `fedjob logs` tells of rounds.",
            ),
            "DiskFull": Reason(
                "The server's volume has no room for what it has to write; it waits, and loses nothing.",
                "Free space on the volume, or give it more: docs/operations.md, FedjobDiskFull.",
            ),
            "Finished": Reason("The job has ended."),
        },
    ),
    "Degraded": Condition(
        "A site takes no part any more; the job goes on without it.",
        {
            "AllSites": Reason("Every site takes part."),
            "SiteFailed": Reason("A site's script has used up its restarts, or a rule has ended it.", "See the site's message in status.sites."),
            "SiteRefused": Reason("A site's policy refuses the job.", "Ask the site's administrator; the message names the rule."),
        },
    ),
    "Complete": Condition(
        "The job has ended with its model.",
        {
            "NotFinished": Reason("The job has not ended."),
            "RoundsCompleted": Reason("Every round is complete."),
            "EarlyStopped": Reason("spec.workflow.stopWhen holds; the message says which part."),
            "EvaluationIncomplete": Reason(
                "Every round is complete and the model is there; the message says which sites did not evaluate it at the end, and why.",
                "See the logs of those sites; `fedjob report` shows the others' metrics.",
            ),
            "Failed": Reason("The job has failed.", "See the condition Failed."),
        },
    ),
    "Failed": Condition(
        "The job has ended without its model.",
        {
            "NotFinished": Reason("The job has not ended."),
            "Complete": Reason("The job is complete."),
            "StartDeadlineExceeded": Reason("The job was not running within spec.startDeadlineSeconds.", "See why in ServerReady and QuorumReached."),
            "DeadlineExceeded": Reason("The job ran longer than spec.activeDeadlineSeconds.", "Raise it, or ask for fewer rounds."),
            "RestartBudgetExhausted": Reason("The server died too often without completing a round.", "See the message for its last words, and the log."),
            "FailedByRule": Reason("A rule of spec.failurePolicy ends the job; the message names it.", "See the message for the last words of the process, and its log."),
            "RequiredSiteFailed": Reason("A required site has failed or refused.", "See the site's message in status.sites."),
            "QuorumUnreachable": Reason("Too few sites are left for a round to count.", "See status.sites."),
            "QuorumNotMet": Reason("A round ended with fewer results than the quorum.", "See status.sites; lower the quorum or raise the round's timeout."),
            "NoInitialModel": Reason("No site offered an initial model.", "Call fedjob.init(model.state_dict()), or set spec.model.initial."),
            "StateDamaged": Reason("A file of the server's state is not what was written.", "Start the job again on a sound volume."),
            "ServerFailed": Reason("The server ended with an error of its own.", "See the message and the log."),
        },
    ),
}  # fmt: skip

SITE_JOB_CONDITIONS: Final[Mapping[str, Condition]] = {
    "Accepted": Condition(
        "The site's policy lets the job run.",
        {
            "Accepted": Reason("A rule of the policy allows the job."),
            "NoPolicy": Reason("The site has no SitePolicy: nothing runs.", "Create the SitePolicy named default in this namespace."),
            "Refused": Reason("The policy refuses the job; the message gives every reason.", "Change the policy, or ask for a different job."),
            "NotAssigned": Reason(
                "No FederatedJob assigns this site here, so nobody gets a certificate in its name.",
                "Delete this SiteJob, if the hub has not made it; its job may be gone.",
            ),
            "NeedsApproval": Reason("The policy leaves the decision to a person.", "Set spec.approval of this SiteJob."),
            "Denied": Reason("A person refused the job.", "Set spec.approval again to change this."),
            "SiteSuspended": Reason("The site takes no jobs at the moment.", "Set spec.suspend of its SitePolicy to false."),
            "DataNotFound": Reason("The policy maps no volume to the data that the job names.", "Add it to spec.data of the SitePolicy."),
        },
    ),
    "Running": Condition(
        "The site's script runs.",
        {
            "Running": Reason("The script runs."),
            "NotStarted": Reason("The script has no pod yet."),
            "Pending": Reason("The script's pod is being started."),
            **_PODS,
            "Suspended": Reason("The hub holds the script back: the job is paused, has ended, or its server is not up yet."),
            "Forbidden": Reason("The API server refuses what the script needs: a quota, an admission rule, or the operator's role.", "See the message, which is the API server's."),
            "WaitingForQueue": Reason("The queue has not admitted the script yet.", "See the site's queue."),
            "Finished": Reason("The script has ended."),
        },
    ),
    "Finished": Condition(
        "The script will not run again.",
        {
            "NotFinished": Reason("The script has not ended."),
            "Succeeded": Reason("The script ended with exit code 0."),
            "RestartBudgetExhausted": Reason("The script died too often.", "See the message for its last words, and the log."),
            "SiteFailedByRule": Reason("A rule of the job's failurePolicy ends the site's part; the message names it.", "See the message for the script's last words, and the log."),
            "JobFailedByRule": Reason("A rule of the job's failurePolicy ends the whole job; the message names it.", "See the message for the script's last words, and the log."),
        },
    ),
}  # fmt: skip

SITE_CONDITIONS: Final[Mapping[str, Condition]] = {
    "Reachable": Condition(
        "The operator may work in the site's namespace; it is said once it was not so.",
        {
            "Reachable": Reason("The namespace lets the operator in."),
            "Forbidden": Reason(
                "The namespace does not let the operator in: no job begins there, and pods that run are not looked after.",
                "Install fedjob-site there with rbac.grant; the message is the API server's. It is tried again once a minute.",
            ),
        },
    ),
}  # fmt: skip

FAILURES: Final = frozenset(JOB_CONDITIONS["Failed"].reasons) - {"NotFinished", "Complete"}
SUCCESSES: Final = frozenset(JOB_CONDITIONS["Complete"].reasons) - {"NotFinished", "Failed"}


def tables() -> str:
    """The conditions and reasons as Markdown, for docs/operator.md."""
    parts = []
    for title, conditions in (
        ("FederatedJob", JOB_CONDITIONS),
        ("SiteJob", SITE_JOB_CONDITIONS),
        ("FederatedSite", SITE_CONDITIONS),
    ):
        parts.append(f"### {title}\n")
        for kind, found in conditions.items():
            parts.append(f"**{kind}**: {found.meaning}\n\n| Reason | Meaning | What to do |\n|---|---|---|")
            rows = (f"| `{name}` | {reason.meaning} | {reason.remedy} |" for name, reason in found.reasons.items())
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)
