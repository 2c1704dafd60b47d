"""What a FederatedSite says of itself: whether the operator may work in its namespace.  PURE"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ..observed import Raw
from ..plan import Manifest
from .conditions import FALSE, TRUE, State, settle


def standing(raw: Raw, forbidden: Mapping[str, str], now: datetime) -> Manifest | None:
    """The status of a FederatedSite, None if it is right as it is.

    forbidden: namespaces that do not let the operator in, and the API server's words. A site that was never left out says nothing.
    """
    space = (raw["spec"].get("local") or {}).get("namespace") or ""
    before: Raw = raw.get("status") or {}
    known = before.get("conditions") or ()
    if space in forbidden:
        state = State(FALSE, "Forbidden", forbidden[space])
    elif known:
        state = State(TRUE, "Reachable")
    else:
        return None
    generation = raw["metadata"]["generation"]
    status = {"observedGeneration": generation, "conditions": settle(known, {"Reachable": state}, generation, now)}
    return None if all(before.get(key) == status[key] for key in status) else status
