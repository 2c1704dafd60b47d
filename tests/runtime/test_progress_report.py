"""What a server reports to its hub is never more than the hub takes, whatever sites have sent."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from fedjob.api import StopWhen
from fedjob.api.limits import HUB_METRICS, HUB_REPORT, STATUS_SITE_METRICS
from fedjob.progress import _few
from fedjob.progress_push import body
from fedjob.records import Condition, JobRef, SiteStatus, Status, from_json
from fedjob.stopping import unsent
from fedjob_operator.hub import reports

LONG = st.text(st.sampled_from("a💩\x1b\u202e日\udce9"), min_size=1, max_size=50).map(lambda text: text * 60)


@settings(max_examples=10, deadline=None)
@given(LONG, st.integers(0, 256), st.integers(0, 300))
def test_a_report_fits_and_counts_what_is_left_out(text: str, sites: int, names: int) -> None:
    status = Status(
        job=JobRef("j", "u"),
        state="Running",
        message=text,
        conditions=tuple(Condition(kind, "X", text) for kind in ("A", "B", "C")),
        metrics={f"{i}{text}": 1.0 for i in range(names)},
        sites=tuple(SiteStatus(f"s{i:0>62}", "Refused", message=text, metrics={text: 1.0}) for i in range(sites)),
    )
    sent = body(status)
    assert len(sent) <= HUB_REPORT.value == reports.MAX_BYTES
    heard = from_json(Status, json.loads(sent))
    assert len(heard.sites) == sites
    assert len(heard.metrics) + heard.metrics_left_out == names
    assert len(heard.metrics) <= HUB_METRICS.value


def test_a_small_report_goes_as_it_is() -> None:
    status = Status(job=JobRef("j", "u"), metrics={"accuracy": 0.5}, sites=(SiteStatus("a", message="why"),))
    assert from_json(Status, json.loads(body(status))) == status


def test_of_a_sites_scores_people_see_first_what_all_share() -> None:
    own = {f"x{i}": 1.0 for i in range(50)} | {"accuracy": 0.5}
    shown = _few(own, {"accuracy": 0.5, "loss": 1.0})
    assert next(iter(shown)) == "accuracy"
    assert len(shown) == STATUS_SITE_METRICS.value


def test_a_stop_metric_that_nobody_sends_is_named_with_what_was_sent() -> None:
    rule = StopWhen(metric="acuracy", value=0.9)
    assert unsent(rule, ["accuracy", "loss"], 4) == (
        "no site sent the metric acuracy that spec.workflow.stopWhen.metric names (did you mean accuracy?); sites sent accuracy, "
        "loss; without it all 4 rounds are run"
    )
    assert "sites sent none" in unsent(rule, [], 4)
    assert unsent(rule, ["acuracy"], 4) == unsent(None, [], 4) == ""
