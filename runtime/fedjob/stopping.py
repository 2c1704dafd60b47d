"""When a job ends before its last round.  PURE"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from .api import StopWhen
from .text import one_line


def reached(rule: StopWhen | None, values: Sequence[float]) -> str:
    """Why to stop, or "".

    values: the rule's metric for each completed round that had it, in order.
    """
    if rule is None or not values:
        return ""
    sign = 1.0 if rule.goal == "Maximize" else -1.0
    last = values[-1]
    if rule.value is not None and sign * last >= sign * rule.value:
        return f"{rule.metric} is {last:g}, {'at least' if sign > 0 else 'at most'} {rule.value:g}"
    if rule.patience_rounds is not None:
        best = max(range(len(values)), key=lambda i: (sign * values[i], -i))
        if len(values) - 1 - best >= rule.patience_rounds:
            return f"{rule.metric} has not improved on {values[best]:g} for {rule.patience_rounds} rounds"
    return ""


def unsent(rule: StopWhen | None, sent: Sequence[str], rounds: int) -> str:
    """What to say of a stop condition whose metric no site has sent in a round, or "".

    sent: names of the round's metrics. rounds: of the job, all of which it runs then.
    """
    if rule is None or rule.metric in sent:
        return ""
    near = difflib.get_close_matches(rule.metric, sent)
    meant = f" (did you mean {one_line(near[0])}?)" if near else ""
    others = (
        f"sites sent {', '.join(map(one_line, sorted(sent)[:8]))}" if sent else "sites sent none, FLModel(metrics={…})"
    )
    return (
        f"no site sent the metric {rule.metric} that spec.workflow.stopWhen.metric names{meant}; {others}; "
        f"without it all {rounds} rounds are run"
    )
