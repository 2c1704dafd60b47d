"""A site's word on a real control plane: without its yes there is nothing of a job at the site, and a no takes away what runs."""

from __future__ import annotations

from typing import Any

import pytest

from fedjob_operator import names
from fedjob_operator.names import CLIENT, SERVER

RULE: dict[str, Any] = {
    "name": "all",
    "images": [{"repository": "example/runtime"}],
    "inlineCode": "Allow",
    "approval": "Automatic",
}
MANUAL = {**RULE, "approval": "Manual"}
WAIT = {"onQuorumLost": "Wait"}  # a refusal ends no job


def decide(admin: Any, namespace: str, **spec: Any) -> None:
    """The site's administrator changes its policy."""
    admin.patch(names.SITE_POLICY, namespace, "default", {"spec": spec})


def say(admin: Any, namespace: str, decision: str, digest: str = "") -> None:
    """A person at the site decides on each assignment; digest: "" for the one that the status tells."""
    for raw in admin.list(names.SITE_JOB, namespace):
        told = digest or accepted(raw)["message"].partition("digest: ")[2].partition("}")[0]
        approval = {"decision": decision, "digest": told}
        admin.patch(names.SITE_JOB, namespace, raw["metadata"]["name"], {"spec": {"approval": approval}})


def accepted(raw: Any) -> dict[str, Any]:
    """The condition Accepted of a SiteJob, empty without one."""
    found = (raw.get("status") or {}).get("conditions") or ()
    return next((dict(c) for c in found if c["type"] == "Accepted"), {})


def all_say(admin: Any, namespace: str, reason: str) -> bool:
    """Whether both sites say this of the assignment as it is now, and nothing but their word keeps the scripts back."""
    raws = admin.list(names.SITE_JOB, namespace)
    now = [raw for raw in raws if raw["status"].get("observedGeneration") == raw["metadata"]["generation"]] if all(
        "status" in raw for raw in raws
    ) else []  # fmt: skip
    return len(now) == 2 and all(accepted(raw)["reason"] == reason and not raw["spec"]["suspend"] for raw in now)


def at_the_sites(admin: Any, namespace: str) -> dict[str, set[str]]:
    """What there is of a job at its sites: Jobs and pods of scripts, Secrets and ConfigMaps with their code."""
    assigned = {raw["metadata"]["name"] for raw in admin.list(names.SITE_JOB, namespace)}
    here = {
        kind.name: {raw["metadata"]["name"] for raw in admin.list(kind, namespace)}
        for kind in (names.SECRET, names.CONFIG_MAP, names.NETWORK_POLICY)
    }
    scripts = {
        kind.name: {raw["metadata"]["name"] for raw in admin.list(kind, namespace, f"{names.ROLE_LABEL}={CLIENT}")}
        for kind in (names.JOB, names.POD)
    }
    return {kind: found for kind, found in {**{k: v & assigned for k, v in here.items()}, **scripts}.items() if found}


def released(kubelet: Any, job: Any) -> None:
    """The server is ready."""
    kubelet.run(SERVER, 1)
    job.wait("ServerReady", "True", "Ready")


@pytest.fixture
def asking(admin: Any, namespace: str, start_operator: Any, submit: Any, kubelet: Any, until: Any) -> Any:
    """A job whose server is ready, and whose sites ask a person before they take it."""
    decide(admin, namespace, rules=[MANUAL])
    start_operator()
    job = submit(failurePolicy=WAIT)
    released(kubelet, job)
    until("both sites to ask", lambda: all_say(admin, namespace, "NeedsApproval"))
    return job


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        pytest.param({"rules": [{**RULE, "images": [{"repository": "other"}]}]}, "Refused", id="refused"),
        pytest.param({"suspend": True}, "SiteSuspended", id="stop everything now"),
    ],
)
def test_nothing_of_a_job_comes_to_a_site_that_does_not_take_it(
    admin: Any, namespace: str, start_operator: Any, submit: Any, kubelet: Any, until: Any, policy: Any, reason: str
) -> None:
    decide(admin, namespace, **policy)
    start_operator()
    job = submit(failurePolicy=WAIT)
    released(kubelet, job)
    until(f"both sites to say {reason}", lambda: all_say(admin, namespace, reason))
    assert at_the_sites(admin, namespace) == {}
    decide(admin, namespace, rules=[RULE], suspend=False)
    kubelet.run(CLIENT, 2)
    assert set(at_the_sites(admin, namespace)) == {"Job", "Pod", "Secret", "ConfigMap", "NetworkPolicy"}


@pytest.mark.usefixtures("asking")
def test_a_word_for_something_else_runs_nothing_and_a_no_is_heard(admin: Any, namespace: str, until: Any) -> None:
    say(admin, namespace, "Approved", "0" * 64)
    until("both sites to ask again", lambda: all_say(admin, namespace, "NeedsApproval"))
    assert at_the_sites(admin, namespace) == {}
    say(admin, namespace, "Denied")
    until("both sites to deny", lambda: all_say(admin, namespace, "Denied"))
    assert at_the_sites(admin, namespace) == {}


def test_what_was_approved_runs_until_the_job_is_changed_and_the_code_of_the_change_does_not(
    admin: Any, namespace: str, asking: Any, kubelet: Any, until: Any
) -> None:
    job = asking
    say(admin, namespace, "Approved")
    until("both sites to agree", lambda: all_say(admin, namespace, "Accepted"))
    kubelet.run(CLIENT, 2)
    job.edit(suspend=True)
    job.wait("Admitted", "False", "Suspended")
    until("no pods", lambda: kubelet.bury() or not [*kubelet.pods(SERVER), *kubelet.pods(CLIENT)])
    job.edit(trainer={"files": {"train.py": "steal()"}})
    job.edit(suspend=False)
    released(kubelet, job)
    until("both sites to ask again", lambda: all_say(admin, namespace, "NeedsApproval"))
    assert not {"Job", "Pod"} & set(at_the_sites(admin, namespace))
    for raw in admin.list(names.SITE_JOB, namespace):
        code = admin.get(names.CONFIG_MAP, namespace, raw["metadata"]["name"])
        assert "steal()" not in code["data"].values(), "what pods would see of it is as it was approved"


def test_stop_everything_now_takes_the_pods_that_run_and_none_comes_before_it_is_lifted(
    admin: Any, namespace: str, start_operator: Any, submit: Any, kubelet: Any, until: Any
) -> None:
    first = start_operator()
    job = submit(failurePolicy=WAIT)
    released(kubelet, job)
    kubelet.run(CLIENT, 2)
    decide(admin, namespace, suspend=True)
    until("both sites to stop", lambda: all_say(admin, namespace, "SiteSuspended"))
    until("no scripts", lambda: kubelet.bury() or not {"Job", "Pod"} & set(at_the_sites(admin, namespace)))
    assert first.stop() == 0
    start_operator(identity="replica-2")  # one that has not seen what ran
    job.edit(ttlSecondsAfterFinished=1000)  # and has looked at this job
    until("a pass", lambda: job.status["observedGeneration"] == job.raw["metadata"]["generation"])
    assert not {"Job", "Pod"} & set(at_the_sites(admin, namespace))
    assert job.condition("Failed")[0] == "False"
    decide(admin, namespace, suspend=False)
    kubelet.run(CLIENT, 2)
