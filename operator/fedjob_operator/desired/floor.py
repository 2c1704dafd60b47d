"""What a site's floor has against an assignment, whichever rule fits: amounts, and what a job chooses for its pods.  PURE

An amount that the floor does not name is not bounded. A choice that it does not list is refused: a priority, a queue and a
toleration take something from others in the site's cluster, and a runtime class decides how far a pod is kept apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..observed import Raw
from ..quantity import number
from .listed import covers, taint


def objections(policy: Raw, assignment: Raw) -> Iterator[str]:
    """What stands against `assignment`, the spec of a SiteJob, each with the field of `policy`, the spec of the SitePolicy."""
    floor: Raw = policy.get("floor") or {}
    pod: Raw = floor.get("pod") or {}
    yield from _amounts(pod.get("maxPerJob") or {}, assignment["trainer"])
    most_rounds = (floor.get("exchange") or {}).get("maxRounds")
    if most_rounds is not None and assignment["workflow"]["rounds"] > most_rounds:
        yield f"{assignment['workflow']['rounds']} rounds, at most {most_rounds} (floor.exchange.maxRounds)"
    asked: Raw = assignment.get("scheduling") or {}
    own = (policy.get("pods") or {}).get("runtimeClassName")
    yield from _choice(asked, "runtimeClassName", [own] if own else [], "pods.runtimeClassName")
    yield from _choice(asked, "priorityClassName", pod.get("priorityClassNames"), "floor.pod.priorityClassNames")
    yield from _choice(asked, "queueName", pod.get("queueNames"), "floor.pod.queueNames")
    listed = pod.get("tolerations") or ()
    for toleration in asked.get("tolerations") or ():
        if not any(covers(entry, toleration) for entry in listed):
            yield f"scheduling.tolerations {taint(toleration)} is not among floor.pod.tolerations"


def _amounts(most_of: Raw, trainer: Raw) -> Iterator[str]:
    limits = (trainer.get("resources") or {}).get("limits") or {}
    for name, most in most_of.items():
        asked = limits.get(name)
        if asked is None:
            if "/" not in name:
                yield f"no limit of {name}, at most {most} (floor.pod.maxPerJob)"
        elif number(str(asked)) * int(trainer["nodes"]) > number(str(most)):
            yield f"{name} {asked} on {trainer['nodes']} nodes, at most {most} (floor.pod.maxPerJob)"


def _choice(asked: Raw, field: str, listed: Sequence[str] | None, where: str) -> Iterator[str]:
    value = asked.get(field)
    if value is not None and value not in (listed or ()):
        yield f"scheduling.{field} {value} is not among {', '.join(listed or ()) or 'none'} ({where})"
