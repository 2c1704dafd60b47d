"""Progress of jobs, as their servers report it: from JSON to the part of status that belongs to it.  PURE

A report is the `status.json` of a run (`fedjob.records.Status`). Who may speak for which job is in the certificate, not here.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from fedjob.api.limits import HUB_METRICS, HUB_REPORT, NAME
from fedjob.records import Status
from fedjob.text import one_line

from .. import names
from ..observed import Raw, stamp
from ..plan import Manifest

MAX_BYTES = HUB_REPORT.value
_MAX_CONDITIONS = 8
_MAX_TEXT = 512
_WORD = re.compile("[A-Za-z][A-Za-z0-9]{0,63}")
_BLANK = re.compile(r"\s")


def manifest(job: Raw, report: Status, now: datetime) -> Manifest:
    """What is applied to the status of `job`. Its version is a precondition: a job made anew under its name is another job.

    now: when the report came; the time of a round is that of the first report of it.
    """
    before: Raw = (job.get("status") or {}).get("progress") or {}
    progress = report.progress
    word = _is_word(report.reason)  # a stop condition that holds is told in a sentence
    told: dict[str, Any] = {
        "state": report.state,
        **({"reason": report.reason} if word else {}),
        "message": (report.message if word else report.reason or report.message)[:_MAX_TEXT],
        "attempt": report.job.attempt,
        "currentRound": progress.current_round,
        "completedRounds": progress.completed_rounds,
        "totalRounds": progress.total_rounds,
        "percent": round(100 * progress.completed_rounds / max(progress.total_rounds, 1)),
        "lastRoundSeconds": f"{progress.last_round_seconds:.2f}",
        "bytesIn": report.bytes.in_,
        "bytesOut": report.bytes.out,
    }
    if progress.completed_rounds == before.get("completedRounds") and "lastRoundTime" in before:
        told["lastRoundTime"] = before["lastRoundTime"]
    elif progress.completed_rounds:
        told["lastRoundTime"] = stamp(now)
    if report.conditions:
        told["conditions"] = [
            {"type": c.type, **({"reason": c.reason} if _is_word(c.reason) else {}), "message": c.message[:_MAX_TEXT]}
            for c in report.conditions[:_MAX_CONDITIONS]
            if _is_word(c.type)
        ]
    if progress.eta_seconds is not None:
        told["etaSeconds"] = round(progress.eta_seconds)
    metrics = [{"name": key, "value": value} for key, value in sorted(_metrics(report).items())]
    sites = [
        {
            "name": site.name,
            "training": site.state,
            "examples": round(site.examples),
            "trainingMessage": site.message[:_MAX_TEXT],
        }
        for site in report.sites
    ]
    status: dict[str, Any] = {"progress": told, "metrics": metrics, "sites": sites}
    if report.model.digest:
        status["model"] = {"digest": report.model.digest, "size": report.model.size}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.FEDERATED_JOB.name,
        "metadata": {part: job["metadata"][part] for part in ("namespace", "name", "uid", "resourceVersion")},
        "status": status,
    }


def without_metrics(wanted: Manifest) -> Manifest:
    """The rest of a report, where the API server refuses it: how far the job is matters more than its metrics."""
    return {**wanted, "status": {**wanted["status"], "metrics": []}}


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None


def _metrics(report: Status) -> dict[str, str]:
    """Metrics under names that the status can have: what it cannot is "_"."""
    return {
        _BLANK.sub("_", one_line(key, NAME.value)) or "_": f"{value:.6g}"
        for key, value in list(report.metrics.items())[: HUB_METRICS.value]
    }


def is_news(job: Raw, wanted: Manifest) -> bool:
    """Whether a report says anything that the job's status does not say already; a new estimate alone is no news."""
    there: Raw = job.get("status") or {}
    told = wanted["status"]
    sites = {site["name"]: site for site in there.get("sites") or ()}
    if any({key: sites.get(site["name"], {}).get(key) for key in site} != site for site in told["sites"]):
        return True
    progress = {key: value for key, value in (there.get("progress") or {}).items() if key != "etaSeconds"}
    said = {key: value for key, value in told["progress"].items() if key != "etaSeconds"}
    if told.get("model") != there.get("model"):
        return True
    return bool(progress != said or (there.get("metrics") or []) != told["metrics"])
