"""When a job ends before its last round.  PURE"""

from __future__ import annotations

from collections.abc import Sequence

from .api import StopWhen


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
